//! Memory that is read a page at a time and kept for a moment: many small reads of neighbouring objects become
//! few large ones.
//!
//! Only for what does not change meanwhile, or is verified afterwards without this.

use std::cell::RefCell;

use profiler_model::RemoteAddr;

use crate::{PageCopy, ReadError, ReadMemory};

/// What the hardware calls a page: the most that one look-up of the kernel gets.
const AHEAD_BYTES: usize = 4096;

/// The pages that were read ahead; their storage is kept when they are forgotten.
#[derive(Debug)]
pub struct AheadPages(RefCell<PageCopy>);

impl Default for AheadPages {
    fn default() -> Self {
        AheadPages(RefCell::new(PageCopy::with_page_bytes(AHEAD_BYTES)))
    }
}

impl AheadPages {
    /// Forgets all pages, and reads `memory` through new ones.
    pub fn renewed<'a, M>(&'a self, memory: &'a M) -> ReadAhead<'a, M> {
        self.0.borrow_mut().clear();
        ReadAhead { memory, pages: &self.0 }
    }
}

/// A memory read through [`AheadPages`].
#[derive(Debug)]
pub struct ReadAhead<'a, M> {
    memory: &'a M,
    pages: &'a RefCell<PageCopy>,
}

impl<M: ReadMemory> ReadMemory for ReadAhead<'_, M> {
    fn read(&self, at: RemoteAddr, into: &mut [u8]) -> Result<(), ReadError> {
        match into.len() {
            // What fills a page by itself gains nothing.
            AHEAD_BYTES.. => self.memory.read(at, into),
            // A page that cannot be read as a whole (of a core file, say) may still hold what is wanted.
            _ => match self.pages.borrow_mut().read(self.memory, at, into) {
                Err(ReadError::Unmapped(_)) => self.memory.read(at, into),
                result => result,
            },
        }
    }
}
