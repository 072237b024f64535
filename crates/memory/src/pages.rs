//! A local copy of the pages of foreign memory that one walk touches.
//!
//! Frames often lie close together: reading the page around the first answers for its neighbours without a
//! further system call. And a walk mostly touches the pages that the walk before it touched, so these are
//! fetched in one batch up front. A copy is of one instant: clear it before the next.

use profiler_model::RemoteAddr;
use rustc_hash::FxHashMap;

use crate::{ReadError, ReadMemory, ReadRequest};

/// Bytes of what is called a page here, unless a copy is made for another size: a quarter of what the
/// hardware calls one. It holds ten frames.
pub const PAGE_BYTES: usize = 1024;

/// The largest page: that of the hardware, so that a page is readable as a whole or not at all.
const MAX_PAGE_BYTES: usize = 4096;

/// A walk that touches more pages than this is not predicted: it would not be the same ones again.
const MAX_PREDICTED_PAGES: usize = 1024;

/// A local copy of pages, filled as they are asked for.
pub struct PageCopy {
    page_bytes: usize,
    /// The slot in `slots` of each page, by number. Not in order: a deep stack touches thousands of pages, one
    /// after the other, while a thread stands still.
    index: FxHashMap<u64, u32>,
    /// Storage of one page after the other, kept over instants; the first `used` are filled.
    slots: Vec<u8>,
    used: usize,
    /// Whether something in the page was asked for, by slot.
    asked_for: Vec<bool>,
    /// The page that was asked for last: mostly it is asked for again.
    last: Option<(u64, u32)>,
}

impl Default for PageCopy {
    fn default() -> Self {
        PageCopy::with_page_bytes(PAGE_BYTES)
    }
}

impl PageCopy {
    /// An empty copy.
    pub fn new() -> Self {
        PageCopy::default()
    }

    /// An empty copy in pages of this size, rounded up to a power of two and at most what the hardware calls
    /// a page. Each page costs the kernel a look-up, whatever its size, and each byte a copy from memory that
    /// this CPU does not have in its cache: what is needed of a page should fill it.
    pub fn with_page_bytes(page_bytes: usize) -> Self {
        let page_bytes = page_bytes.next_power_of_two().min(MAX_PAGE_BYTES);
        PageCopy {
            page_bytes,
            index: FxHashMap::default(),
            slots: Vec::new(),
            used: 0,
            asked_for: Vec::new(),
            last: None,
        }
    }

    /// The number of the page that holds the byte at `at`.
    pub fn page_number(&self, at: RemoteAddr) -> u64 {
        at.as_u64() / self.page_bytes as u64
    }

    fn page_address(&self, number: u64) -> RemoteAddr {
        RemoteAddr::new(number.wrapping_mul(self.page_bytes as u64))
    }

    /// Forgets all pages, so that they are read anew.
    pub fn clear(&mut self) {
        self.index.clear();
        self.asked_for[..self.used].fill(false);
        self.used = 0;
        self.last = None;
    }

    /// The numbers of the pages that something was read from, in order: not of those that were only fetched
    /// in case they would be.
    pub fn read_pages(&self) -> Vec<u64> {
        let is_read = |slot: u32| self.asked_for.get(slot as usize).is_some_and(|asked| *asked);
        let read = self.index.iter().filter(|(_, slot)| is_read(**slot)).map(|(number, _)| *number);
        let mut numbers: Vec<u64> = read.collect();
        numbers.sort_unstable();
        numbers
    }

    /// Whether the page with the byte at `at` is held.
    pub fn holds(&self, at: RemoteAddr) -> bool {
        self.index.contains_key(&self.page_number(at))
    }

    /// Forgets all pages and reads those with these `numbers` in one batch, see [`PageCopy::prefetch`].
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn refill(&mut self, memory: &impl ReadMemory, numbers: &[u64]) -> Result<(), ReadError> {
        self.clear();
        self.prefetch(memory, predictable(numbers))
    }

