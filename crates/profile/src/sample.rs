//! One sample as the sampler hands it over, and what samples sum up to.

use std::ops::AddAssign;

use profiler_model::{Nanos, ThreadState, Timestamp};

use crate::{StackId, ThreadId};

/// The stack of one thread at one instant, proved and resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: Timestamp,
    /// Whose.
    pub thread: ThreadId,
    /// The stack, or `None` where the thread had no frame.
    pub stack: Option<StackId>,
    /// What the thread was doing.
    pub state: ThreadState,
    /// Whether it held the GIL.
    pub holds_gil: bool,
    /// The CPU time it stands for: what the thread consumed since its last sample.
    pub cpu: Nanos,
    /// The wall time it stands for.
    pub wall: Nanos,
}

/// What a number of samples stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weights {
    /// How many samples.
    pub samples: u64,
    /// Their CPU time.
    pub cpu: Nanos,
    /// Their wall time.
    pub wall: Nanos,
}

impl Weights {
    /// The weights of one sample.
    pub const fn of(sample: &Sample) -> Self {
        Weights { samples: 1, cpu: sample.cpu, wall: sample.wall }
    }
}

impl AddAssign for Weights {
    fn add_assign(&mut self, other: Weights) {
        self.samples = self.samples.saturating_add(other.samples);
        self.cpu += other.cpu;
        self.wall += other.wall;
    }
}
