//! Why a process cannot be sampled, and what failed looks into `/proc` mean.

use std::io;

use profiler_model::Pid;
use profiler_os::Process;
use profiler_python::{NotPython, Version};

/// Why a process cannot be sampled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// There is no such process.
    #[error("there is no process {0}")]
    NoSuchProcess(Pid),
    /// It is just ending, so that its memory is gone, or has ended and waits for its parent.
    #[error("process {0} is ending or has ended")]
    ProcessEnded(Pid),
    /// The operating system does not let us look into it.
    #[error("not permitted to look into process {0}")]
    NotPermitted(Pid),
    /// A page of its memory did not come in time.
    #[error("the memory of process {0} does not answer: the kernel waits for one of its pages")]
    NoAnswer(Pid),
    /// It has no Python, or one that is not CPython 3.
    #[error("process {pid} ({executable}): {what}")]
    NotPython {
        /// The process.
        pid: Pid,
        /// What it runs.
        executable: String,
        /// What it is instead.
        what: NotPython,
    },
    /// Its CPython is of a version that is not known.
    #[error("process {pid} runs CPython {version}, which is not known: 3.6 to 3.15 are")]
    UnknownVersion {
        /// The process.
        pid: Pid,
        /// The version.
        version: Version,
    },
    /// Its Python is not up yet, or not any more: try again.
    #[error("the Python of process {0} has no running interpreter (yet)")]
    NotInitialised(Pid),
    /// Its Python cannot be understood.
    #[error("the Python of process {pid} cannot be read: {cause}")]
    Unreadable {
        /// The process.
        pid: Pid,
        /// What was wrong.
        cause: String,
    },
}

/// What it means that the first look into `/proc` failed.
pub fn unseen(process: &Process, error: &io::Error) -> AttachError {
    let pid = process.pid();
    match error.kind() {
        io::ErrorKind::PermissionDenied => AttachError::NotPermitted(pid),
        _ if process.is_hidden() => AttachError::NotPermitted(pid),
        _ => AttachError::NoSuchProcess(pid),
    }
}

/// What a failed look into `/proc` means.
pub fn refusal(process: &Process, error: &io::Error) -> AttachError {
    let pid = process.pid();
    match error.kind() {
        io::ErrorKind::PermissionDenied => AttachError::NotPermitted(pid),
        // Threads of the kernel have no executable, and processes that are ending none any more.
        io::ErrorKind::NotFound if !process.is_ending() => {
            let executable = "no executable".to_owned();
            AttachError::NotPython { pid, executable, what: NotPython::NoModule }
        }
        _ => AttachError::ProcessEnded(pid),
    }
}
