//! An ELF image: its loadable segments, its build id and its sections.

use std::borrow::Cow;
use std::ops::Range;

use object::LittleEndian;
use object::elf;
use object::read::elf::{ElfFile64, ProgramHeader};
use object::read::{Object, ObjectSection, ReadRef};

use super::build_id::BuildId;

const PAGE: u64 = 4096;

/// Loadable segments that are looked at; real files have two to some dozens.
const MAX_SEGMENTS: usize = 1024;

/// The most bytes of a section that is read; the largest `.eh_frame` of real programs has some 100 MB.
const MAX_SECTION_BYTES: u64 = 1 << 30;

/// Why bytes are no image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// It is no 64-bit little-endian ELF file, or its headers are broken.
    #[error("it is no 64-bit little-endian ELF file, or its headers are broken")]
    NotElf,
    /// It is for another processor.
    #[error("it is an ELF file for another processor")]
    OtherArchitecture,
}

/// A loadable segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadSegment {
    /// Its first address, in the file's terms.
    pub address: u64,
    /// Its size in memory, in bytes.
    pub memory_size: u64,
    /// Where it starts in the file.
    pub file_offset: u64,
    /// How many bytes the file has of it.
    pub file_size: u64,
    /// Whether it is executable.
    pub executable: bool,
}

impl LoadSegment {
    /// The addresses of the segment.
    pub fn addresses(&self) -> Range<u64> {
        self.address..self.address.saturating_add(self.memory_size)
    }

    /// The address that the byte at `file_offset` is loaded to, if the loader maps the page of that byte with this segment.
    pub(super) fn address_of(&self, file_offset: u64) -> Option<u64> {
        let first = self.file_offset & !(PAGE - 1);
        let end = self.file_offset.checked_add(self.file_size)?;
        let is_inside = (first..end).contains(&file_offset);
        is_inside.then(|| self.address.wrapping_sub(self.file_offset).wrapping_add(file_offset))
    }
}

/// A section: where it is loaded and what it holds.
#[derive(Clone, Debug)]
pub struct Section<'a> {
    /// Its address, in the file's terms.
    pub address: u64,
    /// Its bytes.
    pub data: Cow<'a, [u8]>,
}

/// A parsed ELF file. `R` is its bytes: a slice, or something that reads them when they are asked for.
#[derive(Debug)]
pub struct ElfImage<'a, R: ReadRef<'a> = &'a [u8]> {
    file: ElfFile64<'a, LittleEndian, R>,
    segments: Vec<LoadSegment>,
}

impl<'a, R: ReadRef<'a>> ElfImage<'a, R> {
    /// Parses the headers.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn parse(bytes: R) -> Result<Self, ImageError> {
        let file = ElfFile64::<LittleEndian, R>::parse(bytes).map_err(|_| ImageError::NotElf)?;
        if file.elf_header().e_machine.get(LittleEndian) != elf::EM_X86_64 {
            return Err(ImageError::OtherArchitecture);
        }
        let segments = load_segments(&file);
        Ok(ElfImage { file, segments })
    }

    /// The loadable segments, in the order of the file.
    pub fn segments(&self) -> &[LoadSegment] {
        &self.segments
    }

    /// The lowest address of all segments, in the file's terms.
    pub fn base(&self) -> u64 {
        self.segments.iter().map(|segment| segment.address).min().unwrap_or_default()
    }

    /// The build id, if the file has one.
    pub fn build_id(&self) -> Option<BuildId> {
        BuildId::new(self.file.build_id().ok()??)
    }

    /// Where the program starts, in the file's terms; 0 if that is nowhere.
    pub fn entry(&self) -> u64 {
        self.file.entry()
    }

    /// A section by its name, decompressed if this build can do that. `None` if there is none, it is empty, broken or larger
    /// than 1 GiB.
    pub fn section(&self, name: &str) -> Option<Section<'a>> {
        let section = self.file.section_by_name(name)?;
        let address = section.address();
        if section.size() > MAX_SECTION_BYTES
            || section.compressed_data().ok()?.uncompressed_size > MAX_SECTION_BYTES
        {
            return None;
        }
        let data = section.uncompressed_data().ok().filter(|data| !data.is_empty())?;
        Some(Section { address, data })
    }

    /// Where the program headers say that the index of the unwind information is, and the bytes of the file from there to the
    /// end of its segment.
    pub fn unwind_index(&self) -> Option<Section<'a>> {
        let headers = self.file.elf_program_headers().iter();
        let header =
            headers.take(MAX_SEGMENTS).find(|header| header.p_type(LittleEndian) == elf::PT_GNU_EH_FRAME)?;
        let address = header.p_vaddr(LittleEndian);
        Some(Section { address, data: Cow::Borrowed(self.bytes_from(address)?) })
    }

    /// The bytes that the file has from an address to the end of its segment.
    pub fn bytes_from(&self, address: u64) -> Option<&'a [u8]> {
        let holds = |segment: &&LoadSegment| {
            address.checked_sub(segment.address).is_some_and(|skip| skip < segment.file_size)
        };
        let segment = self.segments.iter().find(holds)?;
        let skip = address - segment.address;
        let size = segment.file_size - skip;
        let offset = segment.file_offset.checked_add(skip)?;
        if size > MAX_SECTION_BYTES {
            return None;
        }
        self.file.data().read_bytes_at(offset, size).ok()
    }
}

fn load_segments<'a, R: ReadRef<'a>>(file: &ElfFile64<'a, LittleEndian, R>) -> Vec<LoadSegment> {
    let headers = file.elf_program_headers().iter();
    let loaded = headers.filter(|header| header.p_type(LittleEndian) == elf::PT_LOAD).take(MAX_SEGMENTS);
    loaded
        .map(|header| LoadSegment {
            address: header.p_vaddr(LittleEndian),
            memory_size: header.p_memsz(LittleEndian),
            file_offset: header.p_offset(LittleEndian),
            file_size: header.p_filesz(LittleEndian),
            executable: header.p_flags(LittleEndian).contains(elf::PF_X),
        })
        .collect()
}
