//! What matters of an ELF file for finding the runtime, as an ELF file of a kilobyte: the headers of its
//! segments, the symbols that are looked for, and the version text, if it has it.

use anyhow::{Context, Result};
use object::LittleEndian;
use object::elf;
use object::pod::bytes_of;
use object::read::elf::{ElfFile64, SymbolTable};

/// The names that finding looks for, or what they start with.
const WANTED: [&str; 11] = [
    "_PyRuntime",
    "Py_Version",
    "interp_head",
    "gil_locked",
    "gil_last_holder",
    "gil_switch_number",
    "gil_cond",
    "gil_mutex",
    "switch_cond",
    "switch_mutex",
    "collecting",
];

const HEADER_BYTES: usize = 64;
const SEGMENT_BYTES: usize = 56;
const SYMBOL_BYTES: usize = 24;

/// A file in the making: what was put behind its headers so far.
struct Distilled {
    bytes: Vec<u8>,
    sections: Vec<[u64; 8]>,
}

/// The essence of `file`, which runs CPython `version`.
pub fn distil(file: &[u8], version: &str) -> Result<Vec<u8>> {
    let elf = ElfFile64::<LittleEndian>::parse(file).context("no 64-bit little-endian ELF file")?;
    let segments = elf.elf_program_headers().iter();
    let loads: Vec<_> = segments.filter(|header| header.p_type.get(LittleEndian) == elf::PT_LOAD).collect();
    let headers_end = HEADER_BYTES + SEGMENT_BYTES * loads.len();
    let mut out = Distilled { bytes: vec![0; headers_end], sections: vec![[0; 8]] };
    let text = format!("{version}\0");
    if file.windows(text.len()).any(|window| window == text.as_bytes()) {
        out.bytes.push(0);
        out.bytes.extend_from_slice(text.as_bytes());
    }
    out.table(elf.elf_dynamic_symbol_table(), elf::SHT_DYNSYM.0)?;
    out.table(elf.elf_symbol_table(), elf::SHT_SYMTAB.0)?;
    let sections_at = out.bytes.len();
    for section in &out.sections {
        out.bytes.extend(section.iter().flat_map(|word| word.to_le_bytes()));
    }
    let end = out.bytes.len() as u64;
    for (index, load) in loads.iter().enumerate() {
        // Nothing is left of the content, except that all that is here lies in the first segment.
        let here = if index == 0 { end } else { 0 };
        let kind = u64::from(elf::PT_LOAD.0) | u64::from(load.p_flags.get(LittleEndian).0) << 32;
        let [offset, address] = [load.p_offset.get(LittleEndian), load.p_vaddr.get(LittleEndian)];
        let [memory, align] = [load.p_memsz.get(LittleEndian), load.p_align.get(LittleEndian)];
        let header = [kind, offset, address, address, here, memory, align];
        out.put(HEADER_BYTES + SEGMENT_BYTES * index, &header);
    }
    out.header(loads.len() as u64, sections_at as u64);
    Ok(out.bytes)
}

impl Distilled {
    fn put(&mut self, at: usize, words: &[u64]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.bytes[at..at + bytes.len()].copy_from_slice(&bytes);
    }

    /// The head of a shared object for x86-64 with as many segments, and the sections at that place.
    fn header(&mut self, segments: u64, sections_at: u64) {
        const MAGIC_64_LITTLE: u64 = 0x0001_0102_464C_457F;
        const SHARED_X86_64: u64 = 1 << 32 | 62 << 16 | 3;
        let sections = self.sections.len() as u64;
        // Sections have no names, but a file must say where they are: any table of names will do.
        const NAMES: u64 = 2;
        let sizes = (HEADER_BYTES as u64) << 32 | (SEGMENT_BYTES as u64) << 48;
        let counts = segments | 64 << 16 | sections << 32 | NAMES << 48;
        let places = [HEADER_BYTES as u64, sections_at];
        self.put(0, &[MAGIC_64_LITTLE, 0, SHARED_X86_64, 0, places[0], places[1], sizes, counts]);
    }

    /// Adds a section of the symbols of `table` that are wanted, and one of their names.
    fn table(&mut self, table: &SymbolTable<'_, elf::FileHeader64<LittleEndian>>, kind: u32) -> Result<()> {
        let mut names = vec![0];
        let mut symbols = vec![0; SYMBOL_BYTES];
        for symbol in table.iter() {
            let name = table.symbol_name(LittleEndian, symbol)?;
            let wanted = |wanted: &&str| {
                name.strip_prefix(wanted.as_bytes()).is_some_and(|rest| rest.is_empty() || rest[0] == b'.')
            };
            if !WANTED.iter().any(wanted) {
                continue;
            }
            let name_at = u32::try_from(names.len())?.to_le_bytes();
            symbols.extend(name_at.iter().chain(&bytes_of(symbol)[name_at.len()..]));
            names.extend_from_slice(name);
            names.push(0);
        }
        let at = self.bytes.len().next_multiple_of(8);
        self.bytes.resize(at, 0);
        let (symbols_bytes, names_bytes) = (symbols.len() as u64, names.len() as u64);
        self.bytes.extend(symbols);
        let names_at = self.bytes.len() as u64;
        self.bytes.extend(names);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let names_section = self.sections.len() as u64 + 1;
        let entry = SYMBOL_BYTES as u64;
        self.sections.push([
            u64::from(kind) << 32,
            0,
            0,
            at as u64,
            symbols_bytes,
            names_section | 1 << 32,
            8,
            entry,
        ]);
        self.sections.push([u64::from(elf::SHT_STRTAB.0) << 32, 0, 0, names_at, names_bytes, 0, 1, 0]);
        Ok(())
    }
}
