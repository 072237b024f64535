//! An ELF file read piece by piece: its headers, and those of its sections that are asked for.

use object::elf::{self, FileHeader64, ProgramHeader64, SectionHeader64};
use object::{LittleEndian as LE, pod};

use super::compressed;
use super::problem::SymbolProblem;
use super::read_at::ReadAt;

/// The most section headers; programs with a section for each function have some ten thousand before they are linked.
const MAX_SECTIONS: u64 = 65_536;

/// The most program headers; real files have some twelve.
const MAX_PROGRAM_HEADERS: u64 = 1024;

/// The most bytes of section names.
const MAX_SECTION_NAMES_BYTES: u64 = 4 << 20;

/// The most bytes of a note section.
const MAX_NOTES_BYTES: u64 = 64 << 10;

/// The most bytes of a build id; the linkers make 8 to 32.
const MAX_BUILD_ID_BYTES: usize = 64;

/// The most bytes of a section that links to another file: a path and a checksum or build id.
const MAX_LINK_BYTES: u64 = 4096 + 64;

/// `NT_GNU_BUILD_ID`.
const NOTE_BUILD_ID: u32 = 3;

/// A part of the file that is loaded into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LoadSegment {
    pub(super) address: u64,
    pub(super) memory_size: u64,
    pub(super) file_offset: u64,
    pub(super) file_size: u64,
    pub(super) is_executable: bool,
}

/// What a section header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    name: u32,
    pub(super) kind: elf::SectionType,
    flags: elf::SectionFlags,
    pub(super) address: u64,
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) link: u32,
    pub(super) entry_size: u64,
}

impl Section {
    /// Whether the file has bytes of it: a debug file has most sections only by name.
    pub(super) fn has_bytes(&self) -> bool {
        self.kind != elf::SHT_NOBITS && self.kind != elf::SHT_NULL
    }

    /// Whether code is in it.
    pub(super) fn is_executable(&self) -> bool {
        self.flags.contains(elf::SHF_EXECINSTR)
    }

    fn is_compressed(&self) -> bool {
        self.flags.contains(elf::SHF_COMPRESSED)
    }

    /// The address after its last byte.
    pub(super) fn end(&self) -> u64 {
        self.address.saturating_add(self.size)
    }
}

/// An ELF file whose headers are read.
#[derive(Debug)]
pub(super) struct ElfImage<F> {
    file: F,
    segments: Vec<LoadSegment>,
    sections: Vec<Section>,
    names: Vec<u8>,
}

impl<F: ReadAt> ElfImage<F> {
    /// Reads the headers of `file`.
    pub(super) fn open(file: F) -> Result<Self, SymbolProblem> {
        let bytes = read(&file, 0, size_of::<FileHeader64<LE>>() as u64, "ELF header");
        let bytes = match bytes {
            Ok(bytes) if bytes.starts_with(&elf::ELFMAG) => bytes,
            _ => return Err(SymbolProblem::NotElf),
        };
        if bytes[4] != elf::ELFCLASS64.0 || bytes[5] != elf::ELFDATA2LSB.0 {
            return Err(SymbolProblem::ForeignElf);
        }
        let (header, _) = pod::from_bytes::<FileHeader64<LE>>(&bytes).map_err(|()| SymbolProblem::NotElf)?;
        let segments = load_segments(&file, header)?;
        let raw_sections = section_headers(&file, header)?;
        let names = section_names(&file, header, &raw_sections)?;
        let sections = raw_sections.iter().map(section).collect();
        Ok(ElfImage { file, segments, sections, names })
    }

    /// The file itself.
    pub(super) fn file(&self) -> &F {
        &self.file
    }

    pub(super) fn segments(&self) -> &[LoadSegment] {
        &self.segments
    }

    pub(super) fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Whether a section has this name.
    pub(super) fn is_named(&self, section: &Section, name: &str) -> bool {
        let rest = self.names.get(section.name as usize..).unwrap_or_default();
        rest.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }

