//! Which kernel thread each thread state has.

use std::collections::{HashMap, HashSet};

use profiler_memory::ReadMemory;
use profiler_model::{NsTid, RemoteAddr, Tid};
use profiler_os::Process;
use profiler_python::{PyThreadState, native_ids};

/// What is known of the kernel thread of a thread state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadPlacement {
    /// It is this one.
    Thread(Tid),
    /// It is no thread of the process: it has ended, or was not forked with the others.
    Gone,
    /// Nothing says which one it is.
    Unknown,
}

/// Which kernel thread each thread state has.
pub struct ThreadIds {
    /// The target's own thread ids, each with the id here.
    here: HashMap<NsTid, Tid>,
    /// By `pthread_self()`, for versions that do not keep the id, and where the one that is kept is that of no thread: it
    /// is the parent's in a child that C code has forked, without CPython's handlers.
    by_pthread: HashMap<u64, NsTid>,
    /// The thread state that runs on the only kernel thread of the process, where nothing else says so.
    on_only_thread: Option<(RemoteAddr, Tid)>,
    /// Whether each kernel thread has a thread state.
    are_all_taken: bool,
}

impl ThreadIds {
    /// Of a process: `found` are its thread states, each with the index of its interpreter, and `last_holders` those that held
    /// a GIL last.
    pub fn of(
        process: &Process,
        memory: &impl ReadMemory,
        found: &[(usize, PyThreadState)],
        last_holders: &[RemoteAddr],
    ) -> Self {
        let same = process.shares_pid_namespace();
        let here: HashMap<NsTid, Tid> = process
            .threads()
            .unwrap_or_default()
            .into_iter()
            .filter_map(|tid| {
                let inner = if same { Ok(NsTid::new(tid.as_u32())) } else { process.inner_thread_id(tid) };
                Some((inner.ok()?, tid))
            })
            .collect();
        ThreadIds::among(here, memory, found, last_holders)
    }

    /// With the process's threads `here`.
    pub fn among(
        here: HashMap<NsTid, Tid>,
        memory: &impl ReadMemory,
        found: &[(usize, PyThreadState)],
        last_holders: &[RemoteAddr],
    ) -> Self {
        let mut ids =
            ThreadIds { here, by_pthread: HashMap::new(), on_only_thread: None, are_all_taken: false };
        let kept = |state: &PyThreadState| state.native_id.filter(|id| ids.here.contains_key(id));
        let states = || found.iter().map(|(_, state)| state);
        let unknown: Vec<u64> =
            states().filter(|state| kept(state).is_none()).map(|state| state.pthread_id).collect();
        let taken: HashSet<NsTid> = states().filter_map(kept).collect();
        let free: HashSet<NsTid> = ids.here.keys().copied().filter(|id| !taken.contains(id)).collect();
        if !unknown.is_empty() && !free.is_empty() {
            let by_library = native_ids(memory, &unknown, &free);
            ids.by_pthread =
                unknown.iter().zip(by_library).filter_map(|(pthread, id)| Some((*pthread, id?))).collect();
        }
        ids.on_only_thread = ids.state_of_only_thread(found, last_holders);
        let taken: HashSet<Tid> = states().filter_map(|state| ids.reported(state)).collect();
        ids.are_all_taken = taken.len() == ids.here.len();
        ids
    }

    /// Where the process has one kernel thread and no thread state is known to be its: the one that held the GIL last, or
    /// the only one. So it is in a child of the system call itself, of which the C library knows nothing.
    fn state_of_only_thread(
        &self,
        found: &[(usize, PyThreadState)],
        last_holders: &[RemoteAddr],
    ) -> Option<(RemoteAddr, Tid)> {
        let mut tids = self.here.values();
        let (Some(only), None) = (tids.next(), tids.next()) else { return None };
        if found.iter().any(|(_, state)| self.reported(state).is_some()) {
            return None;
        }
        let is_holder = |state: &PyThreadState| last_holders.contains(&state.address);
        let mut states = found.iter().map(|(_, state)| state);
        let state = match found.len() {
            1 => states.next(),
            _ => states.find(|state| is_holder(state)),
        };
        state.map(|state| (state.address, *only))
    }

    /// The thread whose id the thread state or the C library tells, if the process has it.
    pub fn reported(&self, python: &PyThreadState) -> Option<Tid> {
        let kept = python.native_id.and_then(|id| self.here.get(&id));
        let by_pthread = || self.here.get(self.by_pthread.get(&python.pthread_id)?);
        kept.or_else(by_pthread).copied()
    }

    /// What is known of the kernel thread of a thread state.
    pub fn kernel_thread(&self, python: &PyThreadState) -> ThreadPlacement {
        if let Some(tid) = self.reported(python) {
            return ThreadPlacement::Thread(tid);
        }
        match self.on_only_thread {
            Some((address, tid)) if address == python.address => ThreadPlacement::Thread(tid),
            Some(_) => ThreadPlacement::Gone,
            // Then there is no kernel thread left that it could be.
            None if self.are_all_taken => ThreadPlacement::Gone,
            None => ThreadPlacement::Unknown,
        }
    }

    /// Whether the process has this kernel thread.
    pub fn has(&self, tid: Tid) -> bool {
        self.here.values().any(|here| *here == tid)
    }
}
