//! What is known of a process and of a thread. What they did is in the samples.

use std::sync::Arc;

use profiler_model::{Pid, ThreadKey};

use crate::ProcessId;

/// A Python that runs in a process beside the one that is sampled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OtherPython {
    /// The process.
    pub pid: Pid,
    /// Its version, such as `3.11.7`.
    pub version: String,
    /// The path of its module, as the process sees it.
    pub path: String,
}

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

impl ProcessInfo {
    /// Whether both tell of one run of a program. A version that one of them lacks is no difference: Python may come
    /// up, or be found, after the process has become known, and does not leave it again.
    pub fn is_same_program(&self, other: &ProcessInfo) -> bool {
        let versions = [&self.python_version, &other.python_version];
        let is_one_version = versions[0] == versions[1] || versions.contains(&&None);
        is_one_version
            && (self.pid, self.parent, &self.command_line, &self.executable)
                == (other.pid, other.parent, &other.command_line, &other.executable)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_whose_python_comes_up_later_is_the_same() {
        let bare = ProcessInfo { command_line: "python3 app.py".into(), ..ProcessInfo::default() };
        let up = ProcessInfo { python_version: Some("3.12.1".into()), ..bare.clone() };
        let mut profile = crate::Profile::new();
        let first = profile.process(bare.clone());
        assert_eq!(profile.process(up.clone()), first);
        assert_eq!(profile.process_of(first), &up);
        assert_eq!(profile.process(bare), first);
        assert_eq!(profile.process_of(first), &up);
        let other = ProcessInfo { command_line: "python3 other.py".into(), ..up.clone() };
        assert_ne!(profile.process(other), first);
        let newer = ProcessInfo { python_version: Some("3.13.0".into()), ..up };
        assert_ne!(profile.process(newer), first);
    }
}
