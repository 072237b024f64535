//! The interpreters of a runtime and their thread states: walking the linked lists that CPython keeps.
//!
//! The lists change while the target runs. What is read here is a candidate until the thread is sampled:
//! the sampler then reads its thread state again, at an instant at which it cannot change.

use std::collections::HashSet;

use profiler_memory::{ReadError, ReadMemory};
use profiler_model::{InterpreterId, NsTid, RemoteAddr};

use crate::{GilAddresses, Offsets, Runtime};

/// The most interpreters of a process. Each costs megabytes; a thousand are more than any program has.
pub const MAX_INTERPRETERS: usize = 1024;

/// The most thread states of an interpreter: the kernel's usual limit of threads for a whole system.
pub const MAX_THREAD_STATES: usize = 32_768;

/// `PyInterpreterState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// Where it is.
    pub address: RemoteAddr,
    /// Its number.
    pub id: InterpreterId,
    /// The GIL that its threads take; `None` where there is none or it was not found.
    pub gil: Option<GilAddresses>,
    /// Where it tells whether its collector runs.
    pub gc_collecting: Option<RemoteAddr>,
    /// Where it has what [`crate::CodeCount`] says.
    pub code_count: Option<RemoteAddr>,
    /// Where its list of thread states starts.
    pub threads_head: RemoteAddr,
}

/// `PyThreadState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PyThreadState {
    /// Where it is.
    pub address: RemoteAddr,
    /// The interpreter it belongs to.
    pub interpreter: RemoteAddr,
    /// `pthread_self()` of its thread.
    pub pthread_id: u64,
    /// The kernel's id of its thread, as the target knows it; `None` where CPython does not keep it.
    pub native_id: Option<NsTid>,
}

impl PyThreadState {
    /// The thread state in a local copy of its structure, or `None` where the copy is too short.
    pub fn from_copy(address: RemoteAddr, copy: &[u8], offsets: &Offsets) -> Option<Self> {
        let thread = &offsets.thread;
        Some(PyThreadState {
            address,
            interpreter: thread.interpreter.get(copy)?,
            pthread_id: thread.thread_id.get(copy)?,
            native_id: match thread.native_thread_id {
                Some(field) => Some(NsTid::new(u32::try_from(field.get(copy)?).ok()?)),
                None => None,
            },
        })
    }

    /// Whether the thread state has a frame and still belongs to the same thread. A thread that has not started yet has
    /// none, and up to 3.11 its thread state has the ids of the thread that created it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn has_frame(&self, memory: &impl ReadMemory, offsets: &Offsets) -> Result<bool, ReadError> {
        let mut frame: RemoteAddr = memory.field(self.address, offsets.thread.frame)?;
        if let Some(current_frame) = offsets.thread.cframe_current_frame
            && !frame.is_null()
        {
            frame = memory.field(frame, current_frame)?;
        }
        // The ids come last: the thread sets its own before it runs anything.
        let mut copy = vec![0u8; offsets.thread.size as usize];
        memory.read(self.address, &mut copy)?;
        let is_same = PyThreadState::from_copy(self.address, &copy, offsets).as_ref() == Some(self);
        Ok(is_same && !frame.is_null())
    }
}

/// The interpreters of the runtime, in the order of its list.
///
/// # Errors
/// When the list cannot be read.
pub fn interpreters(memory: &impl ReadMemory, runtime: &Runtime) -> Result<Vec<Interpreter>, ReadError> {
    match first_interpreters(memory, runtime) {
        (found, None) => Ok(found),
        (_, Some(error)) => Err(error),
    }
}

/// The interpreters of the runtime up to where the list ends, or cannot be followed for the reason given.
pub fn first_interpreters(
    memory: &impl ReadMemory,
    runtime: &Runtime,
) -> (Vec<Interpreter>, Option<ReadError>) {
    let mut found = Vec::new();
    let followed = follow_interpreters(memory, runtime, &mut found);
    (found, followed.err())
}

fn follow_interpreters(
    memory: &impl ReadMemory,
    runtime: &Runtime,
    found: &mut Vec<Interpreter>,
) -> Result<(), ReadError> {
    let mut at: RemoteAddr = memory.scalar(runtime.interpreters_head)?;
    while !at.is_null() && found.len() < MAX_INTERPRETERS {
        if found.iter().any(|known| known.address == at) {
            return Err(ReadError::BrokenList(at));
        }
        found.push(interpreter(memory, runtime, at)?);
        at = memory.field(at, runtime.offsets.interpreter.next)?;
    }
    Ok(())
}

