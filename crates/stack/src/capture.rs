//! What a sampler captures of one thread at one instant: addresses and clocks. Nothing of it has a name yet.

use profiler_model::{ClockReading, KernelFunction, LossReason, ThreadState, Timestamp};
use profiler_python::RawStack;

/// One thread at one instant. `T` is what its sampler knows the thread by.
#[derive(Clone, Debug)]
pub struct Capture<T> {
    /// The thread.
    pub thread: T,
    /// The instant.
    pub at: Timestamp,
    /// For how many instants it stands: at earlier ones the thread slept as it does at this one.
    pub count: u64,
    /// Whether the thread ran, or what it waited for.
    pub state: ThreadState,
    /// Whether it held the GIL.
    pub holds_gil: bool,
    /// If it slept: how often it had run by then. As long as that stays, the stack does.
    pub asleep_after: Option<u64>,
    /// Whether it may run no Python at the instant, as its thread state is in no list: the memory of the state proves it.
    pub may_have_no_state: bool,
    /// What its clocks said.
    pub clocks: ClockReading,
    /// Its Python frames.
    pub python: Result<RawStack, LossReason>,
    /// What it did in the kernel, if that was asked for.
    pub kernel: Option<KernelStack>,
}

/// What a thread did in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelStack {
    /// Program counters, as they were taken in the kernel.
    Counters {
        /// Leaf first. None if the thread was not in the kernel, or the kernel did not say.
        counters: Vec<u64>,
        /// Whether the thread was leaving its CPU: it was in the kernel whatever the counters say.
        is_leaving: bool,
        /// Whether the kernel could not say.
        is_missing: bool,
    },
    /// The functions of a thread that sleeps, as the kernel lists them, leaf first; `None` where it does not.
    Functions(Option<Vec<KernelFunction>>),
}
