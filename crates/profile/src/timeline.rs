//! The samples of each thread in order of time, repeated ones run-length coded.
//!
//! A sample stands for the wall time up to its instant. A run holds samples whose times follow each other
//! without a gap, so that it stands for one stretch of time; where a thread was not shown for a while, a new
//! run begins, be the stack the same.

use profiler_model::{Nanos, ThreadState, Timestamp};

use crate::handle::TallyId;
use crate::{Basis, Sample, StackId, Tally, ThreadId, Weights};

/// Consecutive samples of one thread that had the same stack in the same state, with no time between them
/// that none of them stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// When the first was taken.
    pub first: Timestamp,
    /// When the last was taken.
    pub last: Timestamp,
    /// Whose.
    pub thread: ThreadId,
    /// The stack, or `None` where the thread had no frame.
    pub stack: Option<StackId>,
    /// What is known of the time beside the stack.
    pub basis: Basis,
    /// What the thread was doing.
    pub state: ThreadState,
    /// Whether it held the GIL.
    pub holds_gil: bool,
    /// What the samples stand for together.
    pub weights: Weights,
    /// Whether it is a sum: its time lies anywhere between `first` and `last`, in one piece or in several.
    pub is_sum: bool,
}

impl Run {
    /// Where the stretch of time begins that the samples stand for; it ends with the last of them. Of a sum: where it may
    /// begin.
    pub fn start(&self) -> Timestamp {
        if self.is_sum {
            return self.first;
        }
        Timestamp::from_nanos(self.last.as_nanos().saturating_sub(self.weights.wall.as_nanos()))
    }
}

/// A run as it is kept: what it has in common with others is in the row of its tally.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    first: Timestamp,
    last: Timestamp,
    /// The tally with its thread, stack and state.
    tally: TallyId,
    /// How many samples; a run that outgrows the number is continued by another entry.
    count: u32,
    is_sum: bool,
    cpu: Nanos,
    wall: Nanos,
}

impl Entry {
    /// The run of one sample.
    fn of(sample: &Sample, tally: TallyId) -> Self {
        let Sample { at, cpu, wall, .. } = *sample;
        Entry { first: at, last: at, tally, count: 1, is_sum: false, cpu, wall }
    }

    /// A run in the words of the profile.
    fn run(&self, rows: &[Tally]) -> Run {
        let tally = rows[self.tally.index()];
        Run {
            first: self.first,
            last: self.last,
            thread: tally.thread,
            stack: tally.stack,
            basis: tally.basis,
            state: tally.state,
            holds_gil: tally.holds_gil,
            weights: Weights { samples: u64::from(self.count), cpu: self.cpu, wall: self.wall },
            is_sum: self.is_sum,
        }
    }

    /// A run of another profile, whose tally in this one is given. `None` where its number of samples
    /// is more than one entry counts, which no entry of a timeline is.
    pub(crate) fn adopted(run: &Run, tally: TallyId) -> Option<Entry> {
        Some(Entry {
            first: run.first,
            last: run.last,
            tally,
            count: u32::try_from(run.weights.samples).ok()?,
            is_sum: run.is_sum,
            cpu: run.weights.cpu,
            wall: run.weights.wall,
        })
    }
}

/// The time series of a profile.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    /// By thread.
    threads: Vec<Vec<Entry>>,
}

impl Timeline {
    /// Adds a sample of that tally: to its thread's last run where it equals and continues it.
    pub(crate) fn add(&mut self, sample: &Sample, tally: TallyId) {
        let entries = self.entries(sample.thread);
        if let Some(last) = entries.last_mut()
            && last.tally == tally
            && !last.is_sum
            && sample.at.since(last.last) <= sample.wall
            && let Some(count) = last.count.checked_add(1)
        {
            last.count = count;
            last.last = last.last.max(sample.at);
            last.cpu += sample.cpu;
            last.wall += sample.wall;
            return;
        }
        entries.push(Entry::of(sample, tally));
    }

    /// Adds a sample whose time lies anywhere between `since` and its own instant.
    pub(crate) fn add_sum(&mut self, sample: &Sample, since: Timestamp, tally: TallyId) {
        let first = since.min(sample.at);
        self.entries(sample.thread).push(Entry { first, is_sum: true, ..Entry::of(sample, tally) });
    }

    /// Adds runs of another profile, keeping the order of time.
    pub(crate) fn adopt(&mut self, thread: ThreadId, entries: impl IntoIterator<Item = Entry>) {
        let own = self.entries(thread);
        own.extend(entries);
        own.sort_by_key(|entry| entry.first);
    }

    /// The runs of the tallies that `renamed` has a new handle for, by index.
    pub(crate) fn select(&self, renamed: &[Option<TallyId>]) -> Timeline {
        let selected = |entry: &Entry| Some(Entry { tally: renamed[entry.tally.index()]?, ..*entry });
        let threads = self.threads.iter().map(|entries| entries.iter().filter_map(selected).collect());
        Timeline { threads: threads.collect() }
    }

    /// How many runs it holds.
    pub(crate) fn len(&self) -> usize {
        self.threads.iter().map(Vec::len).sum()
    }

    /// The runs of one thread in order of time.
    pub(crate) fn runs<'a>(&'a self, thread: ThreadId, rows: &'a [Tally]) -> impl Iterator<Item = Run> + 'a {
        self.threads.get(thread.index()).into_iter().flatten().map(|entry| entry.run(rows))
    }

    /// The runs of one thread, to be added to.
    fn entries(&mut self, thread: ThreadId) -> &mut Vec<Entry> {
        if self.threads.len() <= thread.index() {
            self.threads.resize_with(thread.index() + 1, Vec::new);
        }
        &mut self.threads[thread.index()]
    }
}
