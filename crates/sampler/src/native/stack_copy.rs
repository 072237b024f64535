//! A copy of the top of a thread's stack, to unwind when the thread runs on.

use profiler_memory::{ReadError, ReadMemory, ReadRequest};
use profiler_model::RemoteAddr;

/// Pieces that are read: a piece that cannot be read ends the copy.
const PIECE_BYTES: usize = 4096;

/// What is copied at first of each stack.
pub const FIRST_COPY_BYTES: usize = 16 * PIECE_BYTES;

/// The most that is copied of a stack.
pub const MAX_COPY_BYTES: usize = 256 * PIECE_BYTES;

/// The top of a stack.
#[derive(Clone, Debug, Default)]
pub struct StackCopy {
    start: RemoteAddr,
    bytes: Vec<u8>,
}

impl StackCopy {
    /// Copies `length` bytes from `start` on, up to the end of a page, or as many as can be read.
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn read(memory: &impl ReadMemory, start: RemoteAddr, length: usize) -> Result<Self, ReadError> {
        let to_page_end = PIECE_BYTES - start.as_u64() as usize % PIECE_BYTES;
        let mut bytes = vec![0; to_page_end + length.min(MAX_COPY_BYTES) / PIECE_BYTES * PIECE_BYTES];
        let (first, rest) = bytes.split_at_mut(to_page_end);
        let mut requests = vec![ReadRequest::new(start, first)];
        let pages = rest.chunks_mut(PIECE_BYTES).enumerate();
        requests.extend(pages.map(|(number, piece)| {
            let skipped = to_page_end + number * PIECE_BYTES;
            ReadRequest::new(start.offset(skipped as u64), piece)
        }));
        let read = memory.read_batch(&mut requests)?;
        let copied = if read == 0 { 0 } else { to_page_end + (read - 1) * PIECE_BYTES };
        bytes.truncate(copied);
        Ok(StackCopy { start, bytes })
    }

    /// The first address that was not copied.
    pub fn end(&self) -> RemoteAddr {
        self.start.offset(self.bytes.len() as u64)
    }
}

impl ReadMemory for StackCopy {
    fn read(&self, at: RemoteAddr, into: &mut [u8]) -> Result<(), ReadError> {
        let piece = at.checked_distance_from(self.start).and_then(|skipped| {
            let skipped = usize::try_from(skipped).ok()?;
            self.bytes.get(skipped..skipped.checked_add(into.len())?)
        });
        into.copy_from_slice(piece.ok_or(ReadError::Unmapped(at))?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use profiler_memory::Snapshot;

    use super::*;

    fn at(address: u64) -> RemoteAddr {
        RemoteAddr::new(address)
    }

    #[test]
    fn copy_ends_with_the_stack() {
        let mut memory = Snapshot::new();
        memory.insert(at(0x1000), &[7; 2 * PIECE_BYTES]);
        let copy = StackCopy::read(&memory, at(0x1ff0), FIRST_COPY_BYTES).unwrap();
        assert_eq!(copy.end(), at(0x3000));
        let mut word = [0; 8];
        copy.read(at(0x2ff8), &mut word).unwrap();
        assert_eq!(word, [7; 8]);
        assert_eq!(copy.read(at(0x2ff9), &mut word), Err(ReadError::Unmapped(at(0x2ff9))));
        assert_eq!(copy.read(at(0x1fef), &mut word), Err(ReadError::Unmapped(at(0x1fef))));
    }

    #[test]
    fn stack_pointer_to_nowhere_copies_nothing() {
        for start in [0, 0x1234, u64::MAX - 3] {
            let copy = StackCopy::read(&Snapshot::new(), at(start), FIRST_COPY_BYTES).unwrap();
            assert_eq!(copy.end(), at(start));
        }
    }
}
