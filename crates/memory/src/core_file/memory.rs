//! The memory of a core file: its segments, and behind them the files that were mapped. Cores leave out what
//! is the same in a file: code and constants.

use std::ops::Deref;

use profiler_model::RemoteAddr;

use super::identity::constant_pieces;
use super::{CoreFile, CoreMapping};
use crate::{ReadError, ReadMemory};

/// The memory that a process had. `B` holds the bytes of a file.
#[derive(Debug)]
pub struct CoreMemory<B> {
    /// What the core says.
    pub file: CoreFile,
    bytes: B,
    mapped: Vec<B>,
    /// What can be read from mapped files, by address; pieces do not overlap.
    constants: Vec<Constant>,
}

/// A piece of memory that is as it is in a file.
#[derive(Clone, Copy, Debug)]
struct Constant {
    start: RemoteAddr,
    end: RemoteAddr,
    file_index: usize,
    file_offset: u64,
}

impl<B: Deref<Target = [u8]>> CoreMemory<B> {
    /// The memory of the core `file`, which was parsed from `bytes`.
    pub fn new(file: CoreFile, bytes: B) -> Self {
        CoreMemory { file, bytes, mapped: Vec::new(), constants: Vec::new() }
    }

    /// The bytes that the core itself has of the memory from `at` on, up to the end of the segment.
    pub fn in_core(&self, at: RemoteAddr) -> &[u8] {
        self.file.bytes_at(&self.bytes, at)
    }

    /// Lets what the core left out be read from `file`, which was mapped so. Only from those parts of an ELF
    /// file that are never written to; that it is still the same file is for the caller to know
    /// ([`super::compare`]). Returns its number.
    pub fn add_file(&mut self, mappings: &[CoreMapping], file: B) -> usize {
        let file_index = self.mapped.len();
        for (offset, length, _) in constant_pieces(&file) {
            let pieces = mappings.iter().filter_map(|mapping| {
                let size = mapping.end.checked_distance_from(mapping.start)?;
                let first = offset.max(mapping.file_offset);
                let last = offset.checked_add(length)?.min(mapping.file_offset.checked_add(size)?);
                let at = |offset: u64| mapping.start.offset(offset - mapping.file_offset);
                let (start, end) = (first < last).then(|| (at(first), at(last)))?;
                Some(Constant { start, end, file_index, file_offset: first })
            });
            self.constants.extend(pieces);
        }
        self.constants.sort_by_key(|constant| constant.start);
        self.mapped.push(file);
        file_index
    }

    /// The bytes of a file that was added.
    pub fn mapped_file(&self, index: usize) -> &[u8] {
        self.mapped.get(index).map(|file| &**file).unwrap_or_default()
    }

    /// Whether the mapped file can be executed where it is mapped so: as the core says, or where it left
    /// that piece out, as the file says.
    pub fn is_executable(&self, mapping: &CoreMapping, file_index: Option<usize>) -> bool {
        match (self.file.segment(mapping.start), file_index) {
            (Some(segment), _) => segment.executable,
            // What is left out is code or constants; of a file that is gone, nothing tells which.
            (None, None) => true,
            (None, Some(index)) => {
                constant_pieces(self.mapped_file(index)).into_iter().any(|(offset, length, executable)| {
                    let end = offset.saturating_add(length);
                    executable && (offset & !0xfff..end).contains(&mapping.file_offset)
                })
            }
        }
    }

    /// The bytes that are known from `at` on; at least one, or none where nothing is known.
    fn known(&self, at: RemoteAddr) -> Option<&[u8]> {
        let in_core = self.in_core(at);
        if !in_core.is_empty() {
            return Some(in_core);
        }
        let behind = self.constants.partition_point(|constant| constant.start <= at);
        let constant = self.constants[..behind].last().filter(|constant| at < constant.end)?;
        let skip = at.checked_distance_from(constant.start)?;
        let length = constant.end.checked_distance_from(at)?;
        let first = usize::try_from(constant.file_offset.checked_add(skip)?).ok()?;
        let rest = self.mapped.get(constant.file_index)?.get(first..)?;
        let length = usize::try_from(length).map_or(rest.len(), |length| length.min(rest.len()));
        Some(&rest[..length]).filter(|bytes| !bytes.is_empty())
    }
}

impl<B: Deref<Target = [u8]>> ReadMemory for CoreMemory<B> {
    fn read(&self, at: RemoteAddr, into: &mut [u8]) -> Result<(), ReadError> {
        let mut filled = 0;
        while filled < into.len() {
            let known = self.known(at.offset(filled as u64)).ok_or(ReadError::Unmapped(at))?;
            let length = known.len().min(into.len() - filled);
            into[filled..filled + length].copy_from_slice(&known[..length]);
            filled += length;
        }
        Ok(())
    }
}
