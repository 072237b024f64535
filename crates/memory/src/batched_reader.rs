//! A copy of foreign memory that is made in rounds, by whoever reads it.
//!
//! To read something that hangs together by pointers while it stands still, without parsing it more often
//! than needed and without a system call for each pointer: read it from a [`BatchedReader`], which has nothing
//! at first, and takes note of what it lacks. [`BatchedReader::fetch`] gets all of that at once. After as many
//! rounds as pointers are followed one after the other, everything is there, and what had been read can go
//! on changing: reading the copy once more gives what it was.
//!
//! Where standing still is dear, most of it is done before: the rounds are made while everything moves, which shows
//! what will be needed, and then [`BatchedReader::refresh`] reads all of that anew in one go.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use profiler_model::RemoteAddr;
use rustc_hash::FxHashMap;

use crate::{ReadError, ReadMemory, ReadRequest};

/// Bytes of a block: most objects fit two, and little is copied that nobody asked for.
const BLOCK_BYTES: usize = 256;

/// The most blocks that a copy may have, 8 MiB: some thirty thousand objects.
const MAX_BLOCKS: usize = 32_768;

/// The most blocks that turn out not to be readable: each costs a system call of its own. A process whose
/// pointers are what they should be has none.
const MAX_UNREADABLE: usize = 256;

/// How many blocks are fetched at once: as many pieces as one system call takes.
const MAX_BLOCKS_AT_ONCE: usize = 1024;

/// Blocks that lie so far apart are read in one piece, with what lies between: one more piece costs more.
const MAX_GAP_BLOCKS: u64 = 4;

/// Blocks next to each other, which are read anew in one piece.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// The number of the first one.
    first: u64,
    count: u64,
}

/// A copy of memory, filled in rounds.
#[derive(Debug, Default)]
pub struct BatchedReader {
    /// The blocks that are there, by number, each with where it starts in `bytes`. Of those that cannot be
    /// read there is `None`.
    blocks: FxHashMap<u64, Option<usize>>,
    bytes: Vec<u8>,
    /// What is read anew, in the order of `bytes`.
    runs: Vec<Run>,
    missing: RefCell<BTreeSet<u64>>,
    asked: Cell<u64>,
    unreadable: usize,
}

impl BatchedReader {
    /// A copy of nothing.
    pub fn new() -> Self {
        BatchedReader::default()
    }

    /// Fetches what was asked for since the last time and is not there. Returns whether there was any: if
    /// so, reading again leads further.
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn fetch(&mut self, memory: &impl ReadMemory) -> Result<bool, ReadError> {
        let mut wanted: Vec<u64> = std::mem::take(self.missing.get_mut()).into_iter().collect();
        self.asked.set(0);
        wanted.truncate(MAX_BLOCKS.saturating_sub(self.blocks.len()));
        let mut rest = wanted.as_slice();
        while !rest.is_empty() && self.unreadable <= MAX_UNREADABLE {
            let (now, later) = rest.split_at(rest.len().min(MAX_BLOCKS_AT_ONCE));
            let read = self.fetch_blocks(memory, now)?;
            rest = match now.get(read) {
                // Where a batch ends is what cannot be read.
                Some(number) => {
                    self.blocks.insert(*number, None);
                    self.unreadable += 1;
                    &rest[read + 1..]
                }
                None => later,
            };
        }
        Ok(!wanted.is_empty())
    }

    /// Lays out everything that is there so that [`BatchedReader::refresh`] reads it in few pieces.
    pub fn arrange(&mut self) {
        let mut numbers: Vec<u64> =
            self.blocks.iter().filter_map(|(number, place)| place.map(|_| *number)).collect();
        numbers.sort_unstable();
        self.runs.clear();
        for number in numbers {
            match self.runs.last_mut() {
                Some(run) if number <= run.first + run.count + MAX_GAP_BLOCKS => {
                    run.count = number - run.first + 1;
                }
                _ => self.runs.push(Run { first: number, count: 1 }),
            }
        }
        let all: Vec<u64> = self.runs.iter().flat_map(|run| run.first..run.first + run.count).collect();
        self.bytes.clear();
        // Touched now: memory that is new costs time when it is written first.
        self.bytes.resize(all.len() * BLOCK_BYTES, 1);
        let places = (0..).step_by(BLOCK_BYTES).map(Some);
        self.blocks = all.into_iter().zip(places).collect();
        self.missing.get_mut().clear();
        self.asked.set(0);
        self.unreadable = 0;
    }

