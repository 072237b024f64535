//! What a thread was doing at the instant of a sample.

use std::fmt;

/// The state of a thread at one instant. Whether it held the GIL is told beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ThreadState {
    /// On a CPU; or ready to be put on one, where that is not told apart.
    Running,
    /// Asleep until the interpreter's lock is handed over.
    WaitingForGil,
    /// Asleep, for the reason given.
    Waiting(WaitReason),
}

/// Why a thread sleeps, as far as the kernel tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaitReason {
    /// The kernel did not say, or was not asked.
    Unknown,
    /// A lock, condition or semaphore of user space (futex).
    Lock,
    /// A timed sleep.
    Sleep,
    /// A socket: accept, connect, receive or send.
    Socket,
    /// Readiness of file descriptors: poll, select, epoll.
    Poll,
    /// A pipe, a terminal or a file.
    File,
    /// Uninterruptible work of the kernel: the disk, a page fault.
    Disk,
    /// A page of memory that it touched.
    Page,
    /// A CPU: it could go on, but others are on all of them.
    Cpu,
    /// A child process.
    Child,
    /// A stop signal or a debugger.
    Stopped,
}

impl ThreadState {
    /// Whether the thread is running.
    pub const fn is_running(self) -> bool {
        matches!(self, ThreadState::Running)
    }
}

impl fmt::Display for ThreadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ThreadState::Running => f.write_str("running"),
            ThreadState::WaitingForGil => f.write_str("waiting for the GIL"),
            ThreadState::Waiting(WaitReason::Unknown) => f.write_str("waiting"),
            ThreadState::Waiting(reason) => write!(f, "waiting: {reason}"),
        }
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WaitReason::Unknown => "unknown",
            WaitReason::Lock => "lock",
            WaitReason::Sleep => "sleep",
            WaitReason::Socket => "socket",
            WaitReason::Poll => "poll",
            WaitReason::File => "file",
            WaitReason::Disk => "disk",
            WaitReason::Page => "page fault",
            WaitReason::Cpu => "CPU",
            WaitReason::Child => "child process",
            WaitReason::Stopped => "stopped",
        })
    }
}
