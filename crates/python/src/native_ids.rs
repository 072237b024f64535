//! Which kernel thread a thread state belongs to, where CPython does not keep it (to 3.10).
//!
//! CPython knows `pthread_self()`, the address of the C library's thread descriptor, and the C library
//! keeps the kernel's id in it: glibc at 720 bytes (x86-64), musl elsewhere. Where exactly is not told
//! anywhere, but it is the same for all threads: the one offset at which every descriptor has the id of a
//! thread that the process really has.

use std::collections::HashSet;

use profiler_memory::{Field, ReadMemory};
use profiler_model::{NsTid, RemoteAddr};

/// How much of a descriptor is searched. Both glibc and musl keep the id in the first kilobyte.
const MAX_DESCRIPTOR_BYTES: usize = 1024;

/// The kernel ids of the threads with these `pthread_self()` values, in their order; `None` for one whose
/// descriptor does not tell. `alive` are the ids that the process's threads have, as the target knows them.
pub fn native_ids(
    memory: &impl ReadMemory,
    pthread_ids: &[u64],
    alive: &HashSet<NsTid>,
) -> Vec<Option<NsTid>> {
    let descriptors: Vec<Option<Vec<u8>>> =
        pthread_ids.iter().map(|id| descriptor(memory, RemoteAddr::new(*id))).collect();
    let best = (0..MAX_DESCRIPTOR_BYTES as u32)
        .step_by(4)
        .map(|offset| (distinct_ids(&descriptors, offset, alive), offset))
        // The first of equals: later ones are copies of the id for the library's own purposes.
        .max_by_key(|(hits, offset)| (*hits, std::cmp::Reverse(*offset)));
    match best {
        Some((hits, offset)) if hits > 0 => {
            descriptors.iter().map(|bytes| id_at(bytes.as_deref()?, offset, alive)).collect()
        }
        _ => vec![None; pthread_ids.len()],
    }
}

/// How many different threads the descriptors name at `offset`.
fn distinct_ids(descriptors: &[Option<Vec<u8>>], offset: u32, alive: &HashSet<NsTid>) -> usize {
    let ids = descriptors.iter().flatten().filter_map(|bytes| id_at(bytes, offset, alive));
    ids.collect::<HashSet<_>>().len()
}

fn id_at(descriptor: &[u8], offset: u32, alive: &HashSet<NsTid>) -> Option<NsTid> {
    Field::<u32>::at(offset).get(descriptor).map(NsTid::new).filter(|id| alive.contains(id))
}

/// The descriptor, as much of it as can be read: that of the last thread may end with its page.
fn descriptor(memory: &impl ReadMemory, at: RemoteAddr) -> Option<Vec<u8>> {
    let to_page_end = 4096 - (at.as_u64() % 4096) as usize;
    [MAX_DESCRIPTOR_BYTES, to_page_end.min(MAX_DESCRIPTOR_BYTES)].into_iter().find_map(|length| {
        let mut bytes = vec![0; length];
        memory.read(at, &mut bytes).is_ok().then_some(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use profiler_memory::Snapshot;

    #[test]
    fn the_offset_at_which_all_descriptors_name_a_thread() {
        let mut memory = Snapshot::new();
        let (mut first, mut second) = (vec![0u8; 1024], vec![0u8; 1024]);
        // By chance the first descriptor has a thread's id elsewhere, too.
        first[16..20].copy_from_slice(&101u32.to_le_bytes());
        first[720..724].copy_from_slice(&100u32.to_le_bytes());
        second[720..724].copy_from_slice(&101u32.to_le_bytes());
        memory.insert(RemoteAddr::new(0x10_000), &first);
        memory.insert(RemoteAddr::new(0x20_000), &second);
        let alive = HashSet::from([NsTid::new(100), NsTid::new(101), NsTid::new(102)]);
        let found = native_ids(&memory, &[0x10_000, 0x20_000, 0x30_000], &alive);
        assert_eq!(found, [Some(NsTid::new(100)), Some(NsTid::new(101)), None]);
    }
}
