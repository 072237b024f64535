//! Go's own table of functions, files and lines (`.gopclntab`), which stays in stripped programs: the garbage collector needs
//! it.

use super::elf_image::{ElfImage, Section};
use super::problem::SymbolProblem;
use super::read_at::ReadAt;

/// The most bytes of the table; the largest Go programs have some 60 MiB.
const MAX_TABLE_BYTES: u64 = 128 << 20;

/// The most steps through the lines of one function.
const MAX_LINE_STEPS: usize = 1 << 20;

/// The most bytes of a name or path.
const MAX_TEXT_BYTES: usize = 4096;

/// What the table starts with since Go 1.20, 1.18 and 1.16. Older ones are not read.
const MAGIC_1_20: u32 = 0xffff_fff1;
const MAGIC_1_18: u32 = 0xffff_fff0;
const MAGIC_1_16: u32 = 0xffff_fffa;

/// The sections that the table may be in: the second one in position-independent programs.
const SECTIONS: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];

/// A Go function at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GoFunction {
    pub(super) start: u64,
    pub(super) name: String,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
}

/// The table of a Go program. Numbers in it are little-endian, addresses eight bytes.
#[derive(Debug)]
pub(super) struct GoFunctions {
    bytes: Vec<u8>,
    layout: Layout,
}

/// Where the parts of the table are.
#[derive(Debug)]
struct Layout {
    /// Functions are listed by four-byte offsets from the start of the code (1.18+), else by eight-byte addresses.
    is_relative: bool,
    /// How many bytes the shortest instruction has.
    quantum: u64,
    functions: usize,
    text: u64,
    names: usize,
    units: usize,
    files: usize,
    lines: usize,
    list: usize,
}

/// A function's record: what it starts with, and where the record is.
struct Record {
    start: u64,
    offset: usize,
}

impl GoFunctions {
    /// Reads the table; `None` if the file has none.
    pub(super) fn read<F: ReadAt>(image: &ElfImage<F>) -> Option<Result<Self, SymbolProblem>> {
        let section = SECTIONS.into_iter().find_map(|name| image.section(name))?;
        let text = image.section(".text").map_or(0, |text| text.address);
        Some(Self::from_section(image, section, text))
    }

    fn from_section<F: ReadAt>(
        image: &ElfImage<F>,
        section: &Section,
        text: u64,
    ) -> Result<Self, SymbolProblem> {
        let bytes = image.section_bytes(section, MAX_TABLE_BYTES)?;
        let layout = Layout::of(&bytes, text)?;
        Ok(GoFunctions { bytes, layout })
    }

    /// How many bytes of memory the table takes.
    pub(super) fn memory(&self) -> usize {
        self.bytes.capacity()
    }

    /// The function at an address.
    pub(super) fn find(&self, address: u64) -> Option<GoFunction> {
        let record = self.record_at(address)?;
        let name = self.field(&record, 0)?;
        Some(GoFunction {
            start: record.start,
            name: self.text(self.layout.names.checked_add(name as usize)?)?,
            file: self.file(&record, address),
            line: self.line(&record, address),
        })
    }

    /// Where the function at an address starts.
    pub(super) fn start_at(&self, address: u64) -> Option<u64> {
        self.record_at(address).map(|record| record.start)
    }