    /// The same, with other things read before the pages in the same batch.
    ///
    /// # Errors
    /// When one of those cannot be read, or nothing of the process can.
    pub fn refill_after(
        &mut self,
        memory: &impl ReadMemory,
        before: Vec<ReadRequest<'_>>,
        numbers: &[u64],
    ) -> Result<(), ReadError> {
        self.clear();
        let places: Vec<RemoteAddr> = before.iter().map(|request| request.at).collect();
        let pieces: Vec<&[u64]> = pieces(predictable(numbers)).collect();
        let filled = self.read_pieces(memory, before, &pieces)?;
        if let Some(unread) = places.get(filled) {
            return Err(ReadError::Unmapped(*unread));
        }
        // What stands behind the piece at which the batch ended is read when it is asked for.
        Ok(())
    }

    /// Reads the pages with these `numbers` (in order, without repeats) that are not held, in one batch.
    /// Those that cannot be read are left out, with the neighbours that were to be read with them.
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn prefetch(&mut self, memory: &impl ReadMemory, numbers: &[u64]) -> Result<(), ReadError> {
        let missing: Vec<u64> =
            numbers.iter().copied().filter(|number| !self.index.contains_key(number)).collect();
        let mut pieces: &[&[u64]] = &pieces(&missing).collect::<Vec<_>>();
        while !pieces.is_empty() {
            let filled = self.read_pieces(memory, Vec::new(), pieces)?;
            // The one at which the batch ended cannot be read.
            pieces = pieces.get(filled + 1..).unwrap_or_default();
        }
        Ok(())
    }

    /// Reads `before` and then runs of neighbouring pages in one batch; returns how many of all these were
    /// read.
    fn read_pieces<'a>(
        &'a mut self,
        memory: &impl ReadMemory,
        before: Vec<ReadRequest<'a>>,
        pieces: &[&[u64]],
    ) -> Result<usize, ReadError> {
        let first = self.used;
        self.reserve(first + pieces.iter().map(|piece| piece.len()).sum::<usize>());
        let addresses: Vec<RemoteAddr> = pieces.iter().map(|piece| self.page_address(piece[0])).collect();
        let skip = before.len();
        let mut rest = &mut self.slots[first * self.page_bytes..];
        let mut requests = before;
        for (piece, at) in pieces.iter().zip(addresses) {
            let (into, after) = rest.split_at_mut(piece.len() * self.page_bytes);
            requests.push(ReadRequest::new(at, into));
            rest = after;
        }
        let filled = memory.read_batch(&mut requests)?;
        for number in pieces[..filled.saturating_sub(skip)].iter().copied().flatten() {
            self.add(*number);
        }
        Ok(filled)
    }

    /// Puts bytes into the copy that were got elsewhere. What else lies on their pages counts as held too, and
    /// reads as zeroes: only for readers that know what was put.
    pub fn put(&mut self, at: RemoteAddr, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let here = at.offset(done as u64);
            let start = (here.as_u64() % self.page_bytes as u64) as usize;
            let length = (bytes.len() - done).min(self.page_bytes - start);
            let slot = self.page_to_put(self.page_number(here)) as usize * self.page_bytes;
            self.slots[slot + start..slot + start + length].copy_from_slice(&bytes[done..done + length]);
            done += length;
        }
    }

    fn page_to_put(&mut self, number: u64) -> u32 {
        if let Some(slot) = self.index.get(&number) {
            return *slot;
        }
        self.reserve(self.used + 1);
        let start = self.used * self.page_bytes;
        self.slots[start..start + self.page_bytes].fill(0);
        self.add(number)
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
            let here = at.offset(done as u64);
            let start = (here.as_u64() % self.page_bytes as u64) as usize;
            let length = (into.len() - done).min(self.page_bytes - start);
            let slot = self.page(memory, self.page_number(here))? as usize * self.page_bytes;
            into[done..done + length].copy_from_slice(&self.slots[slot + start..slot + start + length]);
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
        let slot = match self.index.get(&number) {
            Some(slot) => *slot,
            None => {
                self.reserve(self.used + 1);
                let start = self.used * self.page_bytes;
                memory.read(self.page_address(number), &mut self.slots[start..start + self.page_bytes])?;
                self.add(number)
            }
        };
        self.last = Some((number, slot));
        self.asked_for[slot as usize] = true;
        Ok(slot)
    }

    /// Counts the next slot as filled with the page of this number; returns the slot.
    fn add(&mut self, number: u64) -> u32 {
        let slot = self.used as u32;
        self.index.insert(number, slot);
        self.used += 1;
        slot
    }

    fn reserve(&mut self, pages: usize) {
        if self.slots.len() < pages * self.page_bytes {
            // In steps that grow, as what is there is moved each time.
            let pages = pages.max(self.asked_for.len() * 2);
            self.slots.resize(pages * self.page_bytes, 0);
            self.asked_for.resize(pages, false);
        }
    }
}

