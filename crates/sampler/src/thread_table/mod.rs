//! The threads of a target: each thread state with its kernel thread, and what was last seen of it.

mod known_threads;
mod thread;
mod thread_ids;

use std::collections::{HashMap, HashSet};

use profiler_memory::{PageCopy, ReadError, ReadMemory, ReadRequest};
use profiler_model::{Nanos, Pid, RemoteAddr, Tid, Timestamp};
use profiler_os::Process;
use profiler_python::{
    Callers, GilAddresses, Interpreter, Offsets, PyThreadState, RawStack, Runtime, STACK_PAGE_BYTES,
    interpreters, thread_states,
};

use crate::gil::{self, GilSpan, GilState};
use crate::roster::Roster;
use known_threads::KnownThreads;
pub use thread::Thread;
use thread_ids::{ThreadIds, ThreadPlacement};

/// How often a list that changes while it is read is read again.
const MAX_ATTEMPTS: usize = 3;

/// How soon a list is read again in which a thread state has no kernel thread of its own yet. CPython puts the
/// state of a new thread into the list before the thread runs: it has the id of the thread that made it (up to
/// 3.11) or none, and gets its own without the list changing. So does the only thread of a forked child, which at
/// first has the id of the one in the parent.
const FIRST_RECHECK: Nanos = Nanos::from_nanos(1_000_000);

/// The gap doubles up to this: some states never have a thread of their own (those of sub-interpreters), and
/// looking for it must cost next to nothing.
const LONGEST_RECHECK: Nanos = Nanos::from_nanos(1_000_000_000);

/// The threads of a process.
#[derive(Debug, Default)]
pub struct ThreadTable {
    /// The Python threads and their rota.
    roster: Roster<Thread>,
    /// Thread states that run Python and whose kernel thread could not be found.
    pub unplaced: Vec<PyThreadState>,
    /// All interpreters.
    pub interpreters: Vec<Interpreter>,
    /// Their GILs, each once, with the states at the last look.
    gils: Vec<(GilAddresses, GilState)>,
    /// Thread states that held a GIL last when the lists were read, and of which nothing else is known.
    strangers: Vec<RemoteAddr>,
    /// The index of the thread with each thread state.
    by_address: HashMap<RemoteAddr, usize>,
    /// The heads of the lists when they were read: the interpreters', then each interpreter's threads'.
    heads: Vec<RemoteAddr>,
    /// Whether some kernel thread has several thread states: it runs in a sub-interpreter now and then.
    pub has_nested: bool,
    /// When the lists are read again although they start where they did, and the gap that this came after.
    recheck: Option<(Timestamp, Nanos)>,
    /// How often the threads have changed.
    revision: u64,
}

impl ThreadTable {
    /// The index of the thread with the thread state at `address`.
    pub fn find(&self, address: RemoteAddr) -> Option<usize> {
        self.by_address.get(&address).copied()
    }

    /// The threads and their rota.
    pub fn roster(&self) -> &Roster<Thread> {
        &self.roster
    }

    /// All Python threads.
    pub fn threads(&self) -> &[Thread] {
        self.roster.threads()
    }

    /// The same, to be changed.
    pub fn threads_mut(&mut self) -> &mut [Thread] {
        self.roster.threads_mut()
    }

    /// Removes threads that have ended, by index in ascending order.
    pub fn remove(&mut self, ended: &[usize]) {
        self.roster.remove(ended);
        self.index_threads();
    }

    /// Takes the number of unreported instants of threads that have ended.
    pub fn take_unseen_of_ended(&mut self) -> u64 {
        self.roster.take_unseen_of_ended()
    }

    /// Stands for the threads as they are: another number if there are others.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Begins an instant: looks at the threads that are active, and at those that rest if these are few. Returns the
    /// threads that have ended, in ascending order.
    pub fn look_at_active(&mut self) -> Vec<usize> {
        self.roster.look_at_active()
    }

    /// Begins the second round of an instant: looks at threads that rest, in turn, for at most the cost `most` (`rota`).
    /// Returns the threads that have ended, in ascending order.
    pub fn look_at_resting(&mut self, most: u32) -> Vec<usize> {
        self.roster.look_at_resting(most)
    }