    fn record_at(&self, address: u64) -> Option<Record> {
        let count = self.layout.functions;
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.listed(middle)?.0 <= address {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let (start, offset) = self.listed(low.checked_sub(1)?)?;
        let end = self.listed(low)?.0;
        let offset = self.layout.list.checked_add(offset)?;
        (address < end).then_some(Record { start, offset })
    }

    /// The address of a function of the list, and where its record is. The entry after the last one says where it ends.
    fn listed(&self, index: usize) -> Option<(u64, usize)> {
        let width = if self.layout.is_relative { 4 } else { 8 };
        let at = self.layout.list.checked_add(index.checked_mul(2 * width)?)?;
        if self.layout.is_relative {
            let start = self.layout.text.wrapping_add(u64::from(self.number(at)?));
            return Some((start, self.number(at + 4).unwrap_or(0) as usize));
        }
        let start = self.wide(at)?;
        Some((start, self.wide(at + 8).and_then(|offset| usize::try_from(offset).ok()).unwrap_or(0)))
    }

    fn line(&self, record: &Record, address: u64) -> Option<u32> {
        let value = self.value_at(record, self.field(record, 5)?, address)?;
        u32::try_from(value).ok().filter(|line| *line != 0)
    }

    fn file(&self, record: &Record, address: u64) -> Option<String> {
        let index = self.value_at(record, self.field(record, 4)?, address)?;
        let first = self.field(record, 7)?;
        let index = u64::from(first).checked_add(u64::try_from(index).ok()?)?;
        let at = self.layout.units.checked_add(usize::try_from(index).ok()?.checked_mul(4)?)?;
        let offset = self.number(at).filter(|offset| *offset != u32::MAX)?;
        self.text(self.layout.files.checked_add(offset as usize)?).filter(|file| !file.is_empty())
    }

    /// A four-byte field of a function's record; the first after the address has number 0.
    fn field(&self, record: &Record, number: usize) -> Option<u32> {
        self.number(record.offset.checked_add(self.layout.entry_bytes())?.checked_add(number * 4)?)
    }

    /// The value that a table of pairs (difference of values, difference of addresses) has for an address.
    fn value_at(&self, record: &Record, table: u32, address: u64) -> Option<i32> {
        let mut rest = self.bytes.get(self.layout.lines.checked_add(table as usize)?..)?;
        let (mut value, mut end) = (-1i32, record.start);
        for step in 0..MAX_LINE_STEPS {
            let difference = variable_length(&mut rest)?;
            if difference == 0 && step != 0 {
                return None;
            }
            let magnitude = (difference >> 1) as i32;
            value = value.wrapping_add(if difference & 1 == 0 { magnitude } else { !magnitude });
            let length = u64::from(variable_length(&mut rest)?);
            end = end.wrapping_add(length.wrapping_mul(self.layout.quantum));
            if address < end {
                return Some(value);
            }
        }
        None
    }

    fn number(&self, at: usize) -> Option<u32> {
        number(&self.bytes, at)
    }

    fn wide(&self, at: usize) -> Option<u64> {
        wide(&self.bytes, at)
    }

    fn text(&self, at: usize) -> Option<String> {
        let rest = self.bytes.get(at..)?;
        let rest = &rest[..rest.len().min(MAX_TEXT_BYTES)];
        let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
        Some(String::from_utf8_lossy(&rest[..end]).into_owned())
    }
}

impl Layout {
    /// What the head of a table says. `code` is where the code of the program starts, if the table does not know.
    fn of(bytes: &[u8], code: u64) -> Result<Self, SymbolProblem> {
        let invalid = || SymbolProblem::GoTable;
        let magic = number(bytes, 0).ok_or_else(invalid)?;
        let is_relative = match magic {
            MAGIC_1_20 | MAGIC_1_18 => true,
            MAGIC_1_16 => false,
            _ => return Err(SymbolProblem::GoVersion(magic)),
        };
        if bytes.get(7) != Some(&8) {
            return Err(invalid());
        }
        let head = |index: usize| wide(bytes, 8 + 8 * index).ok_or_else(invalid);
        let size = |index: usize| usize::try_from(head(index)?).map_err(|_| invalid());
        let parts = if is_relative { 3 } else { 2 };
        let text = if is_relative { head(2)? } else { 0 };
        Ok(Layout {
            is_relative,
            quantum: u64::from(bytes[6]),
            functions: size(0)?,
            text: if text == 0 { code } else { text },
            names: size(parts)?,
            units: size(parts + 1)?,
            files: size(parts + 2)?,
            lines: size(parts + 3)?,
            list: size(parts + 4)?,
        })
    }

    /// How many bytes the address has that a function's record starts with.
    fn entry_bytes(&self) -> usize {
        if self.is_relative { 4 } else { 8 }
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn wide(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

/// Reads a number of seven bits a byte, the lowest first.
fn variable_length(rest: &mut &[u8]) -> Option<u32> {
    let mut value = 0u32;
    for shift in (0..32).step_by(7) {
        let (first, after) = rest.split_first()?;
        *rest = after;
        value |= u32::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
