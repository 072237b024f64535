//! Which pages of a process are in memory, so that reading them takes no longer than copying: `/proc/PID/pagemap`.
//!
//! A page that is not may be a file's that is read from a disk, swapped out, new and all zero, or one that somebody has
//! to provide and never does. Nothing tells these apart, except by trying.
//!
//! The samplers ask while they sample, so the entries are read here, a block at a time from a file that is kept open; the
//! crate `procfs` reads one after the other.

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::unistd::{SysconfVar, sysconf};
use profiler_memory::ReadRequest;
use profiler_model::{Nanos, Pid, RemoteAddr, Timestamp};
use rustc_hash::FxHashMap;

use crate::{Process, clock};

/// Pages of a block, which are asked for together: asking for one of them takes as long.
const BLOCK_PAGES: u64 = 64;

/// Bytes of an entry of the file.
const ENTRY_BYTES: usize = 8;

/// The bit of an entry that says that the page is in memory.
const PRESENT: u64 = 1 << 63;

/// What is known is believed for so long. Pages seldom go, and asking costs as much as reading; a page that goes meanwhile
/// may hold up who reads it.
const LIFETIME: Nanos = Nanos::from_nanos(100_000_000);

/// A request for more blocks than this is not looked through.
const MAX_BLOCKS: u64 = 16;

/// Knows which pages of a process are in memory.
#[derive(Debug)]
pub(crate) struct Residency {
    pid: Pid,
    page_shift: u32,
    file: Option<File>,
    /// Where the file cannot be had, nothing is known.
    is_unknown: bool,
    /// The pages of each block that are in memory, a bit each.
    blocks: FxHashMap<u64, u64>,
    /// The block of them that was asked about last: mostly the next request is of the same.
    recent: (u64, u64),
    since: Timestamp,
}

impl Residency {
    /// Of process `pid`; nothing is asked yet.
    pub(crate) fn new(pid: Pid) -> Self {
        let page_bytes = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
        Residency {
            pid,
            page_shift: page_bytes.unsigned_abs().max(1).trailing_zeros(),
            file: None,
            is_unknown: false,
            blocks: FxHashMap::default(),
            recent: (0, 0),
            since: Timestamp::default(),
        }
    }

    /// How many of the requests, from the first one on, concern nothing but pages in memory, as far as is known.
    pub(crate) fn leading(&mut self, requests: &[ReadRequest<'_>]) -> usize {
        let now = clock::now();
        if now.since(self.since) > LIFETIME {
            self.since = now;
            self.forget();
        }
        requests.iter().take_while(|request| self.has(request.at, request.into.len())).count()
    }

    /// Forgets all, also the file: `exec` gives a process another memory.
    fn forget(&mut self) {
        self.blocks.clear();
        self.recent = (0, 0);
        self.file = None;
    }

    fn has(&mut self, at: RemoteAddr, length: usize) -> bool {
        let Some(end) = at.as_u64().checked_add((length as u64).saturating_sub(1)) else { return true };
        if length == 0 || self.is_unknown {
            return true;
        }
        let (first, last) = (at.as_u64() >> self.page_shift, end >> self.page_shift);
        let blocks = first / BLOCK_PAGES..=last / BLOCK_PAGES;
        if blocks.end() - blocks.start() >= MAX_BLOCKS {
            return false;
        }
        blocks.into_iter().all(|block| self.has_in(block, wanted_of(block, first, last)))
    }

    /// Whether these pages of the block are in memory.
    fn has_in(&mut self, block: u64, wanted: u64) -> bool {
        if self.recent.0 != block {
            self.recent = (block, self.blocks.get(&block).copied().unwrap_or(0));
        }
        if self.recent.1 & wanted == wanted {
            return true;
        }
        // It may have come since it was looked for.
        match self.look(block) {
            Some(present) => {
                self.blocks.insert(block, present);
                self.recent = (block, present);
                present & wanted == wanted
            }
            None => true,
        }
    }

    /// The pages of the block that are in memory, or `None` where that is not to be learnt: the process has ended, or
    /// it may not be asked.
    fn look(&mut self, block: u64) -> Option<u64> {
        if self.file.is_none() {
            self.file = File::open(Process::new(self.pid).folder().join("pagemap")).ok();
            self.is_unknown = self.file.is_none();
        }
        let mut entries = [0; BLOCK_PAGES as usize * ENTRY_BYTES];
        let place = block.checked_mul(entries.len() as u64)?;
        let length = self.file.as_ref()?.read_at(&mut entries, place).ok().filter(|length| *length > 0)?;
        let entries = entries[..length].chunks_exact(ENTRY_BYTES).enumerate();
        Some(entries.fold(0, |present, (index, entry)| {
            let entry = u64::from_ne_bytes(entry.try_into().unwrap_or_default());
            if entry & PRESENT != 0 { present | 1 << index } else { present }
        }))
    }
}

/// The pages of the block from `first` to `last`, a bit each.
fn wanted_of(block: u64, first: u64, last: u64) -> u64 {
    let begin = block * BLOCK_PAGES;
    let from = first.saturating_sub(begin);
    let to = (last - begin).min(BLOCK_PAGES - 1);
    (u64::MAX << from) & (u64::MAX >> (BLOCK_PAGES - 1 - to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_a_request_are_bits_of_its_blocks() {
        assert_eq!(wanted_of(0, 0, 0), 1);
        assert_eq!(wanted_of(0, 3, 5), 0b11_1000);
        assert_eq!(wanted_of(1, 63, 64), 1);
        assert_eq!(wanted_of(0, 63, 64), 1 << 63);
        assert_eq!(wanted_of(1, 0, 1000), u64::MAX);
    }

    #[test]
    fn pages_never_touched_are_not_in_memory() {
        let mut residency = Residency::new(Pid::new(std::process::id()));
        let page = 1usize << residency.page_shift;
        let mut map = memmap2::MmapOptions::new().len(256 * page).map_anon().unwrap();
        let start = RemoteAddr::new(map.as_ptr() as u64);
        assert!(!residency.has(start.offset(100 * page as u64), 8));
        map[100 * page] = 1;
        // What was not there is asked for again at once.
        assert!(residency.has(start.offset(100 * page as u64), page));
        assert!(!residency.has(start.offset(100 * page as u64 - 1), 2));
        let mut requests = [[0; 8]; 3];
        let places = [100, 101, 100].map(|number| start.offset(number * page as u64));
        let requests: Vec<_> =
            places.into_iter().zip(&mut requests).map(|(at, into)| ReadRequest::new(at, into)).collect();
        assert_eq!(residency.leading(&requests), 1);
    }

    #[test]
    fn of_a_process_that_is_not_there_nothing_is_known() {
        let mut residency = Residency::new(Pid::new(u32::MAX >> 1));
        assert!(residency.has(RemoteAddr::new(0x1000), 8));
        assert!(residency.is_unknown);
    }
}
