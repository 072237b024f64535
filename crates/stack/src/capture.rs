//! What a sampler captures of one thread at one instant: addresses and clocks. Nothing of it has a name yet.

use profiler_model::{ClockReading, KernelFunction, LossReason, ModuleNumber, ThreadState, Timestamp};
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
    /// Its Python frames; `None` if it has no thread state that is sampled.
    pub python: Option<Result<RawStack, LossReason>>,
    /// Its native frames, if they were asked for.
    pub native: Option<Result<NativeStack, LossReason>>,
    /// What it did in the kernel, if that was asked for.
    pub kernel: Option<KernelStack>,
}

impl<T> Capture<T> {
    /// Whether all parts of its stack were captured that were asked for.
    pub fn is_whole(&self) -> bool {
        let has_failed = matches!(self.python, Some(Err(_))) || matches!(self.native, Some(Err(_)));
        !has_failed && (self.python.is_some() || self.native.is_some())
    }
}

/// The native frames of a thread, leaf first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NativeStack {
    /// Where each frame is.
    pub frames: Vec<CodeLocation>,
    /// Whether the outermost frames were left out.
    pub is_truncated: bool,
}

/// Where a native frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CodeLocation {
    /// The module.
    pub module: ModuleNumber,
    /// The address of the instruction in the module's own terms: of a caller, an address within its call.
    pub offset: u64,
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