/// The pages to be predicted: none where there are too many.
fn predictable(numbers: &[u64]) -> &[u64] {
    if numbers.len() > MAX_PREDICTED_PAGES { &[] } else { numbers }
}

/// Runs of neighbouring pages, each of which is read as one piece.
fn pieces(numbers: &[u64]) -> impl Iterator<Item = &[u64]> {
    numbers.chunk_by(|one, next| one + 1 == *next)
}

impl std::fmt::Debug for PageCopy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PageCopy of {} pages", self.used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Snapshot;

    fn held(copy: &PageCopy) -> Vec<u64> {
        let mut numbers: Vec<u64> = copy.index.keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }

    fn memory() -> Snapshot {
        let mut memory = Snapshot::new();
        for number in [1u64, 2, 5] {
            memory.insert(RemoteAddr::new(number * PAGE_BYTES as u64), &[number as u8; PAGE_BYTES]);
        }
        memory
    }

    #[test]
    fn reads_across_pages_and_keeps_them() {
        let (memory, mut copy) = (memory(), PageCopy::new());
        let mut bytes = [0; 4];
        copy.read(&memory, RemoteAddr::new(2 * PAGE_BYTES as u64 - 2), &mut bytes).unwrap();
        assert_eq!(bytes, [1, 1, 2, 2]);
        assert_eq!(copy.read_pages(), [1, 2]);
        // Held pages need no memory any more.
        copy.read(&Snapshot::new(), RemoteAddr::new(PAGE_BYTES as u64), &mut bytes).unwrap();
    }

    #[test]
    fn neighbours_are_read_together() {
        let (memory, mut copy) = (memory(), PageCopy::new());
        copy.refill(&memory, &[1, 2, 4, 5]).unwrap();
        assert_eq!(held(&copy), [1, 2]);
        let mut bytes = [0; 1];
        copy.read(&Snapshot::new(), RemoteAddr::new(2 * PAGE_BYTES as u64), &mut bytes).unwrap();
        assert_eq!(bytes, [2]);
        // What was fetched in vain is not worth fetching again.
        assert_eq!(copy.read_pages(), [2]);
        let mut bytes = [0; 2];
        copy.read(&Snapshot::new(), RemoteAddr::new(2 * PAGE_BYTES as u64 - 1), &mut bytes).unwrap();
        assert_eq!(bytes, [1, 2]);
        // Its neighbour cannot be read, but it can.
        copy.read(&memory, RemoteAddr::new(5 * PAGE_BYTES as u64), &mut bytes).unwrap();
        assert_eq!(bytes, [5, 5]);
    }

    #[test]
    fn refilling_leaves_out_what_cannot_be_read() {
        let (memory, mut copy) = (memory(), PageCopy::new());
        copy.refill(&memory, &[1, 3, 5]).unwrap();
        assert_eq!(held(&copy), [1, 5]);
        let mut byte = [0];
        copy.read(&Snapshot::new(), RemoteAddr::new(5 * PAGE_BYTES as u64), &mut byte).unwrap();
        assert_eq!(byte, [5]);
        assert!(copy.read(&memory, RemoteAddr::new(3 * PAGE_BYTES as u64), &mut byte).is_err());
    }
}
