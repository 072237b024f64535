//! A copy of the top of a thread's stack, to unwind when the thread runs on.

use profiler_memory::{ReadError, ReadMemory, ReadRequest};
use profiler_model::RemoteAddr;

/// Pieces that are read: a piece that cannot be read ends the copy.
const PIECE_BYTES: usize = 4096;

/// What is copied at first of each stack.
pub const FIRST_COPY_BYTES: usize = 16 * PIECE_BYTES;

/// The most that is copied of a stack.
pub const MAX_COPY_BYTES: usize = 256 * PIECE_BYTES;

/// The top of a stack. Its room is made before a thread is stopped, and used again.
#[derive(Debug, Default)]
pub struct StackCopy {
    start: RemoteAddr,
    room: Vec<u8>,
    copied: usize,
    /// The end of the stack, if it was met.
    stack_end: Option<RemoteAddr>,
}

impl StackCopy {
    /// Makes room for `length` bytes, up to the end of a page. Behind `stack_end`, if that is known, nothing is read: memory that is
    /// not there takes long to read.
    pub fn make_room(&mut self, length: usize, stack_end: Option<RemoteAddr>) {
        let pages = length.min(MAX_COPY_BYTES) / PIECE_BYTES + 1;
        self.room.resize(pages * PIECE_BYTES, 0);
        (self.copied, self.stack_end) = (0, stack_end);
    }

    /// Where the stack was found to end, at this copy or before.
    pub fn stack_end(&self) -> Option<RemoteAddr> {
        self.stack_end
    }

    /// Copies what there is room for from `start` on, or as much as can be read.
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn copy_from(&mut self, memory: &impl ReadMemory, start: RemoteAddr) -> Result<(), ReadError> {
        (self.start, self.copied) = (start, 0);
        let to_page_end = PIECE_BYTES - start.as_u64() as usize % PIECE_BYTES;
        let Some((first, rest)) = self.room.split_at_mut_checked(to_page_end) else { return Ok(()) };
        // Another stack may lie anywhere.
        let left = self.stack_end.and_then(|end| end.checked_distance_from(start));
        let left = left.filter(|left| *left > 0).and_then(|left| usize::try_from(left).ok());
        let wanted = left.map_or(rest.len(), |left| rest.len().min(left.saturating_sub(to_page_end)));
        let rest = &mut rest[..wanted];

        let mut requests = Vec::with_capacity(1 + rest.len() / PIECE_BYTES);
        requests.push(ReadRequest::new(start, first));
        let pages = rest.chunks_exact_mut(PIECE_BYTES).enumerate();
        requests.extend(pages.map(|(number, piece)| {
            let skipped = to_page_end + number * PIECE_BYTES;
            ReadRequest::new(start.offset(skipped as u64), piece)
        }));
        let read = memory.read_batch(&mut requests)?;
        let is_cut = read > 0 && read < requests.len();
        self.copied = if read == 0 { 0 } else { to_page_end + (read - 1) * PIECE_BYTES };
        if is_cut {
            self.stack_end = Some(self.end());
        }
        Ok(())
    }

    /// The first address that was not copied.
    pub fn end(&self) -> RemoteAddr {
        self.start.offset(self.copied as u64)
    }
}

impl ReadMemory for StackCopy {
    fn read(&self, at: RemoteAddr, into: &mut [u8]) -> Result<(), ReadError> {
        let piece = at.checked_distance_from(self.start).and_then(|skipped| {
            let skipped = usize::try_from(skipped).ok()?;
            self.room[..self.copied].get(skipped..skipped.checked_add(into.len())?)
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

    fn copied(memory: &Snapshot, start: RemoteAddr) -> StackCopy {
        let mut copy = StackCopy::default();
        copy.make_room(FIRST_COPY_BYTES, None);
        copy.copy_from(memory, start).unwrap();
        copy
    }

    #[test]
    fn room_is_used_again() {
        let mut memory = Snapshot::new();
        memory.insert(at(0x1000), &[7; 3 * PIECE_BYTES]);
        let mut copy = copied(&memory, at(0x1000));
        assert_eq!(copy.end(), at(0x4000));
        copy.make_room(0, None);
        copy.copy_from(&memory, at(0x1ff8)).unwrap();
        assert_eq!(copy.end(), at(0x2000), "up to the end of its page");
        assert!(copy.copy_from(&memory, at(0x9000)).is_ok() && copy.end() == at(0x9000));
    }

    #[test]
    fn copy_ends_with_the_stack() {
        let mut memory = Snapshot::new();
        memory.insert(at(0x1000), &[7; 2 * PIECE_BYTES]);
        let copy = copied(&memory, at(0x1ff0));
        assert_eq!(copy.end(), at(0x3000));
        let mut word = [0; 8];
        copy.read(at(0x2ff8), &mut word).unwrap();
        assert_eq!(word, [7; 8]);
        assert_eq!(copy.read(at(0x2ff9), &mut word), Err(ReadError::Unmapped(at(0x2ff9))));
        assert_eq!(copy.read(at(0x1fef), &mut word), Err(ReadError::Unmapped(at(0x1fef))));
    }

    #[test]
    fn nothing_is_read_behind_a_known_end() {
        let mut memory = Snapshot::new();
        memory.insert(at(0x1000), &[7; 2 * PIECE_BYTES]);
        let mut copy = copied(&memory, at(0x1ff0));
        assert_eq!(copy.stack_end(), Some(at(0x3000)));
        copy.make_room(FIRST_COPY_BYTES, copy.stack_end());
        // Should there be something by now, it is another mapping's.
        memory.insert(at(0x3000), &[8; PIECE_BYTES]);
        copy.copy_from(&memory, at(0x1ff0)).unwrap();
        assert_eq!(copy.end(), at(0x3000));
        memory.insert(at(0x9000), &[9; 2 * PIECE_BYTES]);
        copy.make_room(FIRST_COPY_BYTES, Some(at(0x3000)));
        copy.copy_from(&memory, at(0x9ff8)).unwrap();
        assert_eq!(copy.end(), at(0xb000), "of another stack");
    }

    #[test]
    fn stack_pointer_to_nowhere_copies_nothing() {
        for start in [0, 0x1234, u64::MAX - 3] {
            let copy = copied(&Snapshot::new(), at(start));
            assert_eq!(copy.end(), at(start));
        }
    }
}
