//! For how long the threads of the targets were held up.

use profiler_model::Nanos;

use crate::{Held, HeldBy};

/// How often threads were held up, for how long in all and at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Holds {
    pub count: u64,
    pub total: Nanos,
    pub longest: Nanos,
}

impl Holds {
    fn add(&mut self, duration: Nanos) {
        self.count += 1;
        self.total += duration;
        self.longest = self.longest.max(duration);
    }

    fn since(&self, earlier: &Holds) -> Holds {
        Holds {
            count: self.count.saturating_sub(earlier.count),
            total: self.total.saturating_sub(earlier.total),
            longest: self.longest,
        }
    }

    fn merge(&mut self, other: &Holds) {
        self.count += other.count;
        self.total += other.total;
        self.longest = self.longest.max(other.longest);
    }
}

/// What held up the threads of the targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HeldUp {
    /// Stops of a thread.
    pub stops: Holds,
    /// Times that a thread was held up without being stopped.
    pub interruptions: Holds,
    /// Instants that held up nothing.
    pub without_stop: u64,
}

impl HeldUp {
    pub fn add(&mut self, held: &Held) {
        match held.by {
            HeldBy::Stop => self.stops.add(held.duration),
            HeldBy::Program => self.interruptions.add(held.duration),
            HeldBy::Nothing => self.without_stop += 1,
        }
    }

    /// What was counted since the counts were as `earlier`. The longest times are those of the whole run.
    pub fn since(&self, earlier: &HeldUp) -> HeldUp {
        HeldUp {
            stops: self.stops.since(&earlier.stops),
            interruptions: self.interruptions.since(&earlier.interruptions),
            without_stop: self.without_stop.saturating_sub(earlier.without_stop),
        }
    }

    /// Adds what another run counted.
    pub fn merge(&mut self, other: &HeldUp) {
        self.stops.merge(&other.stops);
        self.interruptions.merge(&other.interruptions);
        self.without_stop += other.without_stop;
    }
}
