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
    let modules = memory.field(interpreter, offsets.interpreter.modules)?;
    if modules.is_null() {
        // The interpreter is starting or ending.
        return Ok(HashMap::new());
    }
    let modules = dict::entries(memory, offsets, modules)?;
    let Some(threading) = dict::find(memory, offsets, &modules, "threading")? else {
        return Ok(HashMap::new());
    };
    let globals = attributes(memory, offsets, threading)?;
    let Some(active) = dict::find(memory, offsets, &globals, "_active")? else {
        return Ok(HashMap::new());
    };
    let threads = dict::entries(memory, offsets, active)?;
    Ok(threads.iter().filter_map(|thread| named_thread(memory, offsets, thread)).collect())
}

fn named_thread(memory: &impl ReadMemory, offsets: &Offsets, thread: &Entry) -> Option<(u64, String)> {
    let ident = read_unsigned(memory, offsets, thread.key).ok()??;
    let attributes = attributes(memory, offsets, thread.value).ok()?;
    let name = dict::find(memory, offsets, &attributes, "_name").ok()??;
    Some((ident, read_string(memory, offsets, name).ok()?))
}
