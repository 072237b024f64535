//! What the clocks of a thread say at an instant.

use crate::{Nanos, SchedStat};

/// What the clocks of a thread said when it was looked at: what the weights of a sample are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockReading {
    /// The scheduler's counters, of a thread that is sampled whether it runs or not.
    Scheduler {
        /// The CPU time that it had used.
        cpu: Nanos,
        /// Whether it was on a CPU at the instant. One that was not used its CPU time elsewhere than it stands now.
        had_cpu: bool,
    },
    /// The scheduler's counters, of a thread whose time on a CPU is measured by ticks: they say how long it was off the CPU.
    OffCpu {
        /// The counters.
        schedule: SchedStat,
        /// Whether only the time since the last look is its own, as its role before that is not known.
        only_since_look: bool,
    },
    /// Time that was measured elsewhere: by the clock of a CPU, or by the kernel's records of context switches.
    Measured {
        /// Time on a CPU.
        cpu: Nanos,
        /// Time in all.
        wall: Nanos,
    },
}