    /// Looks at the threads that held a GIL last, unless that was done at this instant: a resting thread that takes the GIL
    /// is noticed so. Returns the threads that have ended, in ascending order.
    pub fn look_at_holders(&mut self) -> Vec<usize> {
        let holders = self.last_holders();
        let by_address = &self.by_address;
        let holders = holders.iter().filter_map(|holder| by_address.get(holder).copied());
        self.roster.look_out_of_turn(holders)
    }

    /// The threads that were looked at in this round, in ascending order.
    pub fn looked(&mut self) -> Vec<usize> {
        self.roster.looked().to_vec()
    }

    /// Forgets where the lists started, so that they are read anew at the next look.
    pub fn distrust(&mut self) {
        self.heads.clear();
    }

    /// Whether it is time to look again for the kernel threads of thread states that had none of their own.
    pub fn is_recheck_due(&self, now: Timestamp) -> bool {
        self.recheck.is_some_and(|(due, _)| now >= due)
    }

    /// Plans the next look for kernel threads, should any be missing.
    fn plan_recheck(&mut self, complete: bool, same_lists: bool, now: Timestamp) {
        let gap = match self.recheck {
            Some((_, gap)) if same_lists => (gap + gap).min(LONGEST_RECHECK),
            _ => FIRST_RECHECK,
        };
        self.recheck = (!complete).then(|| (now + gap, gap));
    }

    /// The thread states that are left alone for the moment because their kernel thread runs in another
    /// interpreter: of those that share a thread, all but the one among `holders` of a GIL, or, where none
    /// holds one, all but the youngest.
    pub fn suspended(&self, holders: &[RemoteAddr]) -> Vec<usize> {
        let is_active = |index: usize| holders.contains(&self.threads()[index].python.address);
        let mut by_thread: HashMap<Tid, Vec<usize>> = HashMap::new();
        for (index, thread) in self.threads().iter().enumerate() {
            by_thread.entry(thread.tid).or_default().push(index);
        }
        let mut suspended = Vec::new();
        for states in by_thread.into_values().filter(|states| states.len() > 1) {
            let active = states.iter().copied().find(|index| is_active(*index)).or(states.first().copied());
            suspended.extend(states.into_iter().filter(|index| Some(*index) != active));
        }
        suspended
    }

