//! Whether a file is still the one that was mapped when the core was made.
//!
//! A core has the first page of each ELF file that was mapped (bit 4 of `/proc/PID/coredump_filter`, on by
//! default), and the build-id stands in it.

use object::LittleEndian;
use object::elf;
use object::read::elf::{FileHeader, ProgramHeader};

use super::Header;
use super::notes::Note;

/// What comparing told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileMatch {
    /// It is the same build.
    Same,
    /// It is another one.
    Different,
    /// The core does not have the start of the file: nothing tells.
    Unknown,
}

/// Compares `file` with the start of the file that was mapped, as far as the core has it.
pub fn compare(start_in_core: &[u8], file: &[u8]) -> FileMatch {
    if start_in_core.is_empty() {
        return FileMatch::Unknown;
    }
    match (build_id(start_in_core), build_id(file)) {
        (Some(mapped), Some(found)) if mapped == found => FileMatch::Same,
        (Some(_), Some(_)) => FileMatch::Different,
        // A build without an id: its headers say at least where everything is.
        _ => match file.get(..start_in_core.len().min(FIRST_PAGE)) {
            Some(start) if start_in_core.starts_with(start) => FileMatch::Same,
            _ => FileMatch::Different,
        },
    }
}

/// As much of a file is compared that has no build-id.
const FIRST_PAGE: usize = 4096;

/// The build-id of an ELF file of which at least the start is there.
fn build_id(file: &[u8]) -> Option<&[u8]> {
    let header = Header::parse(file).ok()?;
    let headers = header.program_headers(LittleEndian, file).ok()?;
    headers.iter().filter(|header| header.p_type(LittleEndian) == elf::PT_NOTE).find_map(|header| {
        let mut rest = header.data(LittleEndian, file).ok()?;
        while let Some((note, behind)) = Note::first(rest) {
            if note.name == b"GNU" && elf::NoteType(note.kind) == elf::NT_GNU_BUILD_ID {
                return Some(note.content);
            }
            rest = behind;
        }
        None
    })
}

/// The pieces of an ELF file that are never written to: offset, length and whether they are executed.
pub(super) fn constant_pieces(file: &[u8]) -> Vec<(u64, u64, bool)> {
    let Ok(header) = Header::parse(file) else { return Vec::new() };
    let headers = header.program_headers(LittleEndian, file).unwrap_or_default();
    headers
        .iter()
        .filter(|header| header.p_type(LittleEndian) == elf::PT_LOAD)
        .filter(|header| !header.p_flags(LittleEndian).contains(elf::PF_W))
        .map(|header| {
            let executable = header.p_flags(LittleEndian).contains(elf::PF_X);
            (header.p_offset(LittleEndian), header.p_filesz(LittleEndian), executable)
        })
        .collect()
}
