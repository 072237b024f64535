//! What is known of a process and of a thread. What they did is in the samples.

use std::sync::Arc;

use profiler_model::ThreadKey;

use crate::ProcessId;

/// A process that is being profiled. Two runs of one PID (a reused number, an `exec`) differ here in their
/// command line or executable and are two processes of the profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Its id.
    pub pid: profiler_model::Pid,
    /// The process that started it, where that is profiled too: views of process trees nest by it.
    pub parent: Option<ProcessId>,
    /// The arguments it was started with, joined by spaces.
    pub command_line: String,
    /// The version of its Python (`3.11.7`), or `None` where it has no Python.
    pub python_version: Option<String>,
    /// The path of its executable.
    pub executable: String,
}

/// A thread that is being profiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadInfo {
    /// Its ids.
    pub key: ThreadKey,
    /// The process it belongs to.
    pub process: ProcessId,
    /// What `threading.get_ident()` says in it, or `None` where it is no Python thread.
    pub pthread_id: Option<u64>,
    /// Its name, once known.
    pub name: Option<Arc<str>>,
    /// Whether it is the process's first thread.
    pub is_main: bool,
}
