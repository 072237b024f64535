//! What is known of a process and of a thread. What they did is in the samples.

use std::sync::Arc;

use profiler_model::ThreadKey;

use crate::ProcessId;

/// A process that is being profiled. Two programs with one process id (after an `exec`, or because the id was reused) are two
/// processes of a dictionary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Its id.
    pub pid: profiler_model::Pid,
    /// When it was started, in the kernel's clock ticks since boot, if that is known: what distinguishes it from a later one
    /// with the same id.
    pub start_time: Option<u64>,
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
    /// Whether both describe one run of a program. A version or a start time that one of them lacks is no difference:
    /// Python may come up, or be found, after the process has become known, and does not leave it again.
    pub fn is_same_program(&self, other: &ProcessInfo) -> bool {
        is_same_if_known(&self.python_version, &other.python_version)
            && is_same_if_known(&self.start_time, &other.start_time)
            && (self.pid, self.parent, &self.command_line, &self.executable)
                == (other.pid, other.parent, &other.command_line, &other.executable)
    }
}

fn is_same_if_known<T: PartialEq>(one: &Option<T>, other: &Option<T>) -> bool {
    one == other || one.is_none() || other.is_none()
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

    #[test]
    fn reused_process_id_is_another_process() {
        let mut dictionary = crate::Dictionary::default();
        let started = |start_time| ProcessInfo { start_time, ..ProcessInfo::default() };
        let first = dictionary.process(started(Some(100)));
        assert_eq!(dictionary.process(started(Some(100))), first);
        assert_eq!(dictionary.process(started(None)), first, "it was gone before that could be read");
        assert_ne!(dictionary.process(started(Some(200))), first);
    }
}
