//! What the time of summed samples is known from. Views draw marks from it: here it stays a value.

use profiler_model::LossReason;

/// What is known of the time of samples beside their stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Basis {
    /// The thread was sampled at instants.
    #[default]
    Instant,
    /// The thread was off the CPU. The stack is the one with which it left; the state says what it waited for.
    OffCpu,
    /// The thread was off the CPU, and the stack with which it left is lost for this reason.
    LostOffCpu(LossReason),
    /// The thread was off the CPU several times, too briefly for a stack each time.
    ShortOffCpu,
    /// The thread ran, and no sample stands for the time. There is no stack.
    Unsampled,
}
