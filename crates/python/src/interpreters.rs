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
    /// Where its list of thread states starts.
    pub threads_head: RemoteAddr,
}

/// `PyThreadState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadState {
    /// Where it is.
    pub address: RemoteAddr,
    /// The interpreter it belongs to.
    pub interpreter: RemoteAddr,
    /// `pthread_self()` of its thread.
    pub pthread_id: u64,
    /// The kernel's id of its thread, as the target knows it; `None` where CPython does not keep it.
    pub native_id: Option<NsTid>,
}

impl ThreadState {
    /// The thread state in a local copy of its structure, or `None` where the copy is too short.
    pub fn from_copy(address: RemoteAddr, copy: &[u8], offsets: &Offsets) -> Option<Self> {
        let thread = &offsets.thread;
        Some(ThreadState {
            address,
            interpreter: thread.interpreter.get(copy)?,
            pthread_id: thread.thread_id.get(copy)?,
            native_id: match thread.native_thread_id {
                Some(field) => Some(NsTid::new(u32::try_from(field.get(copy)?).ok()?)),
                None => None,
            },
        })
    }
}

/// The interpreters of the runtime, in the order of its list.
///
/// # Errors
/// When the list cannot be read.
pub fn interpreters(memory: &impl ReadMemory, runtime: &Runtime) -> Result<Vec<Interpreter>, ReadError> {
    let mut found: Vec<Interpreter> = Vec::new();
    let mut at: RemoteAddr = memory.scalar(runtime.interpreters_head)?;
    while !at.is_null() && found.len() < MAX_INTERPRETERS && found.iter().all(|known| known.address != at) {
        found.push(interpreter(memory, runtime, at)?);
        at = memory.field(at, runtime.offsets.interpreter.next)?;
    }
    Ok(found)
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
    Ok(Interpreter {
        address,
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
) -> Result<Vec<ThreadState>, ReadError> {
    let mut found = Vec::new();
    let mut known = HashSet::new();
    let mut copy = vec![0u8; offsets.thread.size as usize];
    let mut at: RemoteAddr = memory.scalar(interpreter.threads_head)?;
    while !at.is_null() && found.len() < MAX_THREAD_STATES {
        memory.read(at, &mut copy)?;
        let state = ThreadState::from_copy(at, &copy, offsets).ok_or(ReadError::Unmapped(at))?;
        if state.interpreter != interpreter.address || !known.insert(at) {
            return Err(ReadError::Unmapped(at));
        }
        found.push(state);
        at = offsets.thread.next.get(&copy).unwrap_or_default();
    }
    Ok(found)
}
