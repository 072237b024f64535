//! The threads of before, while lists are read anew: which of them a thread state continues.

use std::collections::{HashMap, HashSet};

use profiler_model::{RemoteAddr, Tid};
use profiler_python::PyThreadState;

use super::thread::Thread;

/// The threads that a thread table had before its lists were read anew, by their thread states.
pub struct KnownThreads(HashMap<RemoteAddr, Thread>);

impl KnownThreads {
    /// These threads.
    pub fn of(threads: Vec<Thread>) -> Self {
        KnownThreads(threads.into_iter().map(|thread| (thread.python.address, thread)).collect())
    }

    /// The thread that has this thread state and runs on this kernel thread.
    pub fn take_same(&mut self, python: &PyThreadState, tid: Tid) -> Option<Thread> {
        self.0.remove(&python.address).filter(|thread| thread.python == *python && thread.tid == tid)
    }

    /// A thread on this kernel thread whose thread state is gone: it got another one.
    pub fn take_of(&mut self, tid: Tid) -> Option<Thread> {
        let address = self.0.values().find(|thread| thread.tid == tid)?.python.address;
        self.0.remove(&address)
    }

    /// Forgets all on these kernel threads: what is gone is a second thread state of them.
    pub fn forget_threads(&mut self, tids: &HashSet<Tid>) {
        self.0.retain(|_, thread| !tids.contains(&thread.tid));
    }

    /// Those that are left, one for each kernel thread.
    pub fn rest(self) -> impl Iterator<Item = Thread> {
        let by_tid: HashMap<Tid, Thread> = self.0.into_values().map(|thread| (thread.tid, thread)).collect();
        by_tid.into_values()
    }
}
