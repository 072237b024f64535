//! What each thread did: in the last interval, since the start, and where it was last seen.

use profiler_model::{Nanos, ThreadState, Timestamp};
use profiler_profile::{Sample, StackId};

/// What a thread did in a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadCost {
    /// The instants at which it was looked at.
    pub samples: u64,
    /// Those in which it ran.
    pub running: u64,
    /// Those in which it waited for the GIL.
    pub gil_waits: u64,
    /// Those in which it held the GIL.
    pub held: u64,
    /// Its CPU time.
    pub cpu: Nanos,
    /// The time that these stand for.
    pub wall: Nanos,
}

/// One thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadRow {
    /// Since the start.
    pub start: ThreadCost,
    /// In the last interval.
    pub recent: ThreadCost,
    current: ThreadCost,
    /// Where it was seen last, as far as it was.
    pub last: Option<Seen>,
}

/// A thread as it was last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When.
    pub at: Timestamp,
    /// Its stack.
    pub stack: Option<StackId>,
    /// What it was doing.
    pub state: ThreadState,
    /// Whether it held the GIL.
    pub holds_gil: bool,
}

impl ThreadCost {
    fn add(&mut self, sample: &Sample) {
        self.samples += 1;
        self.running += u64::from(sample.state.is_running());
        self.gil_waits += u64::from(sample.state == ThreadState::WaitingForGil);
        self.held += u64::from(sample.holds_gil);
        self.cpu += sample.cpu;
        self.wall += sample.wall;
    }

    fn join(&mut self, other: &ThreadCost) {
        self.samples += other.samples;
        self.running += other.running;
        self.gil_waits += other.gil_waits;
        self.held += other.held;
        self.cpu += other.cpu;
        self.wall += other.wall;
    }

    /// CPU time as a part of the time.
    pub fn cpu_share(&self) -> f64 {
        self.part(self.cpu.as_nanos(), self.wall.as_nanos())
    }

    /// The part of the instants at which it held the GIL.
    pub fn gil_share(&self) -> f64 {
        self.part(self.held, self.samples)
    }

    fn part(&self, part: u64, whole: u64) -> f64 {
        if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
    }
}

impl ThreadRow {
    /// Counts what it was doing at an instant.
    pub(super) fn count(&mut self, look: &Sample) {
        self.start.add(look);
        self.current.add(look);
    }

    /// Notes where it was seen.
    pub(super) fn see(&mut self, sample: &Sample) {
        let Sample { at, stack, state, holds_gil, .. } = *sample;
        self.last = Some(Seen { at, stack, state, holds_gil });
    }

    pub(super) fn roll(&mut self) {
        self.recent = std::mem::take(&mut self.current);
    }

    /// What there is of an interval that will never be over belongs to the one before it.
    pub(super) fn take_rest(&mut self) {
        self.recent.join(&std::mem::take(&mut self.current));
    }
}
