//! The names that a program gave its threads: `threading._active`, which the module `threading` keeps by
//! `pthread_t`. A program that never imported it has no names.
//!
//! The target may run meanwhile: a thread that cannot be read at this instant is left out, and is found the
//! next time.

use std::collections::HashMap;

use profiler_memory::{ReadError, ReadMemory};
use profiler_model::RemoteAddr;

use crate::Offsets;
use crate::dict::{self, Entry};
use crate::instance::attributes;
use crate::integers::read_unsigned;
use crate::strings::read_string;

/// The most entries of `sys.modules`, deleted ones included. The largest programs have some ten thousand.
const MAX_MODULES: u32 = 1 << 18;

/// The most threads that are named: the kernel's usual limit for a whole system. More entries than that, with
/// the deleted ones, and the dictionary is not what it should be.
const MAX_THREADS: u32 = 1 << 16;

/// The most attributes that are looked at for all threads together: thirty each of the most threads. A target
/// that lies could else keep the walk busy for minutes.
const MAX_ATTRIBUTES_OF_ALL: usize = 1 << 21;

/// The names of the threads of one interpreter, by `pthread_t` ([`crate::ThreadOffsets::thread_id`]).
///
/// # Errors
/// When the way to `threading._active` cannot be read. That there is no such module is no error: the answer
/// is empty.
pub fn thread_names(
    memory: &impl ReadMemory,
    offsets: &Offsets,
    interpreter: RemoteAddr,
) -> Result<HashMap<u64, String>, ReadError> {
    thread_names_of(memory, offsets, interpreter, &|_| true)
}

/// The same for the threads that are `wanted`, by `pthread_t`: of the others only the number is read.
///
/// # Errors
/// As for [`thread_names`].
pub fn thread_names_of(
    memory: &impl ReadMemory,
    offsets: &Offsets,
    interpreter: RemoteAddr,
    wanted: &dyn Fn(u64) -> bool,
) -> Result<HashMap<u64, String>, ReadError> {
    let modules = memory.field(interpreter, offsets.interpreter.modules)?;
    if modules.is_null() {
        // The interpreter is starting or ending.
        return Ok(HashMap::new());
    }
    let modules = dict::entries(memory, offsets, modules, MAX_MODULES)?;
    let Some(threading) = dict::find(memory, offsets, &modules, "threading")? else {
        return Ok(HashMap::new());
    };
    let globals = attributes(memory, offsets, threading.value)?;
    let Some(active) = dict::find(memory, offsets, &globals, "_active")? else {
        return Ok(HashMap::new());
    };
    let threads = dict::entries(memory, offsets, active.value, MAX_THREADS)?;
    let mut names = HashMap::with_capacity(threads.len());
    let mut looked_at = 0;
    let mut name_key = None;
    for thread in &threads {
        let Ok(Some(ident)) = read_unsigned(memory, offsets, thread.key) else { continue };
        if !wanted(ident) {
            continue;
        }
        let Ok(attributes) = attributes(memory, offsets, thread.value) else { continue };
        looked_at += attributes.len();
        if looked_at > MAX_ATTRIBUTES_OF_ALL {
            break;
        }
        let named = (|| {
            let name = name_object(memory, offsets, &attributes, &mut name_key)?;
            Some((ident, read_string(memory, offsets, name).ok()?))
        })();
        names.extend(named);
    }
    Ok(names)
}

/// The attribute `_name`. All instances use the same string object as its key, so that it need be recognised
/// by its characters only once: `name_key` keeps it.
fn name_object(
    memory: &impl ReadMemory,
    offsets: &Offsets,
    attributes: &[Entry],
    name_key: &mut Option<RemoteAddr>,
) -> Option<RemoteAddr> {
    if let Some(entry) = attributes.iter().find(|entry| Some(entry.key) == *name_key) {
        return Some(entry.value);
    }
    let entry = dict::find(memory, offsets, attributes, "_name").ok()??;
    *name_key = Some(entry.key);
    Some(entry.value)
}
