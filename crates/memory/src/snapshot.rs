//! Stored memory: ranges of bytes by address, small enough to be kept beside the tests.
//!
//! The stored form is little-endian: the magic `PMEM1\n`, then for each range its address (u64), its
//! length (u32) and its bytes, ordered by address, without overlaps. It holds what a walk looked at and
//! nothing else of the process. Whoever reads whole pages at once ([`crate::PageCopy`]) asks for more than
//! that: [`Snapshot::with_whole_pages`] puts zeros around what is known.

use std::collections::BTreeMap;
use std::ops::Bound;

use profiler_model::RemoteAddr;

use crate::{PAGE_BYTES, ReadError, ReadMemory};

const MAGIC: &[u8; 6] = b"PMEM1\n";

/// Ranges of a process's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By start address; ranges neither overlap nor touch.
    ranges: BTreeMap<u64, Vec<u8>>,
}

/// Why stored bytes are no snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The magic at the start is missing.
    #[error("this is no memory snapshot")]
    NotASnapshot,
    /// A range is cut short.
    #[error("the snapshot is cut short")]
    Truncated,
}

impl Snapshot {
    /// An empty snapshot.
    pub fn new() -> Self {
        Snapshot::default()
    }

    /// Adds the bytes at `at`; where some are there already, the first ones stay. Ranges that overlap or
    /// touch become one.
    pub fn insert(&mut self, at: RemoteAddr, bytes: &[u8]) {
        let Some(mut end) = at.as_u64().checked_add(bytes.len() as u64) else { return };
        let mut start = at.as_u64();
        let mut merged = bytes.to_vec();
        let touching: Vec<u64> = self
            .ranges
            .range(..=end)
            .rev()
            .take_while(|(s, b)| **s + b.len() as u64 >= start)
            .map(|(s, _)| *s)
            .collect();
        for key in touching {
            let Some(old) = self.ranges.remove(&key) else { continue };
            let old_end = key + old.len() as u64;
            let joined_start = start.min(key);
            let joined_end = end.max(old_end);
            let mut joined = vec![0; (joined_end - joined_start) as usize];
            joined[(start - joined_start) as usize..(end - joined_start) as usize].copy_from_slice(&merged);
            joined[(key - joined_start) as usize..(old_end - joined_start) as usize].copy_from_slice(&old);
            (start, end, merged) = (joined_start, joined_end, joined);
        }
        self.ranges.insert(start, merged);
    }

    /// The ranges, by address.
    pub fn ranges(&self) -> impl Iterator<Item = (RemoteAddr, &[u8])> {
        self.ranges.iter().map(|(start, bytes)| (RemoteAddr::new(*start), bytes.as_slice()))
    }

    /// Changes stored bytes, as far as there are some at `at`: what fuzzing does.
    pub fn overwrite(&mut self, at: RemoteAddr, bytes: &[u8]) {
        let Some((start, range)) = self.ranges.range_mut(..=at.as_u64()).next_back() else { return };
        let Some(skip) = usize::try_from(at.as_u64() - start).ok().filter(|skip| *skip < range.len()) else {
            return;
        };
        for (stored, byte) in range[skip..].iter_mut().zip(bytes) {
            *stored = *byte;
        }
    }

    /// Removes up to `length` bytes from `at` on, of the one range that holds the byte at `at`: memory that
    /// is mapped no more.
    pub fn remove(&mut self, at: RemoteAddr, length: usize) {
        let Some((start, range)) = self.ranges.range_mut(..=at.as_u64()).next_back() else { return };
        let start = *start;
        let Some(skip) = usize::try_from(at.as_u64() - start).ok().filter(|skip| *skip < range.len()) else {
            return;
        };
        let mut removed = range.split_off(skip);
        let behind = removed.split_off(length.min(removed.len()));
        if skip == 0 {
            self.ranges.remove(&start);
        }
        if !behind.is_empty() {
            self.ranges.insert(at.as_u64() + removed.len() as u64, behind);
        }
    }

    /// The snapshot with every page that it has a part of, filled up with zeros.
    pub fn with_whole_pages(&self) -> Snapshot {
        const PAGE: u64 = PAGE_BYTES as u64;
        let mut whole = self.clone();
        for (start, bytes) in &self.ranges {
            let first = start / PAGE;
            let last = (start + bytes.len() as u64).div_ceil(PAGE);
            for page in first..last {
                whole.insert(RemoteAddr::new(page.wrapping_mul(PAGE)), &[0; PAGE_BYTES]);
            }
        }
        whole
    }

