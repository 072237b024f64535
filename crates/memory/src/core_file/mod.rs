//! Core files: what a process left behind, as plain data, and its memory ([`CoreMemory`]).
//!
//! A core is an ELF file. Its segments are pieces of memory; its notes tell the threads with their registers
//! and which files were mapped where. A core is mostly cut short by a full disk or a limit (`ulimit -c`), so
//! whatever is there is read, and what is missing is told. Knows nothing of Python, and opens no file.

mod identity;
mod memory;
mod notes;
#[cfg(test)]
mod tests;

use object::LittleEndian;
use object::elf;
use object::read::elf::{FileHeader, ProgramHeader};
use profiler_model::RemoteAddr;

pub use identity::{FileMatch, compare};
pub use memory::CoreMemory;
pub use notes::{CoreActivity, CoreMapping, CoreProcess, CoreThread};

use notes::Notes;

type Header = elf::FileHeader64<LittleEndian>;

/// What a core file says, but for the memory itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoreFile {
    /// The pieces of memory, by address.
    pub segments: Vec<CoreSegment>,
    /// The process, if that note is there.
    pub process: Option<CoreProcess>,
    /// The kernel threads; the first is the one that received the signal.
    pub threads: Vec<CoreThread>,
    /// The files that were mapped, by address.
    pub files: Vec<CoreMapping>,
    /// Where the executable starts to run: an address inside of it.
    pub entry: Option<RemoteAddr>,
    /// How long the file would be if it were whole.
    pub whole_length: u64,
    /// How long it is.
    pub length: u64,
}

/// A piece of memory in a core file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreSegment {
    /// Its first byte.
    pub start: RemoteAddr,
    /// How many bytes of memory it stands for.
    pub memory_size: u64,
    /// Where in the file its bytes are.
    pub file_offset: usize,
    /// How many of its bytes the file has: the kernel leaves out what is unchanged from another file, and a
    /// file may be cut short.
    pub present: usize,
    /// Whether it could be written.
    pub writable: bool,
    /// Whether it could be executed.
    pub executable: bool,
}

/// Why a file is no core file that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoreError {
    /// It is empty.
    #[error("it is empty")]
    Empty,
    /// It is compressed, by this program.
    #[error("it is compressed with {0}")]
    Compressed(&'static str),
    /// It is something else.
    #[error("it is no core file")]
    NotACore,
    /// It is a program or a library.
    #[error("it is a program or a library, no core file")]
    Program,
    /// It comes from another kind of machine.
    #[error("it comes from a 32-bit or big-endian process; 64-bit little-endian is supported")]
    OtherArchitecture,
    /// It ends inside of the part that says what there is.
    #[error("it is cut short: it ends before the list of what is in it")]
    CutShort,
}

/// What compressed files start with. `coredumpctl` and others keep cores so.
const COMPRESSED: [(&[u8], &str); 4] = [
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
    (&[0x04, 0x22, 0x4d, 0x18], "lz4"),
    (&[0xfd, b'7', b'z', b'X', b'Z'], "xz"),
    (&[0x1f, 0x8b], "gzip"),
];

impl CoreFile {
    /// Reads what the core file with these bytes says.
    ///
    /// # Errors
    /// When it is none, or is cut so short that it does not say what there is.
    pub fn parse(core: &[u8]) -> Result<Self, CoreError> {
        check_identity(core)?;
        let header = Header::parse(core).map_err(|_| CoreError::CutShort)?;
        match header.e_type(LittleEndian) {
            elf::ET_CORE => {}
            elf::ET_EXEC | elf::ET_DYN | elf::ET_REL => return Err(CoreError::Program),
            _ => return Err(CoreError::NotACore),
        }
        let machine = header.e_machine(LittleEndian);
        let headers = header.program_headers(LittleEndian, core).map_err(|_| CoreError::CutShort)?;
        let mut file = CoreFile { length: core.len() as u64, ..CoreFile::default() };
        for header in headers {
            let end = header.p_offset(LittleEndian).saturating_add(header.p_filesz(LittleEndian));
            file.whole_length = file.whole_length.max(end);
            match header.p_type(LittleEndian) {
                elf::PT_LOAD => file.segments.push(segment(header, core)),
                elf::PT_NOTE => {
                    let (offset, length) = piece(header, core);
                    file.add_notes(Notes::new(&core[offset..offset + length], machine));
                }
                _ => {}
            }
        }
        file.segments.sort_by_key(|segment| segment.start);
        file.files.sort_by_key(|mapping| mapping.start);
        Ok(file)
    }