    /// The section of this name, if the file has its bytes.
    pub(super) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| self.is_named(section, name) && section.has_bytes())
    }

    /// The first section of this kind, if the file has its bytes.
    pub(super) fn section_of_kind(&self, kind: elf::SectionType) -> Option<&Section> {
        self.sections.iter().find(|section| section.kind == kind && section.size != 0)
    }

    /// The bytes of a section as they are in the file, at most `limit`.
    pub(super) fn section_bytes(&self, section: &Section, limit: u64) -> Result<Vec<u8>, SymbolProblem> {
        if !section.has_bytes() {
            return Ok(Vec::new());
        }
        check_limit("bytes of a section", section.size, limit)?;
        read(&self.file, section.offset, section.size, "sections")
    }

    /// The bytes of a debug section, decompressed if need be, at most `limit`; none if there is no section of this name.
    pub(super) fn debug_section_bytes(
        &self,
        name: &'static str,
        limit: u64,
    ) -> Result<Vec<u8>, SymbolProblem> {
        let damaged = || SymbolProblem::Compression(name);
        if let Some(section) = self.section(name) {
            let bytes = self.section_bytes(section, limit)?;
            return if section.is_compressed() { decompressed(&bytes, limit, damaged) } else { Ok(bytes) };
        }
        let Some(section) = self.section(&old_compressed_name(name)) else { return Ok(Vec::new()) };
        let bytes = self.section_bytes(section, limit)?;
        let (size, data) =
            bytes.strip_prefix(b"ZLIB").and_then(|rest| rest.split_first_chunk::<8>()).ok_or_else(damaged)?;
        let size = decompressed_size(u64::from_be_bytes(*size), limit)?;
        compressed::zlib(data, size).ok_or_else(damaged)
    }

    /// Whether the file has a debug section of this name, compressed or not.
    pub(super) fn has_debug_section(&self, name: &str) -> bool {
        let section = self.section(name).or_else(|| self.section(&old_compressed_name(name)));
        section.is_some_and(|section| section.size != 0)
    }

    /// The build id; `None` if the file has none.
    pub(super) fn build_id(&self) -> Option<Box<[u8]>> {
        let section = self.section(".note.gnu.build-id")?;
        let notes = self.section_bytes(section, MAX_NOTES_BYTES).ok()?;
        build_id_in(&notes)
    }

    /// The name and checksum of the debug file that `.gnu_debuglink` names.
    pub(super) fn debug_link(&self) -> Option<(String, u32)> {
        let bytes = self.section_bytes(self.section(".gnu_debuglink")?, MAX_LINK_BYTES).ok()?;
        let length = bytes.iter().position(|byte| *byte == 0)?;
        let name = String::from_utf8(bytes[..length].to_vec()).ok()?;
        let checksum = bytes.get((length + 1).next_multiple_of(4)..)?.first_chunk::<4>()?;
        Some((name, u32::from_le_bytes(*checksum)))
    }

    /// The path and build id of the file that `.gnu_debugaltlink` names.
    pub(super) fn supplementary_link(&self) -> Option<(String, Box<[u8]>)> {
        let bytes = self.section_bytes(self.section(".gnu_debugaltlink")?, MAX_LINK_BYTES).ok()?;
        let length = bytes.iter().position(|byte| *byte == 0)?;
        let name = String::from_utf8(bytes[..length].to_vec()).ok()?;
        let id = bytes.get(length + 1..).filter(|id| !id.is_empty() && id.len() <= MAX_BUILD_ID_BYTES)?;
        Some((name, id.into()))
    }

    /// The executable section that covers an address.
    pub(super) fn code_section_at(&self, address: u64) -> Option<&Section> {
        self.sections
            .iter()
            .find(|section| section.is_executable() && section.address <= address && address < section.end())
    }

    /// Whether code may be at this address in memory.
    pub(super) fn is_code(&self, address: u64) -> bool {
        self.segments.iter().any(|segment| {
            segment.is_executable
                && address.checked_sub(segment.address).is_some_and(|offset| offset < segment.memory_size)
        })
    }
}

/// The name that a debug section has if it is compressed in the old way: `.zdebug_info` for `.debug_info`.
fn old_compressed_name(name: &str) -> String {
    name.replacen(".debug", ".zdebug", 1)
}

/// The bytes of a compressed section after its head, decompressed.
fn decompressed(
    bytes: &[u8],
    limit: u64,
    damaged: impl Fn() -> SymbolProblem,
) -> Result<Vec<u8>, SymbolProblem> {
    let (header, data) = pod::from_bytes::<elf::CompressionHeader64<LE>>(bytes).map_err(|()| damaged())?;
    let size = decompressed_size(header.ch_size.get(LE), limit)?;
    let decompressed = match header.ch_type.get(LE) {
        elf::ELFCOMPRESS_ZLIB => compressed::zlib(data, size),
        elf::ELFCOMPRESS_ZSTD => compressed::zstd(data, size),
        _ => None,
    };
    decompressed.ok_or_else(damaged)
}

/// The size that a compressed section says it has, if it is not beyond the limit.
fn decompressed_size(size: u64, limit: u64) -> Result<usize, SymbolProblem> {
    check_limit("bytes of a decompressed section", size, limit)?;
    usize::try_from(size).map_err(|_| SymbolProblem::Truncated("sections"))
}

