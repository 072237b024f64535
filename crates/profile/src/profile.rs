//! The profile itself: the tables side by side, and how samples get into them.

use std::sync::Arc;

use profiler_model::{Frame, Nanos, Timestamp};

use crate::event::{Event, Loss, SampleCause, SampleEvent, Scope, Sink, ThreadRole};
use crate::handle::TallyId;
use crate::mapping::Mapping;
use crate::tally::TallyTable;
use crate::timeline::{Entry, Timeline};
use crate::{
    Basis, Dictionary, FrameId, LeafFirst, Ledger, ProcessId, ProcessInfo, Run, Sample, StackId, Tally,
    ThreadId, ThreadInfo, Weights,
};

/// Everything that a run has seen.
///
/// Handles come from the profile they are used with; one from another profile names another row or panics.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    dictionary: Dictionary,
    /// What the ids of the events that it takes are in its own dictionary.
    mapping: Mapping,
    tallies: TallyTable,
    timeline: Option<Timeline>,
    ledger: Ledger,
}

/// Filling.
impl Profile {
    /// An empty profile that keeps sums only: its memory grows with the number of distinct stacks.
    pub fn new() -> Self {
        Profile::default()
    }

    /// An empty profile that keeps, beside the sums, when each sample was taken.
    pub fn with_timeline() -> Self {
        Profile { timeline: Some(Timeline::default()), ..Profile::default() }
    }

    /// See [`Dictionary::process`].
    pub fn process(&mut self, process: ProcessInfo) -> ProcessId {
        self.dictionary.process(process)
    }

    /// See [`Dictionary::thread`].
    pub fn thread(&mut self, thread: ThreadInfo) -> ThreadId {
        self.dictionary.thread(thread)
    }

    /// See [`Dictionary::name_thread`].
    pub fn name_thread(&mut self, thread: ThreadId, name: impl Into<Arc<str>>) {
        self.dictionary.name_thread(thread, name);
    }

    /// See [`Dictionary::frame`].
    pub fn frame(&mut self, frame: &Frame) -> FrameId {
        self.dictionary.frame(frame)
    }

    /// See [`Dictionary::push`].
    pub fn push(&mut self, parent: Option<StackId>, frame: FrameId) -> StackId {
        self.dictionary.push(parent, frame)
    }

    /// See [`Dictionary::stack`].
    pub fn stack(&mut self, root_first: impl IntoIterator<Item = FrameId>) -> Option<StackId> {
        self.dictionary.stack(root_first)
    }

    /// Adds a sample of one instant.
    pub fn record(&mut self, sample: Sample) {
        self.add(&Event::Sample(SampleEvent::new(sample, SampleCause::Instant)));
    }

    /// Adds an event whose ids are those of this profile.
    pub fn add(&mut self, event: &Event) {
        self.ledger.add(event);
        match event {
            Event::Sample(event) => self.add_sample(event),
            Event::Loss(loss) => self.add_lost_wait(loss),
            Event::Skip(_) | Event::Held(_) | Event::Look(_) | Event::Metric(_) | Event::Mark(_) => {}
        }
    }

    /// Adds an interval off the CPU whose stack is lost: how long the thread waited, and for what, is known all the same.
    fn add_lost_wait(&mut self, loss: &Loss) {
        let &Loss { at, scope, reason, wall, cause, since, role, .. } = loss;
        if let (SampleCause::OffCpu, Scope::Thread(thread), Some(ThreadRole { state, holds_gil })) =
            (cause, scope, role)
        {
            let sample = Sample { at, thread, stack: None, state, holds_gil, cpu: Nanos::ZERO, wall };
            self.add_spread(&sample, Basis::LostOffCpu(reason), 1, since);
        }
    }

    fn add_sample(&mut self, event: &SampleEvent) {
        let SampleEvent { sample, count, since, cause } = *event;
        let stackless = Sample { stack: None, ..sample };
        match cause {
            SampleCause::Instant => self.add_times(&sample, count),
            SampleCause::OffCpu => self.add_spread(&sample, Basis::OffCpu, 1, since),
            SampleCause::ShortOffCpu => self.add_spread(&stackless, Basis::ShortOffCpu, 1, since),
            SampleCause::Unsampled => self.add_spread(&stackless, Basis::Unsampled, count, since),
        }
    }

    /// Adds a sample that is the same at `count` instants.
    fn add_times(&mut self, sample: &Sample, count: u64) {
        let Some(further) = count.checked_sub(1) else { return };
        let tally = self.add_to_sums(sample, Basis::Instant, count);
        if let Some(timeline) = &mut self.timeline {
            timeline.add(sample, tally);
            let same = Sample { cpu: Nanos::ZERO, wall: Nanos::ZERO, ..*sample };
            (0..further).for_each(|_| timeline.add(&same, tally));
        }
    }

    /// Adds a sample. With `since` its time lies anywhere between that instant and the sample's own.
    fn add_spread(&mut self, sample: &Sample, basis: Basis, count: u64, since: Option<Timestamp>) {
        let tally = self.add_to_sums(sample, basis, count);
        if let Some(timeline) = &mut self.timeline {
            match since {
                Some(since) => timeline.add_sum(sample, since, tally),
                None => timeline.add(sample, tally),
            }
        }
    }