    /// Looks at the GILs, and whether the lists still start where they started when they were read: new threads
    /// come in front. Both in one read. A GIL that was held by a thread which is not known means that they changed
    /// meanwhile.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn look(&mut self, memory: &impl ReadMemory, runtime: &Runtime) -> Result<bool, ReadError> {
        if self.heads.is_empty() {
            return Ok(false);
        }
        let same_heads = self.read_heads(memory, runtime)? == self.heads;
        let is_known = |holder: &RemoteAddr| {
            holder.is_null() || self.by_address.contains_key(holder) || self.strangers.contains(holder)
        };
        Ok(same_heads && self.last_holders().iter().all(is_known))
    }

    /// The state of `gil` at the last look.
    pub fn gil_state(&self, gil: &GilAddresses) -> Option<GilState> {
        self.gils.iter().find(|(addresses, _)| addresses == gil).map(|(_, state)| *state)
    }

    /// The heads of the lists; reads the states of the GILs as well.
    fn read_heads(
        &mut self,
        memory: &impl ReadMemory,
        runtime: &Runtime,
    ) -> Result<Vec<RemoteAddr>, ReadError> {
        let places: Vec<RemoteAddr> = std::iter::once(runtime.interpreters_head)
            .chain(self.interpreters.iter().map(|interpreter| interpreter.threads_head))
            .collect();
        let mut heads = vec![[0u8; 8]; places.len()];
        let mut requests: Vec<_> = places
            .iter()
            .zip(&mut heads)
            .map(|(at, into)| ReadRequest::new(*at, into.as_mut_slice()))
            .collect();
        let mut spans: Vec<_> = self.gils.iter().map(|(gil, _)| GilSpan::of(gil)).collect();
        requests.extend(spans.iter_mut().flatten().map(GilSpan::request));
        let filled = memory.read_batch(&mut requests)?;
        if let Some(unread) = requests.get(filled) {
            return Err(ReadError::Unmapped(unread.at));
        }
        for ((gil, state), span) in self.gils.iter_mut().zip(&spans) {
            *state = match span {
                Some(span) => span.state(gil),
                None => gil::read(memory, gil)?,
            };
        }
        Ok(heads.into_iter().map(|bytes| RemoteAddr::new(u64::from_le_bytes(bytes))).collect())
    }

    /// Reads the lists anew. Threads that were known stay as they are; new ones count from `now`.
    ///
    /// # Errors
    /// When the runtime cannot be read.
    pub fn refresh(
        &mut self,
        process: &Process,
        memory: &impl ReadMemory,
        runtime: &Runtime,
        now: Timestamp,
    ) -> Result<(), ReadError> {
        let heads_before = self.heads.clone();
        let found = self.read_lists_again(memory, runtime)?;
        let states = found.len();
        let found = without_unstarted(found, memory, &runtime.offsets);
        let ids = ThreadIds::of(process, memory, &found, &self.last_holders());
        self.take_lists(process.pid(), &ids, found, now);
        self.unplaced.retain(|python| runs_python(memory, &runtime.offsets, python));
        let listed = self.threads().len();
        self.add_last_holders(process, memory, runtime, now);
        let all_listed = self.threads().iter().all(|thread| thread.is_listed);
        self.index_threads();
        let complete = listed == states && all_listed && !self.has_nested;
        self.plan_recheck(complete, self.heads == heads_before, now);
        Ok(())
    }

    /// Makes of the thread states `found` the threads. What was known of them stays, and threads that have no thread
    /// state for the moment stay as well.
    fn take_lists(&mut self, pid: Pid, ids: &ThreadIds, found: Vec<(usize, PyThreadState)>, now: Timestamp) {
        let mut known = KnownThreads::of(self.roster.take_all());
        self.unplaced.clear();
        let mut placed = Vec::new();
        for (interpreter, python) in found {
            match ids.kernel_thread(&python) {
                ThreadPlacement::Thread(tid) => {
                    let same = known.take_same(&python, tid);
                    placed.push((interpreter, python, tid, same));
                }
                ThreadPlacement::Gone => {}
                ThreadPlacement::Unknown => self.unplaced.push(python),
            }
        }
        let listed = placed.iter().filter(|(.., same)| same.is_some()).map(|(_, _, tid, _)| *tid).collect();
        known.forget_threads(&listed);
        let mut threads = Vec::new();
        for (interpreter, python, tid, same) in placed {
            let same = same.or_else(|| known.take_of(tid)).map(|thread| thread.kernel);
            let kernel = same.or_else(|| self.roster.meet(pid, tid, now));
            threads.extend(kernel.map(|kernel| Thread { kernel, python, interpreter, is_listed: true }));
        }
        for thread in known.rest().filter(|thread| ids.has(thread.tid)) {
            if let Some(interpreter) = self.interpreter_at(thread.python.interpreter) {
                threads.push(Thread { interpreter, is_listed: false, ..thread });
            }
        }
        self.roster.add(threads);
    }

    fn interpreter_at(&self, address: RemoteAddr) -> Option<usize> {
        self.interpreters.iter().position(|one| one.address == address)
    }

    /// Adds threads whose thread states are in no list but held a GIL last: threads of C code between two calls of Python
    /// that are too short to be met often. The memory was freed and may be anything by now, but what is read there
    /// later is checked each time.
    fn add_last_holders(
        &mut self,
        process: &Process,
        memory: &impl ReadMemory,
        runtime: &Runtime,
        now: Timestamp,
    ) {
        let known: HashSet<RemoteAddr> = self.threads().iter().map(|thread| thread.python.address).collect();
        self.strangers = self.last_holders();
        self.strangers.retain(|holder| !holder.is_null() && !known.contains(holder));
        let read = self.strangers.iter().filter_map(|at| thread_state_at(memory, &runtime.offsets, *at));
        let found: Vec<_> =
            read.filter_map(|state| Some((self.interpreter_at(state.interpreter)?, state))).collect();
        if found.is_empty() {
            return;
        }
        let ids = ThreadIds::of(process, memory, &found, &[]);
        for (interpreter, python) in found {
            let Some(tid) = ids.reported(&python) else { continue };
            if self.threads().iter().all(|thread| thread.tid != tid) {
                let kernel = self.roster.meet(process.pid(), tid, now);
                let of_kernel = |kernel| Thread { kernel, python, interpreter, is_listed: false };
                self.roster.add(kernel.map(of_kernel));
            }
        }
    }

    /// The same as [`Self::read_lists`], of which another try is made where the lists change. If none succeeds, all that is
    /// known stays as it was, and the lists are read anew at the next look.
    fn read_lists_again(
        &mut self,
        memory: &impl ReadMemory,
        runtime: &Runtime,
    ) -> Result<Vec<(usize, PyThreadState)>, ReadError> {
        let (interpreters, gils) = (self.interpreters.clone(), self.gils.clone());
        let mut attempt = 1;
        loop {
            match self.read_lists(memory, runtime) {
                Ok(found) => return Ok(found),
                Err(ReadError::Unmapped(_) | ReadError::BrokenList(_)) if attempt < MAX_ATTEMPTS => {
                    attempt += 1;
                }
                Err(error) => {
                    (self.interpreters, self.gils) = (interpreters, gils);
                    self.distrust();
                    return Err(error);
                }
            }
        }
    }

    /// All thread states, each with the index of its interpreter.
    fn read_lists(
        &mut self,
        memory: &impl ReadMemory,
        runtime: &Runtime,
    ) -> Result<Vec<(usize, PyThreadState)>, ReadError> {
        let interpreters = interpreters(memory, runtime)?;
        let mut found = Vec::new();
        // The heads are noted first: what comes in front of a list while it is read makes it out of date.
        self.interpreters.clone_from(&interpreters);
        let gils: HashSet<GilAddresses> = interpreters.iter().filter_map(|one| one.gil).collect();
        self.gils = gils.into_iter().map(|gil| (gil, GilState::default())).collect();
        self.heads = self.read_heads(memory, runtime)?;
        for (index, interpreter) in interpreters.iter().enumerate() {
            let states = thread_states(memory, &runtime.offsets, interpreter)?;
            found.extend(states.into_iter().map(|state| (index, state)));
        }
        Ok(found)
    }

    /// The thread states that hold the GILs, or held them last, at the last look.
    fn last_holders(&self) -> Vec<RemoteAddr> {
        self.gils.iter().map(|(_, state)| state.last_holder).collect()
    }

    fn index_threads(&mut self) {
        self.revision += 1;
        self.by_address = self.threads().iter().enumerate().map(|(i, t)| (t.python.address, i)).collect();
        let distinct: HashSet<Tid> = self.threads().iter().map(|thread| thread.tid).collect();
        self.has_nested = distinct.len() < self.threads().len();
    }
}

