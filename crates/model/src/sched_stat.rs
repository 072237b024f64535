//! The scheduler's counters of a thread.

use crate::Nanos;

/// What the scheduler has counted for a thread. While a thread runs, its CPU time is brought up to date
/// only now and then; when it stands still it is exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedStat {
    /// CPU time used.
    pub cpu: Nanos,
    /// How long it was ready to run without a CPU, up to the last time it got one.
    pub queued: Nanos,
    /// How often it was put on a CPU. A thread that was off the CPU before and after, with this number
    /// unchanged, has not run in between.
    pub timeslices: u64,
}