    /// Reads everything anew that was there when it was last arranged, and forgets all else.
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn refresh(&mut self, memory: &impl ReadMemory) -> Result<(), ReadError> {
        let mut gone = Vec::new();
        let mut bytes = self.bytes.as_mut_slice();
        let mut requests: Vec<ReadRequest<'_>> = Vec::with_capacity(self.runs.len());
        for run in &self.runs {
            let (piece, rest) = bytes.split_at_mut(run.count as usize * BLOCK_BYTES);
            requests.push(ReadRequest::new(address(run.first), piece));
            bytes = rest;
        }
        let (mut rest, mut done) = (requests.as_mut_slice(), 0);
        while !rest.is_empty() {
            let read = memory.read_batch(rest)?;
            if read >= rest.len() {
                break;
            }
            // Where a batch ends is what cannot be read any more.
            gone.push(self.runs[done + read]);
            done += read + 1;
            rest = &mut rest[read + 1..];
            if gone.len() > MAX_UNREADABLE {
                gone.extend_from_slice(&self.runs[done..]);
                break;
            }
        }
        for number in gone.iter().flat_map(|run| run.first..run.first + run.count) {
            self.blocks.remove(&number);
        }
        Ok(())
    }

    /// Fetches blocks in one batch; returns how many were read.
    fn fetch_blocks(&mut self, memory: &impl ReadMemory, numbers: &[u64]) -> Result<usize, ReadError> {
        let start = self.bytes.len();
        self.bytes.resize(start + numbers.len() * BLOCK_BYTES, 0);
        let mut requests: Vec<ReadRequest<'_>> = numbers
            .iter()
            .zip(self.bytes[start..].chunks_exact_mut(BLOCK_BYTES))
            .map(|(number, into)| ReadRequest::new(address(*number), into))
            .collect();
        let read = memory.read_batch(&mut requests)?;
        let places = (start..).step_by(BLOCK_BYTES);
        self.blocks.extend(numbers.iter().copied().zip(places.map(Some)).take(read));
        self.bytes.truncate(start + read * BLOCK_BYTES);
        Ok(read)
    }

    /// How often something was asked for since the last round that is not there, though it might be.
    pub fn missing(&self) -> u64 {
        self.asked.get()
    }
}

fn address(number: u64) -> RemoteAddr {
    RemoteAddr::new(number.wrapping_mul(BLOCK_BYTES as u64))
}

impl ReadMemory for BatchedReader {
    fn read(&self, at: RemoteAddr, into: &mut [u8]) -> Result<(), ReadError> {
        let mut done = 0;
        let mut is_whole = true;
        while done < into.len() {
            let here = at.as_u64().wrapping_add(done as u64);
            let (number, from) = (here / BLOCK_BYTES as u64, (here % BLOCK_BYTES as u64) as usize);
            let length = (into.len() - done).min(BLOCK_BYTES - from);
            match self.blocks.get(&number) {
                Some(Some(start)) => {
                    let start = start + from;
                    into[done..done + length].copy_from_slice(&self.bytes[start..start + length]);
                }
                Some(None) => return Err(ReadError::Unmapped(at)),
                None => {
                    let mut missing = self.missing.borrow_mut();
                    if missing.len() + self.blocks.len() < MAX_BLOCKS && self.unreadable <= MAX_UNREADABLE {
                        missing.insert(number);
                        self.asked.set(self.asked.get() + 1);
                    }
                    is_whole = false;
                }
            }
            done += length;
        }
        if is_whole { Ok(()) } else { Err(ReadError::Unmapped(at)) }
    }

