//! Searches a module's data where no symbol says where the runtime is.
//!
//! Nothing found here is believed for its looks: a candidate counts when walking from it leads to an
//! interpreter, on to a thread state, and from there back to the same interpreter.

use memchr::memmem;
use profiler_memory::{Field, ReadMemory};
use profiler_model::RemoteAddr;

use super::candidate::Candidate;
use super::runtime::{Place, Variables, owns_a_thread};
use crate::debug_offsets::COOKIE;
use crate::offsets::Offsets;

/// Writable data searched in one module. CPython's own is 1 to 2 MB.
const MAX_DATA_BYTES: usize = 16 << 20;

/// Pointers that are followed. The 40,000 words of CPython's data point to some 5,000 heap objects; each
/// try costs a system call or two.
const MAX_POINTERS_FOLLOWED: usize = 64 << 10;

/// Thread states of one interpreter that are asked for a frame.
const MAX_THREADS_TRIED: usize = 256;

/// Numbers of interpreters that a process can have handed out: each costs megabytes when alive.
const MAX_INTERPRETER_NUMBER: i64 = 1 << 20;

/// The lowest address that is mapped in practice, and the end of user space with four-level page tables
/// on x86-64 and 48 bits on ARM.
const USER_SPACE: std::ops::Range<u64> = 0x1_0000..0x1_0000_0000_0000;

/// Where the cookie of the debug offsets stands in the module's data.
pub(super) fn cookies(candidate: &Candidate<'_>, memory: &impl ReadMemory) -> Vec<RemoteAddr> {
    let in_data = |data: &[u8], start: u64| -> Vec<RemoteAddr> {
        memmem::find_iter(data, COOKIE)
            .map(|at| start.wrapping_add(at as u64))
            .filter(|address| address % 8 == 0)
            .map(RemoteAddr::new)
            .collect()
    };
    match &candidate.image {
        Some(image) => image
            .writable()
            .flat_map(|segment| {
                let data = &segment.data[..segment.data.len().min(MAX_DATA_BYTES)];
                let found = in_data(data, segment.address);
                candidate.biases.iter().flat_map(move |bias| {
                    found.clone().into_iter().map(|address| address.offset(*bias)).collect::<Vec<_>>()
                })
            })
            .collect(),
        None => regions(candidate, memory)
            .into_iter()
            .flat_map(|region| in_data(&region.bytes, region.start.as_u64()))
            .collect(),
    }
}

/// Searches for the runtime of an old build without symbols, proving it by the walk.
pub(super) fn walk(candidate: &Candidate<'_>, offsets: &Offsets, memory: &impl ReadMemory) -> Option<Place> {
    let regions = regions(candidate, memory);
    let mappings = candidate.module.mappings;
    let is_inside = |address: u64| {
        let address = RemoteAddr::new(address);
        mappings.iter().any(|mapping| (mapping.start..mapping.end).contains(&address))
            || regions.iter().any(|region| region.contains(address))
    };
    let mut tries = MAX_POINTERS_FOLLOWED;
    regions.iter().find_map(|region| match (offsets.version.major, offsets.version.minor) {
        (3, 6) => interpreter_variable(region, &is_inside, offsets, memory, &mut tries),
        _ => interpreter_list(region, offsets, memory, &mut tries),
    })
}

/// Writable data as it is in memory.
struct Region {
    start: RemoteAddr,
    bytes: Vec<u8>,
}

impl Region {
    /// The 64-bit word that stands `index` words after the start.
    fn word(&self, index: usize) -> Option<u64> {
        let at = u32::try_from(index.checked_mul(8)?).ok()?;
        Field::<u64>::at(at).get(&self.bytes)
    }

    fn contains(&self, address: RemoteAddr) -> bool {
        let distance = address.checked_distance_from(self.start);
        distance.is_some_and(|distance| distance < self.bytes.len() as u64)
    }

    fn words(&self) -> usize {
        self.bytes.len() / 8
    }
}