fn interpreter(
    memory: &impl ReadMemory,
    runtime: &Runtime,
    address: RemoteAddr,
) -> Result<Interpreter, ReadError> {
    let offsets = &runtime.offsets;
    let id = match offsets.interpreter.id {
        Some(field) => memory.field(address, field)?,
        None => 0,
    };
    let collecting = offsets.interpreter.gc_collecting.map(|field| address.offset(u64::from(field.offset())));
    let code_count = offsets.interpreter.code_count.map(|count| address.offset(u64::from(count.offset())));
    Ok(Interpreter {
        address,
        code_count,
        id: InterpreterId::new(id as u32),
        gil: gil(memory, runtime, address)?,
        gc_collecting: collecting.or(runtime.gc_collecting),
        threads_head: address.offset(u64::from(offsets.interpreter.threads_head.offset())),
    })
}

/// The GIL of an interpreter: its own or the runtime's one; none in a free-threaded build that has not
/// switched it on.
fn gil(
    memory: &impl ReadMemory,
    runtime: &Runtime,
    interpreter: RemoteAddr,
) -> Result<Option<GilAddresses>, ReadError> {
    let offsets = &runtime.offsets;
    let Some(pointer) = offsets.interpreter.gil else { return Ok(runtime.gil) };
    let base: RemoteAddr = memory.field(interpreter, pointer)?;
    if base.is_null() {
        return Ok(None);
    }
    if let Some(enabled) = offsets.gil.enabled
        && offsets.free_threaded
        && memory.field(base, enabled)? == 0
    {
        return Ok(None);
    }
    Ok(Some(GilAddresses::at(base, &offsets.gil)))
}

/// The thread states of an interpreter, in the order of its list: the youngest first.
///
/// # Errors
/// When the list cannot be read, holds one that does not belong to the interpreter, or leads back to one that
/// it had before: it changed.
pub fn thread_states(
    memory: &impl ReadMemory,
    offsets: &Offsets,
    interpreter: &Interpreter,
) -> Result<Vec<PyThreadState>, ReadError> {
    match first_thread_states(memory, offsets, interpreter) {
        (found, None) => Ok(found),
        (_, Some(error)) => Err(error),
    }
}

/// The thread states of an interpreter up to where its list ends, or cannot be followed for the reason given:
/// for memory that does not change, of which a part may be missing.
pub fn first_thread_states(
    memory: &impl ReadMemory,
    offsets: &Offsets,
    interpreter: &Interpreter,
) -> (Vec<PyThreadState>, Option<ReadError>) {
    let mut found = Vec::new();
    let followed = follow_thread_states(memory, offsets, interpreter, &mut found);
    (found, followed.err())
}