    fn add_to_sums(&mut self, sample: &Sample, basis: Basis, count: u64) -> TallyId {
        let weights = Weights { samples: count, ..Weights::of(sample) };
        self.tallies.add(Tally { weights, ..Tally::of(sample, basis) })
    }

    /// Sets the ledger of a view that does not see all events.
    pub fn set_ledger(&mut self, ledger: Ledger) {
        self.ledger = ledger;
    }

    /// The tables.
    pub fn dictionary(&self) -> &Dictionary {
        &self.dictionary
    }

    /// The tables, to be filled by hand.
    pub fn dictionary_mut(&mut self) -> &mut Dictionary {
        &mut self.dictionary
    }

    pub(crate) fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    pub(crate) fn parts(&self) -> (&TallyTable, Option<&Timeline>) {
        (&self.tallies, self.timeline.as_ref())
    }

    /// The same frames, stacks, processes, threads and ledger with other samples.
    pub(crate) fn with_samples(&self, tallies: TallyTable, timeline: Option<Timeline>) -> Profile {
        let (dictionary, ledger) = (self.dictionary.clone(), self.ledger.clone());
        Profile { dictionary, mapping: self.mapping.clone(), tallies, timeline, ledger }
    }

    /// Forgets when samples were taken, and keeps their sums.
    pub fn drop_timeline(&mut self) {
        self.timeline = None;
    }

    pub(crate) fn add_tally(&mut self, tally: Tally) -> TallyId {
        self.tallies.add(tally)
    }

    pub(crate) fn adopt_entries(&mut self, thread: ThreadId, entries: Vec<Entry>) {
        if let Some(timeline) = &mut self.timeline {
            timeline.adopt(thread, entries);
        }
    }
}

/// Reading.
impl Profile {
    /// What became of every attempt, and what the run cost.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// See [`Dictionary::processes`].
    pub fn processes(&self) -> impl ExactSizeIterator<Item = (ProcessId, &ProcessInfo)> {
        self.dictionary.processes()
    }

    /// See [`Dictionary::process_of`].
    pub fn process_of(&self, process: ProcessId) -> &ProcessInfo {
        self.dictionary.process_of(process)
    }

    /// See [`Dictionary::threads`].
    pub fn threads(&self) -> impl ExactSizeIterator<Item = (ThreadId, &ThreadInfo)> {
        self.dictionary.threads()
    }

    /// See [`Dictionary::thread_of`].
    pub fn thread_of(&self, thread: ThreadId) -> &ThreadInfo {
        self.dictionary.thread_of(thread)
    }

    /// See [`Dictionary::frames`].
    pub fn frames(&self) -> impl ExactSizeIterator<Item = (FrameId, &Frame)> {
        self.dictionary.frames()
    }

    /// See [`Dictionary::frame_of`].
    pub fn frame_of(&self, frame: FrameId) -> &Frame {
        self.dictionary.frame_of(frame)
    }

    /// See [`Dictionary::stacks`].
    pub fn stacks(
        &self,
    ) -> impl ExactSizeIterator<Item = (StackId, Option<StackId>, FrameId)> + DoubleEndedIterator {
        self.dictionary.stacks()
    }

    /// See [`Dictionary::parent_of`].
    pub fn parent_of(&self, stack: StackId) -> Option<StackId> {
        self.dictionary.parent_of(stack)
    }

    /// See [`Dictionary::leaf_of`].
    pub fn leaf_of(&self, stack: StackId) -> FrameId {
        self.dictionary.leaf_of(stack)
    }

    /// See [`Dictionary::leaf_first`].
    pub fn leaf_first(&self, stack: Option<StackId>) -> LeafFirst<'_> {
        self.dictionary.leaf_first(stack)
    }

    /// See [`Dictionary::root_first`].
    pub fn root_first(&self, stack: Option<StackId>) -> Vec<FrameId> {
        self.dictionary.root_first(stack)
    }

    /// The summed samples, in order of first appearance.
    pub fn tallies(&self) -> &[Tally] {
        self.tallies.rows()
    }

    /// Whether this profile keeps when each sample was taken.
    pub fn keeps_timeline(&self) -> bool {
        self.timeline.is_some()
    }

    /// How many runs of equal samples the timeline holds.
    pub fn timeline_len(&self) -> usize {
        self.timeline.as_ref().map_or(0, Timeline::len)
    }

    /// The samples of one thread in order of time, or `None` where this profile keeps sums only.
    pub fn timeline(&self, thread: ThreadId) -> Option<impl Iterator<Item = Run>> {
        Some(self.timeline.as_ref()?.runs(thread, self.tallies.rows()))
    }
}

impl Sink for Profile {
    fn take(&mut self, dictionary: &Dictionary, events: &[Event]) {
        self.mapping.extend(&mut self.dictionary, dictionary);
        for event in events {
            let event = self.mapping.event(event);
            self.add(&event);
        }
    }
}