/// The thread states without those of threads that have not started yet: up to 3.11 these have the ids of the thread that
/// created them, whose stack would be looked for in the wrong thread state. A list has the youngest first.
fn without_unstarted(
    mut found: Vec<(usize, PyThreadState)>,
    memory: &impl ReadMemory,
    offsets: &Offsets,
) -> Vec<(usize, PyThreadState)> {
    let mut owners = HashSet::new();
    found.reverse();
    found.retain(|(interpreter, state)| {
        owners.insert((*interpreter, state.pthread_id)) || state.has_frame(memory, offsets) == Ok(true)
    });
    found.reverse();
    found
}

/// The thread state at an address, whatever is there by now.
fn thread_state_at(memory: &impl ReadMemory, offsets: &Offsets, at: RemoteAddr) -> Option<PyThreadState> {
    let mut copy = vec![0; offsets.thread.size as usize];
    memory.read(at, &mut copy).ok()?;
    PyThreadState::from_copy(at, &copy, offsets)
}

/// Whether there are frames on the stack of a thread state, as far as that can be seen while it runs.
fn runs_python(memory: &impl ReadMemory, offsets: &Offsets, python: &PyThreadState) -> bool {
    let mut copy = vec![0; offsets.thread.size as usize];
    let mut stack = RawStack::with_room_for(1);
    memory.read(python.address, &mut copy).is_ok()
        && PyThreadState::from_copy(python.address, &copy, offsets).as_ref() == Some(python)
        && stack
            .walk(
                memory,
                &mut PageCopy::with_page_bytes(STACK_PAGE_BYTES),
                &Callers::default(),
                offsets,
                &copy,
            )
            .is_ok()
        && !stack.frames.is_empty()
}

#[cfg(test)]
mod tests;