fn follow_thread_states(
    memory: &impl ReadMemory,
    offsets: &Offsets,
    interpreter: &Interpreter,
    found: &mut Vec<PyThreadState>,
) -> Result<(), ReadError> {
    let mut known = HashSet::new();
    let mut copy = vec![0u8; offsets.thread.size as usize];
    let mut at: RemoteAddr = memory.scalar(interpreter.threads_head)?;
    while !at.is_null() && found.len() < MAX_THREAD_STATES {
        memory.read(at, &mut copy)?;
        let state = PyThreadState::from_copy(at, &copy, offsets).ok_or(ReadError::Unmapped(at))?;
        if state.interpreter != interpreter.address || !known.insert(at) {
            return Err(ReadError::BrokenList(at));
        }
        found.push(state);
        at = offsets.thread.next.get(&copy).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Version, offsets_for, parse_debug_offsets};
    use profiler_memory::{Field, Snapshot};

    const HEAD: u64 = 0x1000;
    const INTERPRETERS: [u64; 2] = [0x10_0000, 0x20_0000];
    const THREADS: [u64; 3] = [0x30_0000, 0x31_0000, 0x32_0000];
    const GIL: u64 = 0x40_0000;

    /// Two interpreters: the first has the first two threads, the second the third.
    struct Process {
        runtime: Runtime,
        memory: Snapshot,
    }

    impl Process {
        fn new(offsets: Offsets) -> Self {
            let head = RemoteAddr::new(HEAD);
            let runtime = Runtime {
                offsets,
                interpreters_head: head,
                gil: None,
                gc_collecting: None,
                main_address: head,
            };
            let mut memory = Snapshot::new();
            memory.insert(head, &INTERPRETERS[0].to_le_bytes());
            for place in INTERPRETERS {
                memory.insert(RemoteAddr::new(place), &[0; 16 << 10]);
            }
            for place in THREADS.into_iter().chain([GIL]) {
                memory.insert(RemoteAddr::new(place), &[0; 1024]);
            }
            let mut process = Process { runtime, memory };
            let Offsets { interpreter, thread, .. } = process.runtime.offsets.clone();
            process.set(INTERPRETERS[0], interpreter.next, INTERPRETERS[1]);
            process.set(INTERPRETERS[0], interpreter.threads_head, THREADS[0]);
            process.set(INTERPRETERS[1], interpreter.threads_head, THREADS[2]);
            process.set(THREADS[0], thread.next, THREADS[1]);
            for (place, owner) in THREADS.into_iter().zip([0, 0, 1]) {
                process.set(place, thread.interpreter, INTERPRETERS[owner]);
                process.set(place, thread.thread_id, place + 1);
            }
            process
        }

        fn set<T>(&mut self, base: u64, field: Field<T>, value: u64) {
            let at = RemoteAddr::new(base).offset(u64::from(field.offset()));
            self.memory.overwrite(at, &value.to_le_bytes());
        }

        fn interpreters(&self) -> Vec<Interpreter> {
            interpreters(&self.memory, &self.runtime).unwrap()
        }

        fn threads(&self, index: usize) -> Result<Vec<RemoteAddr>, ReadError> {
            let interpreter = self.interpreters()[index];
            let states = thread_states(&self.memory, &self.runtime.offsets, &interpreter)?;
            Ok(states.iter().map(|state| state.address).collect())
        }
    }

    fn table(minor: u8) -> Offsets {
        offsets_for(Version { major: 3, minor, micro: 1, release: 0xF0 }).unwrap()
    }

    #[test]
    fn lists_are_followed_to_their_ends() {
        for minor in 6..=12 {
            let process = Process::new(table(minor));
            let found: Vec<u64> = process.interpreters().iter().map(|found| found.address.as_u64()).collect();
            assert_eq!(found, INTERPRETERS);
            assert_eq!(
                process.threads(0),
                Ok(vec![RemoteAddr::new(THREADS[0]), RemoteAddr::new(THREADS[1])])
            );
            assert_eq!(process.threads(1), Ok(vec![RemoteAddr::new(THREADS[2])]));
        }
    }

    #[test]
    fn lists_that_lead_back_are_broken() {
        let mut process = Process::new(table(12));
        let offsets = process.runtime.offsets.clone();
        process.set(INTERPRETERS[1], offsets.interpreter.next, INTERPRETERS[0]);
        let broken = |at| Some(ReadError::BrokenList(RemoteAddr::new(at)));
        let (found, error) = first_interpreters(&process.memory, &process.runtime);
        assert_eq!((found.len(), error), (2, broken(INTERPRETERS[0])));
        process.set(INTERPRETERS[1], offsets.interpreter.next, 0);
        process.set(THREADS[1], offsets.thread.next, THREADS[0]);
        assert_eq!(process.threads(0).err(), broken(THREADS[0]));
        process.set(THREADS[1], offsets.thread.next, 0x10);
        assert_eq!(process.threads(0), Err(ReadError::Unmapped(RemoteAddr::new(0x10))));
    }

    #[test]
    fn a_thread_of_another_interpreter_means_that_the_list_has_changed() {
        let mut process = Process::new(table(12));
        process.set(THREADS[1], process.runtime.offsets.thread.next, THREADS[2]);
        assert_eq!(process.threads(0), Err(ReadError::BrokenList(RemoteAddr::new(THREADS[2]))));
    }

    #[test]
    fn each_interpreter_has_its_gil_or_none() {
        let mut process = Process::new(table(12));
        let pointer = process.runtime.offsets.interpreter.gil.unwrap();
        process.set(INTERPRETERS[0], pointer, GIL);
        let gils: Vec<_> = process.interpreters().iter().map(|found| found.gil).collect();
        assert_eq!(gils[0].unwrap().start, RemoteAddr::new(GIL));
        assert_eq!(gils[1], None);
    }

    #[test]
    fn a_free_threaded_build_has_a_gil_when_it_is_switched_on() {
        let described = include_bytes!("../tests/data/debug-offsets/3.14.10t.bin");
        let mut process = Process::new(parse_debug_offsets(described).unwrap());
        let offsets = process.runtime.offsets.clone();
        process.set(INTERPRETERS[0], offsets.interpreter.gil.unwrap(), GIL);
        assert_eq!(process.interpreters()[0].gil, None);
        process.set(GIL, offsets.gil.enabled.unwrap(), 1);
        assert!(process.interpreters()[0].gil.is_some());
    }
}
