//! Files as the symbolizer sees them: bytes at an offset. The caller opens, checks and reads them.

use std::sync::Arc;

/// A file of which any part can be read. Reads must not block for long: they happen when a name is asked for.
pub trait ReadAt {
    /// The size of the file in bytes.
    fn size(&self) -> u64;

    /// Fills `into` with the bytes at `offset`; returns whether all of them could be read.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> bool;
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> bool {
        let start = usize::try_from(offset).ok();
        let bytes = start.and_then(|start| self.get(start..start.checked_add(into.len())?));
        bytes.map(|bytes| into.copy_from_slice(bytes)).is_some()
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.as_slice().size()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> bool {
        self.as_slice().read_at(offset, into)
    }
}

impl<F: ReadAt + ?Sized> ReadAt for Arc<F> {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> bool {
        (**self).read_at(offset, into)
    }
}

impl<F: ReadAt + ?Sized> ReadAt for &F {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> bool {
        (**self).read_at(offset, into)
    }
}
