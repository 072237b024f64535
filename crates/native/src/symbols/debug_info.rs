//! Functions, inlined functions, files and lines from DWARF.

use std::sync::Arc;

use addr2line::Context;
use gimli::{Dwarf, Reader, SectionId};

use super::elf_image::{ElfImage, check_limit};
use super::problem::SymbolProblem;
use super::read_at::ReadAt;
use super::section_reader::SectionReader;
use super::work_meter::WorkMeter;

/// The most bytes of debug information, decompressed, that are read of one module. libpython has 30 MiB, LLVM over a GiB.
pub(super) const MAX_DEBUG_BYTES: u64 = 256 << 20;

/// The most compilation units; a browser has some fifty thousand.
const MAX_UNITS: usize = 200_000;

/// How many bytes of memory a step of work leaves behind, at most on average: 0.7 for libpython.
const BYTES_PER_STEP: u64 = 1;

/// The most functions at one address, inlined into each other.
const MAX_FRAMES: u64 = 128;

/// The most bytes of a file name.
const MAX_FILE_BYTES: usize = 4096;

/// The most bytes of a function's name that are read: one more than are kept, so that a cut shows.
const MAX_NAME_BYTES: usize = super::function_name::MAX_SYMBOL_BYTES + 1;

/// The sections that names and lines come from, and how many steps a read counts for. A byte of a line program or of a range
/// list becomes up to 32 in memory.
const SECTIONS: &[(SectionId, u64)] = &[
    (SectionId::DebugAbbrev, 1),
    (SectionId::DebugAddr, 1),
    (SectionId::DebugAranges, 8),
    (SectionId::DebugInfo, 1),
    (SectionId::DebugLine, 8),
    (SectionId::DebugLineStr, 1),
    (SectionId::DebugRanges, 8),
    (SectionId::DebugRngLists, 8),
    (SectionId::DebugStr, 1),
    (SectionId::DebugStrOffsets, 1),
];

/// A function at an address as the debug information has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DebugFrame {
    /// The linkage name, else the plain one.
    pub(super) name: Option<String>,
    pub(super) is_fortran: bool,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
    pub(super) column: Option<u32>,
}

/// The debug information of a module.
pub(super) struct DebugInfo {
    context: Context<SectionReader>,
    meter: Arc<WorkMeter>,
    /// How many bytes its sections have.
    bytes: u64,
}

impl DebugInfo {
    /// Whether a file has debug information.
    pub(super) fn is_in<F: ReadAt>(image: &ElfImage<F>) -> bool {
        image.has_debug_section(".debug_info")
    }

    /// Reads the debug sections of `image`, and those of the file that it shares entries with, and lists the units.
    pub(super) fn read<F: ReadAt>(
        image: &ElfImage<F>,
        supplementary: Option<&ElfImage<F>>,
    ) -> Result<Self, SymbolProblem> {
        let meter = Arc::new(WorkMeter::new());
        meter.begin();
        let mut bytes = 0;
        let mut dwarf = sections(image, &meter, &mut bytes)?;
        check_units(&dwarf, &meter)?;
        if let Some(supplementary) = supplementary {
            let shared = sections(supplementary, &meter, &mut bytes)?;
            check_units(&shared, &meter)?;
            dwarf.set_sup(shared);
        }
        let context = Context::from_dwarf(dwarf).map_err(|error| problem(error, &meter))?;
        Ok(DebugInfo { context, meter, bytes })
    }

    /// About how many bytes of memory are held: the sections, and what was made of them.
    pub(super) fn memory(&self) -> u64 {
        self.bytes + self.meter.taken() * BYTES_PER_STEP
    }

    /// The functions at an address of the file, the innermost inlined one first; none if the debug information does not cover
    /// it.
    pub(super) fn frames_at(&self, address: u64) -> Result<Vec<DebugFrame>, SymbolProblem> {
        self.meter.begin();
        let invalid = |error| problem(error, &self.meter);
        let mut found = Vec::new();
        let mut frames = self.context.find_frames(address).skip_all_loads().map_err(invalid)?;
        while let Some(frame) = frames.next().map_err(invalid)? {
            found.push(debug_frame(&frame));
            check_limit("functions at an address", found.len() as u64, MAX_FRAMES)?;
        }
        if self.meter.is_exhausted() { Err(SymbolProblem::TooMuchWork) } else { Ok(found) }
    }
}

fn debug_frame(frame: &addr2line::Frame<'_, SectionReader>) -> DebugFrame {
    let language = frame.function.as_ref().and_then(|function| function.language);
    let name = frame.function.as_ref().and_then(|function| {
        let mut name = function.name.clone();
        if name.len() > MAX_NAME_BYTES {
            name.truncate(MAX_NAME_BYTES).ok()?;
        }
        name.to_string_lossy().ok().map(std::borrow::Cow::into_owned)
    });
    let location = frame.location.as_ref();
    let file = location.and_then(|location| location.file);
    DebugFrame {
        name: name.filter(|name| !name.is_empty()),
        is_fortran: language.is_some_and(is_fortran),
        file: file.filter(|file| !file.is_empty() && file.len() <= MAX_FILE_BYTES).map(str::to_owned),
        line: location.and_then(|location| location.line),
        column: location.and_then(|location| location.column).filter(|column| *column != 0),
    }
}

fn is_fortran(language: gimli::DwLang) -> bool {
    matches!(
        language,
        gimli::DW_LANG_Fortran77
            | gimli::DW_LANG_Fortran90
            | gimli::DW_LANG_Fortran95
            | gimli::DW_LANG_Fortran03
            | gimli::DW_LANG_Fortran08
            | gimli::DW_LANG_Fortran18
    )
}

/// The problem that an error of gimli stands for: a read that is refused as too much work looks like the end of a section.
fn problem(error: gimli::Error, meter: &WorkMeter) -> SymbolProblem {
    if meter.is_exhausted() { SymbolProblem::TooMuchWork } else { SymbolProblem::Dwarf(error) }
}

/// Reads the sections of `image`. `bytes` counts what is read of all files.
fn sections<F: ReadAt>(
    image: &ElfImage<F>,
    meter: &Arc<WorkMeter>,
    bytes: &mut u64,
) -> Result<Dwarf<SectionReader>, SymbolProblem> {
    Dwarf::load(|id| {
        let steps = SECTIONS.iter().find(|(known, _)| *known == id).map(|(_, steps)| *steps);
        let content = match steps {
            Some(_) => image.debug_section_bytes(id.name(), MAX_DEBUG_BYTES)?,
            None => Vec::new(),
        };
        *bytes += content.len() as u64;
        check_limit("bytes of debug information", *bytes, MAX_DEBUG_BYTES)?;
        Ok(SectionReader::new(content, steps.unwrap_or(1), Arc::clone(meter)))
    })
}

/// Refuses more units than [`MAX_UNITS`]: each takes some hundred bytes of memory, even if it has only eleven in the file.
fn check_units(dwarf: &Dwarf<SectionReader>, meter: &WorkMeter) -> Result<(), SymbolProblem> {
    let (mut units, mut count) = (dwarf.units(), 0);
    while units.next().map_err(|error| problem(error, meter))?.is_some() {
        count += 1;
        check_limit("compilation units", count, MAX_UNITS as u64)?;
    }
    Ok(())
}