    /// Takes note of everything that is missing, not only of the first of it.
    fn read_batch(&self, requests: &mut [ReadRequest<'_>]) -> Result<usize, ReadError> {
        let mut filled = requests.len();
        for (index, request) in requests.iter_mut().enumerate() {
            if self.read(request.at, request.into).is_err() {
                filled = filled.min(index);
            }
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Snapshot;

    fn memory() -> Snapshot {
        let mut memory = Snapshot::new();
        let mut first = vec![0; BLOCK_BYTES];
        first[..8].copy_from_slice(&0x3010u64.to_le_bytes());
        memory.insert(RemoteAddr::new(0x1000), &first);
        memory.insert(RemoteAddr::new(0x3000), &[7; 2 * BLOCK_BYTES]);
        memory
    }

    /// Follows a pointer to eight bytes on the border of two blocks.
    fn follow(memory: &impl ReadMemory) -> Result<u64, ReadError> {
        let at: RemoteAddr = memory.scalar(RemoteAddr::new(0x1000))?;
        memory.scalar(at.offset(BLOCK_BYTES as u64 - 0x14))
    }

    #[test]
    fn a_pointer_takes_two_rounds_and_then_the_memory_is_not_needed() {
        let (memory, mut copy) = (memory(), BatchedReader::new());
        for _ in 0..2 {
            assert!(follow(&copy).is_err() && copy.missing() > 0);
            assert!(copy.fetch(&memory).unwrap());
        }
        assert_eq!(follow(&copy), Ok(0x0707_0707_0707_0707));
        assert!(copy.missing() == 0 && !copy.fetch(&Snapshot::new()).unwrap());
    }

    #[test]
    fn what_cannot_be_read_is_asked_for_once() {
        let (memory, mut copy) = (memory(), BatchedReader::new());
        let mut buffers = [[0; 4]; 3];
        let places = [0x1000, 0x9000, 0x3000].map(RemoteAddr::new);
        let mut ask = |copy: &BatchedReader| {
            let pairs = places.iter().zip(&mut buffers);
            let mut requests: Vec<_> =
                pairs.map(|(at, into)| ReadRequest::new(*at, into.as_mut_slice())).collect();
            copy.read_batch(&mut requests).unwrap()
        };
        assert_eq!(ask(&copy), 0);
        assert!(copy.fetch(&memory).unwrap());
        assert_eq!(ask(&copy), 1);
        assert!(copy.missing() == 0);
        assert_eq!(buffers, [[0x10, 0x30, 0, 0], [0; 4], [7; 4]]);
    }

    #[test]
    fn what_was_arranged_is_read_anew_in_one_go() {
        let (memory, mut copy) = (memory(), BatchedReader::new());
        while follow(&copy).is_err() {
            assert!(copy.fetch(&memory).unwrap());
        }
        copy.arrange();
        // What is there before it has been read anew is no content.
        assert_ne!(follow(&copy), Ok(0x0707_0707_0707_0707));
        copy.refresh(&memory).unwrap();
        assert_eq!(follow(&copy), Ok(0x0707_0707_0707_0707));
        // Of two pieces one is gone: the other one is as it is now.
        let mut later = Snapshot::new();
        later.insert(RemoteAddr::new(0x3000), &[9; 2 * BLOCK_BYTES]);
        copy.arrange();
        copy.refresh(&later).unwrap();
        assert!(follow(&copy).is_err() && copy.missing() > 0);
        let mut bytes = [0; 2];
        copy.read(RemoteAddr::new(0x3000 + BLOCK_BYTES as u64 - 1), &mut bytes).unwrap();
        assert_eq!(bytes, [9, 9]);
    }

    #[test]
    fn pieces_with_small_gaps_are_one() {
        let mut memory = Snapshot::new();
        memory.insert(RemoteAddr::new(0x1000), &[5; 16 * BLOCK_BYTES]);
        let mut copy = BatchedReader::new();
        for block in [0, 3, 15] {
            let _ = copy.read(address(0x1000 / BLOCK_BYTES as u64 + block), &mut [0; 4]);
        }
        copy.fetch(&memory).unwrap();
        copy.arrange();
        let runs: Vec<_> = copy.runs.iter().map(|run| (run.first * BLOCK_BYTES as u64, run.count)).collect();
        assert_eq!(runs, [(0x1000, 4), (0x1000 + 15 * BLOCK_BYTES as u64, 1)]);
        copy.refresh(&memory).unwrap();
        let mut bytes = [0; BLOCK_BYTES];
        copy.read(address(0x1000 / BLOCK_BYTES as u64 + 2), &mut bytes).unwrap();
        assert_eq!(bytes, [5; BLOCK_BYTES]);
    }

    #[test]
    fn it_has_a_largest_size() {
        let mut copy = BatchedReader::new();
        let mut much = vec![0; (MAX_BLOCKS + 9) * BLOCK_BYTES];
        assert!(copy.read(RemoteAddr::new(0), &mut much).is_err());
        assert_eq!(copy.missing.borrow().len(), MAX_BLOCKS);
        // Nor is it asked for more than so much that cannot be read.
        assert!(copy.fetch(&Snapshot::new()).unwrap());
        assert_eq!(copy.blocks.len(), MAX_UNREADABLE + 1);
        assert!(copy.read(RemoteAddr::new(1 << 40), &mut [0; 8]).is_err());
        assert!(copy.missing() == 0);
    }
}
