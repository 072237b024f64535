//! The profile itself: the tables side by side, and how samples get into them.

use std::sync::Arc;

use profiler_model::{Frame, LossReason, Nanos, Timestamp};

use crate::frame_table::FrameTable;
use crate::handle::TallyId;
use crate::stack_table::StackTable;
use crate::tally::TallyTable;
use crate::thread_table::ThreadTable;
use crate::timeline::{Entry, Timeline};
use crate::{
    FrameId, LeafFirst, Ledger, ProcessId, ProcessInfo, Run, Sample, StackId, Tally, ThreadId, ThreadInfo,
    Weights,
};

/// What a sample is in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Shown.
    Shown,
    /// Lost for this reason: its time is known, and its stack is not.
    Lost(LossReason),
    /// Counted as lost already, where it was lost.
    Elsewhere,
}

/// Everything that a run has seen.
///
/// Handles come from the profile they are used with; one from another profile names another row or panics.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    frames: FrameTable,
    stacks: StackTable,
    processes: Vec<ProcessInfo>,
    threads: ThreadTable,
    tallies: TallyTable,
    timeline: Option<Timeline>,
    /// The samples since they were last taken, where somebody takes them.
    recent: Option<Vec<Sample>>,
    /// The looks since they were last taken, where they are told.
    looks: Option<Vec<Sample>>,
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

    /// Keeps from now on each sample as it comes in as well, for [`take_recent`](Self::take_recent).
    pub fn keep_recent(&mut self) {
        self.recent.get_or_insert_default();
    }

    /// The samples that came in since this was last asked, in order of time: what a live view adds to what it
    /// shows. Whoever keeps them has to take them regularly.
    pub fn take_recent(&mut self) -> Vec<Sample> {
        self.recent.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Has what threads are doing be told apart from the samples from now on, where samples come from clocks that only
    /// meet what runs: for whoever takes the recent samples.
    pub fn keep_looks(&mut self) {
        if self.recent.is_some() {
            self.looks.get_or_insert_default();
        }
    }

    /// Whether looks are of use to anybody.
    pub fn keeps_looks(&self) -> bool {
        self.looks.is_some()
    }

    /// Notes what a thread was doing at an instant at which all of its process were looked at, and what it used since
    /// the last one: a sample without a stack, which counts for nothing but this.
    pub fn note_look(&mut self, look: Sample) {
        self.looks.iter_mut().for_each(|looks| looks.push(look));
    }

    /// The looks since this was last asked; `None` where each sample is one.
    pub fn take_looks(&mut self) -> Option<Vec<Sample>> {
        self.looks.as_mut().map(std::mem::take)
    }

    /// The handle of a process; a new one only where none is equal.
    pub fn process(&mut self, process: ProcessInfo) -> ProcessId {
        let known = self.processes.iter().position(|known| known.is_same_program(&process));
        ProcessId::new(match known {
            Some(index) => {
                let version = &mut self.processes[index].python_version;
                *version = version.take().or(process.python_version);
                index
            }
            None => {
                self.processes.push(process);
                self.processes.len() - 1
            }
        })
    }

    /// The handle of a thread; a new one only where none has the same ids. A name that is told later
    /// replaces an earlier one.
    pub fn thread(&mut self, thread: ThreadInfo) -> ThreadId {
        self.threads.intern(thread)
    }

    /// Names a thread: names are often set after the thread was first seen.
    pub fn name_thread(&mut self, thread: ThreadId, name: impl Into<Arc<str>>) {
        self.threads.name(thread, name.into());
    }

    /// The handle of a frame, which is cloned only when it is new.
    pub fn frame(&mut self, frame: &Frame) -> FrameId {
        self.frames.intern(frame)
    }

    /// The stack of `frame` standing on `parent`.
    pub fn push(&mut self, parent: Option<StackId>, frame: FrameId) -> StackId {
        self.stacks.push(parent, frame)
    }

    /// The stack of these frames, or `None` where there are none.
    pub fn stack(&mut self, root_first: impl IntoIterator<Item = FrameId>) -> Option<StackId> {
        root_first.into_iter().fold(None, |parent, frame| Some(self.push(parent, frame)))
    }

    /// Adds a sample, and counts it as shown.
    pub fn record(&mut self, sample: Sample) {
        self.record_as(sample, None, Counted::Shown);
    }

    /// Adds a sample that was seen at so many further instants, for all of which it stands; counts all as shown.
    pub fn record_times(&mut self, sample: Sample, further: u64) {
        self.record(sample);
        if further == 0 {
            return;
        }
        let same = Sample { cpu: Nanos::ZERO, wall: Nanos::ZERO, ..sample };
        let weights = Weights { samples: further, ..Weights::of(&same) };
        let tally = self.tallies.add(Tally { weights, ..Tally::of(&same) });
        if let Some(timeline) = &mut self.timeline {
            (0..further).for_each(|_| timeline.add(&same, tally));
        }
        if let Some(recent) = &mut self.recent {
            recent.extend((0..further).map(|_| same));
        }
        self.ledger.count_shown_times(further);
    }

    /// Adds a sample that stands for time of which not all is known. With `since` its time lies anywhere between that
    /// instant and the sample's own. `counted` says what it is in the ledger.
    pub fn record_as(&mut self, sample: Sample, since: Option<Timestamp>, counted: Counted) {
        let tally = self.tallies.add(Tally::of(&sample));
        if let Some(timeline) = &mut self.timeline {
            match since {
                Some(since) => timeline.add_sum(&sample, since, tally),
                None => timeline.add(&sample, tally),
            }
        }
        if let Some(recent) = &mut self.recent {
            recent.push(sample);
        }
        match counted {
            Counted::Shown => self.ledger.count_shown(),
            Counted::Lost(reason) => self.ledger.count_lost(reason),
            Counted::Elsewhere => {}
        }
    }

    /// The ledger, to count what became of the other attempts and what they cost.
    pub fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    pub(crate) fn parts(&self) -> (&TallyTable, Option<&Timeline>) {
        (&self.tallies, self.timeline.as_ref())
    }

    /// The same frames, stacks, processes, threads and ledger with other samples.
    pub(crate) fn with_samples(&self, tallies: TallyTable, timeline: Option<Timeline>) -> Profile {
        Profile {
            frames: self.frames.clone(),
            stacks: self.stacks.clone(),
            processes: self.processes.clone(),
            threads: self.threads.clone(),
            tallies,
            timeline,
            recent: None,
            looks: None,
            ledger: self.ledger.clone(),
        }
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

    /// All processes, each after the process that started it.
    pub fn processes(&self) -> impl ExactSizeIterator<Item = (ProcessId, &ProcessInfo)> {
        self.processes.iter().enumerate().map(|(index, process)| (ProcessId::new(index), process))
    }

    /// What is known of a process.
    pub fn process_of(&self, process: ProcessId) -> &ProcessInfo {
        &self.processes[process.index()]
    }

    /// All threads, in order of first appearance.
    pub fn threads(&self) -> impl ExactSizeIterator<Item = (ThreadId, &ThreadInfo)> {
        self.threads.threads().iter().enumerate().map(|(index, thread)| (ThreadId::new(index), thread))
    }

    /// What is known of a thread.
    pub fn thread_of(&self, thread: ThreadId) -> &ThreadInfo {
        &self.threads.threads()[thread.index()]
    }

    /// All frames, in order of first appearance.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = (FrameId, &Frame)> {
        self.frames.frames().iter().enumerate().map(|(index, frame)| (FrameId::new(index), frame))
    }

    /// The frame behind a handle.
    pub fn frame_of(&self, frame: FrameId) -> &Frame {
        self.frames.frame(frame)
    }

    /// All stacks as (stack, the stack below, innermost frame), in the order of their handles: each after the
    /// one it stands on.
    pub fn stacks(
        &self,
    ) -> impl ExactSizeIterator<Item = (StackId, Option<StackId>, FrameId)> + DoubleEndedIterator {
        self.stacks.iter()
    }

    /// The stack below the innermost frame.
    pub fn parent_of(&self, stack: StackId) -> Option<StackId> {
        self.stacks.parent(stack)
    }

    /// The innermost frame of a stack.
    pub fn leaf_of(&self, stack: StackId) -> FrameId {
        self.stacks.frame(stack)
    }

    /// The frames of a stack, innermost first.
    pub fn leaf_first(&self, stack: Option<StackId>) -> LeafFirst<'_> {
        self.stacks.leaf_first(stack)
    }

    /// The frames of a stack, outermost first.
    pub fn root_first(&self, stack: Option<StackId>) -> Vec<FrameId> {
        let mut frames: Vec<FrameId> = self.leaf_first(stack).collect();
        frames.reverse();
        frames
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
