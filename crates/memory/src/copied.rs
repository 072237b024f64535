//! Memory that is copied page by page as it is read: many small reads of neighbouring objects become few large
//! ones, and what was read once can be read again later as it was.

use std::cell::RefCell;

use profiler_model::RemoteAddr;

use crate::{PageCopy, ReadError, ReadMemory};

/// Names and small tables mostly fit into one such page, and what else is copied with them is little.
const COPIED_PAGE_BYTES: usize = 256;

/// The pages that were copied.
#[derive(Debug)]
pub struct CopiedPages(RefCell<PageCopy>);

impl Default for CopiedPages {
    fn default() -> Self {
        CopiedPages(RefCell::new(PageCopy::with_page_bytes(COPIED_PAGE_BYTES)))
    }
}

impl CopiedPages {
    /// No pages.
    pub fn new() -> Self {
        CopiedPages::default()
    }

    /// Reads `memory`, copying each page that is touched.
    pub fn copying<'a, M>(&'a self, memory: &'a M) -> Copying<'a, M> {
        Copying { memory, pages: &self.0 }
    }

    /// Puts bytes into the copy that were got elsewhere, see [`PageCopy::put`].
    pub fn put(&self, at: RemoteAddr, bytes: &[u8]) {
        self.0.borrow_mut().put(at, bytes);
    }

    /// Copies the pages that these pieces, given by place and length, touch; in one batch.
    ///
    /// # Errors
    /// When nothing of the process can be read any more. What cannot be read is left out.
    pub fn copy(
        &self,
        memory: &impl ReadMemory,
        pieces: impl Iterator<Item = (RemoteAddr, usize)>,
    ) -> Result<(), ReadError> {
        let mut pages = self.0.borrow_mut();
        let mut numbers: Vec<u64> =
            pieces.flat_map(|(at, length)| page_numbers(&pages, at, length)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        pages.prefetch(memory, &numbers)
    }
}

fn page_numbers(pages: &PageCopy, at: RemoteAddr, length: usize) -> std::ops::RangeInclusive<u64> {
    let last = at.offset(length.saturating_sub(1) as u64);
    pages.page_number(at)..=pages.page_number(last).max(pages.page_number(at))
}

/// What was copied, and nothing else.
impl ReadMemory for CopiedPages {
    fn read(&self, at: RemoteAddr, into: &mut [u8]) -> Result<(), ReadError> {
        self.0.borrow_mut().read(&Nothing, at, into)
    }
}

/// Memory of which nothing can be read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nothing;

impl ReadMemory for Nothing {
    fn read(&self, at: RemoteAddr, _: &mut [u8]) -> Result<(), ReadError> {
        Err(ReadError::Unmapped(at))
    }
}

/// A memory read through [`CopiedPages`].
#[derive(Debug)]
pub struct Copying<'a, M> {
    memory: &'a M,
    pages: &'a RefCell<PageCopy>,
}

impl<M: ReadMemory> ReadMemory for Copying<'_, M> {
    fn read(&self, at: RemoteAddr, into: &mut [u8]) -> Result<(), ReadError> {
        let mut pages = self.pages.borrow_mut();
        let numbers = page_numbers(&pages, at, into.len());
        if numbers.clone().count() > 1 {
            let numbers: Vec<u64> = numbers.collect();
            pages.prefetch(self.memory, &numbers)?;
        }
        pages.read(self.memory, at, into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Snapshot;

    fn at(address: usize) -> RemoteAddr {
        RemoteAddr::new(address as u64)
    }

    #[test]
    fn what_was_copied_stays_as_it_was() {
        let mut memory = Snapshot::new();
        memory.insert(at(0x1000), &[7; 4 * COPIED_PAGE_BYTES]);
        let copied = CopiedPages::new();
        let mut bytes = [0; 3 * COPIED_PAGE_BYTES];
        copied.copying(&memory).read(at(0x1000), &mut bytes).unwrap();
        memory.overwrite(at(0x1000), &[9; 4 * COPIED_PAGE_BYTES]);
        copied.read(at(0x1000), &mut bytes).unwrap();
        assert_eq!(bytes, [7; 3 * COPIED_PAGE_BYTES]);
        let uncopied = at(0x1000 + 3 * COPIED_PAGE_BYTES);
        assert_eq!(copied.read(uncopied, &mut [0]), Err(ReadError::Unmapped(uncopied)));
    }

    #[test]
    fn pieces_are_copied_with_what_can_be_read_of_them() {
        let mut memory = Snapshot::new();
        memory.insert(at(0x1000), &[7; COPIED_PAGE_BYTES]);
        memory.insert(at(0x3000), &[8; COPIED_PAGE_BYTES]);
        let copied = CopiedPages::new();
        let pieces = [(at(0x3000), 10), (at(0x2000), 10), (at(0x1000 + COPIED_PAGE_BYTES - 1), 2)];
        copied.copy(&memory, pieces.into_iter()).unwrap();
        let mut byte = [0];
        copied.read(at(0x3000), &mut byte).unwrap();
        assert_eq!(byte, [8]);
        assert!(copied.read(at(0x2000), &mut byte).is_err());
    }
}
