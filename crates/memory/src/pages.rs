//! A local copy of the pages of foreign memory that one walk touches.
//!
//! Frames lie close together: reading the page around the first answers for the next forty without a
//! further system call. And a walk mostly touches the pages that the walk before it touched, so these are
//! fetched in one batch up front. A copy is of one instant: clear it before the next.

use profiler_model::RemoteAddr;

use crate::{ReadError, ReadMemory, ReadRequest};

/// Bytes of what is called a page here: a quarter of what the hardware calls one, so that it is readable as
/// a whole or not at all. Each page costs the kernel a look-up, whatever its size, and each byte a copy from
/// memory that this CPU does not have in its cache: this size holds ten frames.
pub const PAGE_BYTES: usize = 1024;

/// A walk that touches more pages than this is not predicted: it would not be the same ones again.
const MAX_PREDICTED_PAGES: usize = 512;

type Page = [u8; PAGE_BYTES];

/// A local copy of pages, filled as they are asked for.
#[derive(Default)]
pub struct PageCopy {
    /// Page numbers in order, each with its slot in `slots`.
    index: Vec<(u64, u32)>,
    /// Storage, kept over instants; the first `used` slots are filled.
    slots: Vec<Page>,
    used: usize,
    /// The page that was asked for last: mostly it is asked for again.
    last: Option<(u64, u32)>,
}

impl PageCopy {
    /// An empty copy.
    pub fn new() -> Self {
        PageCopy::default()
    }

    /// Forgets all pages, so that they are read anew.
    pub fn clear(&mut self) {
        self.index.clear();
        self.used = 0;
        self.last = None;
    }

    /// The numbers of the pages that are held, in order.
    pub fn page_numbers(&self) -> impl Iterator<Item = u64> {
        self.index.iter().map(|(number, _)| *number)
    }

    /// Whether the page with the byte at `at` is held.
    pub fn holds(&self, at: RemoteAddr) -> bool {
        let number = page_number(at);
        self.index.binary_search_by_key(&number, |(held, _)| *held).is_ok()
    }

    /// Forgets all pages and reads those with these `numbers` in one batch, see [`PageCopy::prefetch`].
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn refill(&mut self, memory: &impl ReadMemory, numbers: &[u64]) -> Result<(), ReadError> {
        self.clear();
        self.prefetch(memory, if numbers.len() > MAX_PREDICTED_PAGES { &[] } else { numbers })
    }

    /// Reads the pages with these `numbers` (in order, without repeats) that are not held, in one batch.
    /// Those that cannot be read are left out.
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn prefetch(&mut self, memory: &impl ReadMemory, numbers: &[u64]) -> Result<(), ReadError> {
        let held = |number: &u64| self.index.binary_search_by_key(number, |(held, _)| *held).is_ok();
        let missing: Vec<u64> = numbers.iter().copied().filter(|number| !held(number)).collect();
        let mut pending = missing.as_slice();
        while !pending.is_empty() {
            self.reserve(self.used + pending.len());
            let first = self.used;
            let mut requests: Vec<ReadRequest<'_>> = self.slots[first..]
                .iter_mut()
                .zip(pending)
                .map(|(slot, number)| ReadRequest::new(page_address(*number), slot.as_mut_slice()))
                .collect();
            let filled = memory.read_batch(&mut requests)?;
            self.index
                .extend(pending[..filled].iter().zip(first as u32..).map(|(number, slot)| (*number, slot)));
            self.used += filled;
            // The one at which the batch ended cannot be read.
            pending = pending.get(filled + 1..).unwrap_or_default();
        }
        self.index.sort_unstable();
        Ok(())
    }

    /// Fills all of `into` with the bytes at `at`, from the copy, reading pages that it lacks.
    ///
    /// # Errors
    /// When a page cannot be read.
    pub fn read(
        &mut self,
        memory: &impl ReadMemory,
        at: RemoteAddr,
        into: &mut [u8],
    ) -> Result<(), ReadError> {
        let mut done = 0;
        while done < into.len() {
            let here = at.offset(done as u64).as_u64();
            let start = (here % PAGE_BYTES as u64) as usize;
            let length = (into.len() - done).min(PAGE_BYTES - start);
            let slot = self.page(memory, page_number(RemoteAddr::new(here)))?;
            into[done..done + length].copy_from_slice(&self.slots[slot as usize][start..start + length]);
            done += length;
        }
        Ok(())
    }

    fn page(&mut self, memory: &impl ReadMemory, number: u64) -> Result<u32, ReadError> {
        if let Some((last, slot)) = self.last
            && last == number
        {
            return Ok(slot);
        }
        let slot = match self.index.binary_search_by_key(&number, |(held, _)| *held) {
            Ok(found) => self.index[found].1,
            Err(place) => {
                self.reserve(self.used + 1);
                memory.read(page_address(number), self.slots[self.used].as_mut_slice())?;
                let slot = self.used as u32;
                self.index.insert(place, (number, slot));
                self.used += 1;
                slot
            }
        };
        self.last = Some((number, slot));
        Ok(slot)
    }

    fn reserve(&mut self, slots: usize) {
        while self.slots.len() < slots {
            self.slots.push([0; PAGE_BYTES]);
        }
    }
}

impl std::fmt::Debug for PageCopy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PageCopy of {} pages", self.used)
    }
}

/// The number of the page that holds the byte at `at`.
pub fn page_number(at: RemoteAddr) -> u64 {
    at.as_u64() / PAGE_BYTES as u64
}

fn page_address(number: u64) -> RemoteAddr {
    RemoteAddr::new(number.wrapping_mul(PAGE_BYTES as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Snapshot;

    fn memory() -> Snapshot {
        let mut memory = Snapshot::new();
        for number in [1u64, 2, 5] {
            memory.insert(page_address(number), &[number as u8; PAGE_BYTES]);
        }
        memory
    }

    #[test]
    fn reads_across_pages_and_keeps_them() {
        let (memory, mut copy) = (memory(), PageCopy::new());
        let mut bytes = [0; 4];
        copy.read(&memory, RemoteAddr::new(2 * PAGE_BYTES as u64 - 2), &mut bytes).unwrap();
        assert_eq!(bytes, [1, 1, 2, 2]);
        assert_eq!(copy.page_numbers().collect::<Vec<_>>(), [1, 2]);
        // Held pages need no memory any more.
        copy.read(&Snapshot::new(), RemoteAddr::new(PAGE_BYTES as u64), &mut bytes).unwrap();
    }

    #[test]
    fn refilling_leaves_out_what_cannot_be_read() {
        let (memory, mut copy) = (memory(), PageCopy::new());
        copy.refill(&memory, &[1, 3, 4, 5]).unwrap();
        assert_eq!(copy.page_numbers().collect::<Vec<_>>(), [1, 5]);
        let mut byte = [0];
        copy.read(&Snapshot::new(), RemoteAddr::new(5 * PAGE_BYTES as u64), &mut byte).unwrap();
        assert_eq!(byte, [5]);
        assert!(copy.read(&memory, RemoteAddr::new(3 * PAGE_BYTES as u64), &mut byte).is_err());
    }
}