/// Refuses a number beyond its limit.
pub(super) fn check_limit(what: &'static str, found: u64, limit: u64) -> Result<(), SymbolProblem> {
    if found > limit { Err(SymbolProblem::TooLarge { what, found, limit }) } else { Ok(()) }
}

/// Reads `size` bytes. Nothing is allocated for bytes that the file does not have.
pub(super) fn read<F: ReadAt>(
    file: &F,
    offset: u64,
    size: u64,
    what: &'static str,
) -> Result<Vec<u8>, SymbolProblem> {
    let truncated = || SymbolProblem::Truncated(what);
    if offset.checked_add(size).is_none_or(|end| end > file.size()) {
        return Err(truncated());
    }
    let mut bytes = vec![0; usize::try_from(size).map_err(|_| truncated())?];
    if file.read_at(offset, &mut bytes) { Ok(bytes) } else { Err(truncated()) }
}

fn load_segments<F: ReadAt>(file: &F, header: &FileHeader64<LE>) -> Result<Vec<LoadSegment>, SymbolProblem> {
    let count = u64::from(header.e_phnum.get(LE));
    check_limit("program headers", count, MAX_PROGRAM_HEADERS)?;
    let size = count * size_of::<ProgramHeader64<LE>>() as u64;
    let bytes = read(file, header.e_phoff.get(LE), size, "program headers")?;
    let headers = pod::slice_from_all_bytes::<ProgramHeader64<LE>>(&bytes).unwrap_or_default();
    let loaded = headers.iter().filter(|header| header.p_type.get(LE) == elf::PT_LOAD);
    Ok(loaded
        .map(|header| LoadSegment {
            address: header.p_vaddr.get(LE),
            memory_size: header.p_memsz.get(LE),
            file_offset: header.p_offset.get(LE),
            file_size: header.p_filesz.get(LE),
            is_executable: header.p_flags.get(LE).contains(elf::PF_X),
        })
        .collect())
}

fn section_headers<F: ReadAt>(
    file: &F,
    header: &FileHeader64<LE>,
) -> Result<Vec<SectionHeader64<LE>>, SymbolProblem> {
    let (offset, entry) = (header.e_shoff.get(LE), size_of::<SectionHeader64<LE>>() as u64);
    if offset == 0 {
        return Ok(Vec::new());
    }
    let mut count = u64::from(header.e_shnum.get(LE));
    if count == 0 {
        let first = read(file, offset, entry, "section headers")?;
        count = pod::from_bytes::<SectionHeader64<LE>>(&first).map_or(0, |(first, _)| first.sh_size.get(LE));
    }
    check_limit("section headers", count, MAX_SECTIONS)?;
    let bytes = read(file, offset, count * entry, "section headers")?;
    Ok(pod::slice_from_all_bytes::<SectionHeader64<LE>>(&bytes).unwrap_or_default().to_vec())
}

fn section_names<F: ReadAt>(
    file: &F,
    header: &FileHeader64<LE>,
    sections: &[SectionHeader64<LE>],
) -> Result<Vec<u8>, SymbolProblem> {
    let index = match header.e_shstrndx.get(LE) {
        elf::SHN_XINDEX => sections.first().map_or(0, |first| first.sh_link.get(LE)),
        index => u32::from(index.0),
    };
    let Some(names) = sections.get(index as usize).filter(|_| index != 0) else { return Ok(Vec::new()) };
    check_limit("bytes of section names", names.sh_size.get(LE), MAX_SECTION_NAMES_BYTES)?;
    read(file, names.sh_offset.get(LE), names.sh_size.get(LE), "section names")
}

fn section(header: &SectionHeader64<LE>) -> Section {
    Section {
        name: header.sh_name.get(LE),
        kind: header.sh_type.get(LE),
        flags: header.sh_flags.get(LE),
        address: header.sh_addr.get(LE),
        offset: header.sh_offset.get(LE),
        size: header.sh_size.get(LE),
        link: header.sh_link.get(LE),
        entry_size: header.sh_entsize.get(LE),
    }
}

/// The build id among the notes of a section.
fn build_id_in(mut notes: &[u8]) -> Option<Box<[u8]>> {
    while let Some((header, rest)) = notes.split_first_chunk::<12>() {
        let number =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (name_size, size, kind) = (number(0) as usize, number(4) as usize, number(8));
        let name = rest.get(..name_size)?;
        let content = rest.get(name_size.checked_next_multiple_of(4)?..)?;
        let id = content.get(..size)?;
        if kind == NOTE_BUILD_ID && name == b"GNU\0" {
            return (1..=MAX_BUILD_ID_BYTES).contains(&size).then(|| id.into());
        }
        notes = content.get(size.checked_next_multiple_of(4)?..)?;
    }
    None
}