/// The module's writable data: by its segments, which include what is zero at the start (`.bss`), or by
/// its mappings where the file cannot be read.
fn regions(candidate: &Candidate<'_>, memory: &impl ReadMemory) -> Vec<Region> {
    let ranges: Vec<(u64, u64)> = match &candidate.image {
        Some(image) => image
            .writable()
            .flat_map(|segment| {
                candidate
                    .biases
                    .iter()
                    .map(move |bias| (segment.address.wrapping_add(*bias), segment.memory_size))
            })
            .collect(),
        None => writable_mappings(candidate),
    };
    ranges
        .into_iter()
        .filter_map(|(start, length)| {
            let aligned = start.checked_next_multiple_of(8)?;
            let length = length.saturating_sub(aligned - start).min(MAX_DATA_BYTES as u64);
            let bytes = memory.bytes(RemoteAddr::new(aligned), length, MAX_DATA_BYTES).ok()?;
            Some(Region { start: RemoteAddr::new(aligned), bytes })
        })
        .collect()
}

fn writable_mappings(candidate: &Candidate<'_>) -> Vec<(u64, u64)> {
    candidate
        .module
        .mappings
        .iter()
        .filter(|mapping| mapping.writable && mapping.readable)
        .filter_map(|mapping| {
            Some((mapping.start.as_u64(), mapping.end.checked_distance_from(mapping.start)?))
        })
        .collect()
}

fn is_pointer(word: u64) -> bool {
    word.is_multiple_of(8) && USER_SPACE.contains(&word)
}

/// 3.7 to 3.12: `struct pyinterpreters { mutex, head, main, next_id }` inside `_PyRuntime`.
fn interpreter_list(
    region: &Region,
    offsets: &Offsets,
    memory: &impl ReadMemory,
    tries: &mut usize,
) -> Option<Place> {
    (1..region.words()).find_map(|index| {
        let [mutex, head, main] = [region.word(index - 1)?, region.word(index)?, region.word(index + 1)?];
        let next_id = region.word(index + 2)? as i64;
        if ![mutex, head, main].into_iter().all(is_pointer)
            || !(1..=MAX_INTERPRETER_NUMBER).contains(&next_id)
        {
            return None;
        }
        *tries = tries.checked_sub(1)?;
        let at = region.start.offset(index as u64 * 8);
        let id = memory.field(RemoteAddr::new(main), offsets.interpreter.id?).ok()?;
        let alive = id == 0 && owns_a_thread(memory, RemoteAddr::new(main), offsets) == Ok(true);
        let runtime = at.as_u64().checked_sub(u64::from(offsets.runtime.interpreters_head.offset()))?;
        alive.then(|| Place::Runtime(RemoteAddr::new(runtime)))
    })
}

/// 3.6: `interp_head`, a lone pointer. `autoInterpreterState` looks the same and does as well, unless the
/// process starts further interpreters, which it does not lead to.
fn interpreter_variable(
    region: &Region,
    is_inside: &impl Fn(u64) -> bool,
    offsets: &Offsets,
    memory: &impl ReadMemory,
    tries: &mut usize,
) -> Option<Place> {
    (0..region.words()).find_map(|index| {
        let word = region.word(index)?;
        // Interpreters are allocated: not inside the module itself, where most pointers lead.
        if !is_pointer(word) || is_inside(word) {
            return None;
        }
        *tries = tries.checked_sub(1)?;
        let at = region.start.offset(index as u64 * 8);
        let proven = owns_a_thread(memory, RemoteAddr::new(word), offsets) == Ok(true)
            && runs_a_frame(memory, word, offsets);
        let head = Variables { interpreters_head: at, gil: None, gc_collecting: None };
        proven.then_some(Place::Variables(head))
    })
}

/// Whether a thread of the interpreter has a frame that says that it is one.
fn runs_a_frame(memory: &impl ReadMemory, interpreter: u64, offsets: &Offsets) -> bool {
    let mut thread =
        memory.field(RemoteAddr::new(interpreter), offsets.interpreter.threads_head).unwrap_or_default();
    for _ in 0..MAX_THREADS_TRIED {
        if thread.is_null() {
            return false;
        }
        if is_frame(memory, thread, offsets) == Some(true) {
            return true;
        }
        thread = memory.field(thread, offsets.thread.next).unwrap_or_default();
    }
    false
}

fn is_frame(memory: &impl ReadMemory, thread: RemoteAddr, offsets: &Offsets) -> Option<bool> {
    let frame = memory.field(thread, offsets.thread.frame).ok()?;
    let kind = memory.field(frame, offsets.object.object_type).ok()?;
    let name = memory.field(kind, offsets.object.type_name).ok()?;
    let mut text = [0; 6];
    memory.read(name, &mut text).ok()?;
    Some(text == *b"frame\0")
}
