//! Why an attempt to sample a thread failed. Attempts = shown + not asked for + lost by reason, always.

use std::fmt;

/// Why a sample is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LossReason {
    /// The sampler was late: the schedule's instants had passed before it came back to them.
    Late,
    /// The thread ran while it was read, so that its stack could not be proved.
    Moved,
    /// The GIL passed to another thread while the stack was read.
    GilMoved,
    /// The thread could not be stopped.
    NotStopped,
    /// The thread was stopped by a signal or a debugger already.
    StoppedByOther,
    /// Memory that the stack needs could not be read.
    Unreadable,
    /// What was read is no valid stack: a pointer out of bounds, a cycle, a wrong type.
    Invalid,
    /// A code object changed between capture and resolving.
    CodeChanged,
    /// The thread ended while it was sampled.
    ThreadEnded,
    /// The process was replacing itself (`exec`) or had ended.
    ProcessEnded,
    /// The process has no Python runtime (yet, or after `exec`).
    NoRuntime,
    /// The process, a child of a Python, ended before it was looked at.
    ShortLived,
    /// The thread state has no kernel thread that could be found, or the thread no thread state.
    UnknownThread,
    /// The kernel had no room to keep the sample until it was read.
    BufferFull,
    /// The name of a code object has not been received (yet).
    NamesMissing,
    /// The kernel limits how often samples may be taken.
    RateLimited,
    /// The thread left its CPU when nobody took its stack: it was not watched yet, or its switches were not reported.
    NotTaken,
    /// The lists of interpreters or threads lead nowhere, or back into themselves.
    ListsUnreadable,
    /// The process was dropped: a page of its memory did not come in time.
    NoAnswer,
    /// The profiler took fewer samples than it was asked for, to stay within the CPU time that it may use. Those that it
    /// took stand for more time.
    CpuLimit,
    /// A stop would have lasted longer than it may.
    StopTooLong,
    /// A frame of native code has no unwind information, and its caller cannot be found without.
    NoUnwindInfo,
    /// The native stack is deeper than what was copied of it. The next copies are larger.
    StackNotCopied,
}

impl LossReason {
    /// All reasons, in the order in which they are shown.
    pub const ALL: [LossReason; 23] = [
        LossReason::Late,
        LossReason::Moved,
        LossReason::GilMoved,
        LossReason::NotStopped,
        LossReason::StoppedByOther,
        LossReason::Unreadable,
        LossReason::Invalid,
        LossReason::CodeChanged,
        LossReason::ThreadEnded,
        LossReason::ProcessEnded,
        LossReason::NoRuntime,
        LossReason::ShortLived,
        LossReason::UnknownThread,
        LossReason::BufferFull,
        LossReason::NamesMissing,
        LossReason::RateLimited,
        LossReason::NotTaken,
        LossReason::ListsUnreadable,
        LossReason::NoAnswer,
        LossReason::CpuLimit,
        LossReason::StopTooLong,
        LossReason::NoUnwindInfo,
        LossReason::StackNotCopied,
    ];
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LossReason::Late => "sampler late",
            LossReason::Moved => "thread ran while it was read",
            LossReason::GilMoved => "GIL changed hands while it was read",
            LossReason::NotStopped => "thread could not be stopped",
            LossReason::StoppedByOther => "thread stopped by a signal or a debugger",
            LossReason::Unreadable => "memory could not be read",
            LossReason::Invalid => "no valid stack",
            LossReason::CodeChanged => "code object changed",
            LossReason::ThreadEnded => "thread ended",
            LossReason::ProcessEnded => "process ended",
            LossReason::NoRuntime => "no Python runtime",
            LossReason::ShortLived => "process ended before it was looked at",
            LossReason::UnknownThread => "thread not found",
            LossReason::BufferFull => "buffer full",
            LossReason::NamesMissing => "name of a function not received",
            LossReason::RateLimited => "kernel limits the rate (sysctl kernel.perf_event_max_sample_rate)",
            LossReason::NotTaken => "stack not taken",
            LossReason::ListsUnreadable => "lists of threads could not be read",
            LossReason::NoAnswer => "memory did not answer",
            LossReason::CpuLimit => "profiler at its CPU limit (--max-cpu)",
            LossReason::StopTooLong => "stop would have been too long",
            LossReason::NoUnwindInfo => "native code without unwind information",
            LossReason::StackNotCopied => "native stack deeper than the copy",
        })
    }
}