    /// The stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for (start, bytes) in &self.ranges {
            out.extend_from_slice(&start.to_le_bytes());
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        }
        out
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When `stored` is no snapshot or is cut short.
    pub fn from_bytes(stored: &[u8]) -> Result<Self, SnapshotError> {
        let mut rest = stored.strip_prefix(MAGIC).ok_or(SnapshotError::NotASnapshot)?;
        let mut snapshot = Snapshot::new();
        while !rest.is_empty() {
            let (start, after) = rest.split_first_chunk::<8>().ok_or(SnapshotError::Truncated)?;
            let (length, after) = after.split_first_chunk::<4>().ok_or(SnapshotError::Truncated)?;
            let length = u32::from_le_bytes(*length) as usize;
            let (bytes, after) = after.split_at_checked(length).ok_or(SnapshotError::Truncated)?;
            snapshot.insert(RemoteAddr::new(u64::from_le_bytes(*start)), bytes);
            rest = after;
        }
        Ok(snapshot)
    }
}

impl ReadMemory for Snapshot {
    fn read(&self, at: RemoteAddr, into: &mut [u8]) -> Result<(), ReadError> {
        let unmapped = ReadError::Unmapped(at);
        let (start, bytes) = self
            .ranges
            .range((Bound::Unbounded, Bound::Included(at.as_u64())))
            .next_back()
            .ok_or(unmapped)?;
        let skip = usize::try_from(at.as_u64() - start).map_err(|_| unmapped)?;
        let end = skip.checked_add(into.len()).ok_or(unmapped)?;
        into.copy_from_slice(bytes.get(skip..end).ok_or(unmapped)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(value: u64) -> RemoteAddr {
        RemoteAddr::new(value)
    }

    #[test]
    fn overlapping_and_touching_ranges_become_one() {
        let mut snapshot = Snapshot::new();
        snapshot.insert(at(100), b"abcd");
        snapshot.insert(at(108), b"ijkl");
        snapshot.insert(at(102), b"cdefghij");
        assert_eq!(snapshot.ranges().collect::<Vec<_>>(), [(at(100), b"abcdefghijkl".as_slice())]);
        let mut three = [0; 3];
        snapshot.read(at(103), &mut three).unwrap();
        assert_eq!(&three, b"def");
        assert_eq!(snapshot.read(at(110), &mut three), Err(ReadError::Unmapped(at(110))));
    }

    #[test]
    fn whole_pages_keep_what_is_known() {
        let mut snapshot = Snapshot::new();
        snapshot.insert(at(0x1000 + 1020), &[1; 8]);
        snapshot.insert(at(0x1000 + 2040), &[2; 4]);
        let mut expected = vec![0; 2048];
        expected[1020..1028].fill(1);
        expected[2040..2044].fill(2);
        let whole = snapshot.with_whole_pages();
        assert_eq!(whole.ranges().collect::<Vec<_>>(), [(at(0x1000), expected.as_slice())]);
    }

    #[test]
    fn bytes_are_changed_and_removed_where_there_are_some() {
        let mut snapshot = Snapshot::new();
        snapshot.insert(at(100), b"abcdefgh");
        snapshot.overwrite(at(106), b"XYZ");
        snapshot.overwrite(at(108), b"XYZ");
        snapshot.overwrite(at(99), b"XYZ");
        snapshot.remove(at(102), 2);
        let left = [(at(100), b"ab".as_slice()), (at(104), b"efXY")];
        assert_eq!(snapshot.ranges().collect::<Vec<_>>(), left);
        snapshot.remove(at(100), 1);
        snapshot.remove(at(104), 100);
        snapshot.remove(at(104), 100);
        assert_eq!(snapshot.ranges().collect::<Vec<_>>(), [(at(101), b"b".as_slice())]);
    }

    #[test]
    fn stored_form_comes_back_whole_and_rejects_cuts() {
        let mut snapshot = Snapshot::new();
        snapshot.insert(at(0x1000), &[1, 2, 3]);
        snapshot.insert(at(0x2000), &[4; 100]);
        let stored = snapshot.to_bytes();
        assert_eq!(Snapshot::from_bytes(&stored), Ok(snapshot));
        assert_eq!(Snapshot::from_bytes(&stored[..stored.len() - 1]), Err(SnapshotError::Truncated));
        assert_eq!(Snapshot::from_bytes(b"other"), Err(SnapshotError::NotASnapshot));
    }
}