    fn add_notes(&mut self, notes: Notes) {
        self.process = self.process.take().or(notes.process);
        self.threads.extend(notes.threads);
        self.files.extend(notes.files);
        self.entry = self.entry.or(notes.entry);
    }

    /// Whether the end of the file is missing.
    pub fn is_cut_short(&self) -> bool {
        self.length < self.whole_length
    }

    /// The segment that holds `at`.
    pub fn segment(&self, at: RemoteAddr) -> Option<&CoreSegment> {
        let behind = self.segments.partition_point(|segment| segment.start <= at);
        let segment = self.segments[..behind].last()?;
        (at.checked_distance_from(segment.start)? < segment.memory_size).then_some(segment)
    }

    /// The bytes of `core`, the file, that stand for the memory from `at` on, up to the end of the segment.
    pub fn bytes_at<'a>(&self, core: &'a [u8], at: RemoteAddr) -> &'a [u8] {
        let bytes = || {
            let segment = self.segment(at)?;
            let skip = usize::try_from(at.checked_distance_from(segment.start)?).ok()?;
            let all = core.get(segment.file_offset..segment.file_offset.checked_add(segment.present)?)?;
            all.get(skip..)
        };
        bytes().unwrap_or_default()
    }

    /// The file that was mapped at `at`.
    pub fn file_at(&self, at: RemoteAddr) -> Option<&CoreMapping> {
        let behind = self.files.partition_point(|mapping| mapping.start <= at);
        self.files[..behind].last().filter(|mapping| at < mapping.end)
    }

    /// The path of the executable.
    pub fn executable(&self) -> Option<&str> {
        let mapping = self.entry.and_then(|entry| self.file_at(entry)).or(self.files.first())?;
        Some(&mapping.path)
    }
}

fn check_identity(core: &[u8]) -> Result<(), CoreError> {
    if core.is_empty() {
        return Err(CoreError::Empty);
    }
    if let Some((_, program)) = COMPRESSED.iter().find(|(magic, _)| core.starts_with(magic)) {
        return Err(CoreError::Compressed(program));
    }
    if !core.starts_with(&elf::ELFMAG) {
        return Err(CoreError::NotACore);
    }
    match (core.get(4), core.get(5)) {
        (None, _) | (_, None) => Err(CoreError::CutShort),
        (Some(class), Some(data)) if *class == elf::ELFCLASS64.0 && *data == elf::ELFDATA2LSB.0 => Ok(()),
        _ => Err(CoreError::OtherArchitecture),
    }
}

/// Which bytes of the file a header is about, as far as they are there: offset and length.
fn piece(header: &elf::ProgramHeader64<LittleEndian>, core: &[u8]) -> (usize, usize) {
    let offset = usize::try_from(header.p_offset(LittleEndian)).unwrap_or(usize::MAX).min(core.len());
    let length = usize::try_from(header.p_filesz(LittleEndian)).unwrap_or(usize::MAX);
    (offset, length.min(core.len() - offset))
}

fn segment(header: &elf::ProgramHeader64<LittleEndian>, core: &[u8]) -> CoreSegment {
    let (file_offset, present) = piece(header, core);
    let flags = header.p_flags(LittleEndian);
    let memory_size = header.p_memsz(LittleEndian);
    CoreSegment {
        start: RemoteAddr::new(header.p_vaddr(LittleEndian)),
        memory_size,
        file_offset,
        present: usize::try_from(memory_size).map_or(present, |size| present.min(size)),
        writable: flags.contains(elf::PF_W),
        executable: flags.contains(elf::PF_X),
    }
}
