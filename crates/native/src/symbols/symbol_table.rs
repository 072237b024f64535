//! The functions that the symbol tables of a module name, by address. Names stay in the file until they are asked for.

use object::elf::{self, Rela64, Sym64};
use object::{LittleEndian as LE, pod};
use rustc_hash::FxHashMap;

use super::elf_image::{ElfImage, Section, check_limit, read};
use super::function_name::MAX_SYMBOL_BYTES;
use super::problem::SymbolProblem;
use super::read_at::ReadAt;
use super::x86_64::stubs::{self, StubTarget};

/// The most symbols of one table. The largest programs have a few million, most of them no functions.
const MAX_SYMBOLS: u64 = 8 << 20;

/// The most functions that are kept of all tables: 24 bytes each.
const MAX_FUNCTIONS: usize = 4 << 20;

/// The most relocations that are looked at for stubs.
const MAX_RELOCATIONS: u64 = 1 << 20;

/// The most bytes of code of one section of stubs.
const MAX_STUBS_BYTES: u64 = 4 << 20;

/// How many symbols are read at a time.
const SYMBOLS_AT_ONCE: u64 = 16 << 10;

/// How many symbols before an address are looked at for one that covers it.
const MAX_STEPS_BACK: usize = 64;

/// How many names of the same function are compared.
const MAX_ALIASES: usize = 32;

/// How many bytes of a name are read first.
const FIRST_NAME_BYTES: usize = 128;

/// The sections that stubs are in.
const STUB_SECTIONS: [&str; 3] = [".plt", ".plt.sec", ".plt.got"];

/// Which file of the module a table is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TableFile {
    Module,
    Debug,
    Mini,
}

/// A function at an address. In order of address, then of how much its name is preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Function {
    start: u64,
    rank: Rank,
    size: u32,
    name: u32,
    table: u8,
}

impl Function {
    /// Whether an address after its start is in it. Where one without a size ends, others say.
    fn covers(&self, address: u64) -> bool {
        self.size == 0 || address - self.start < u64::from(self.size)
    }
}

/// How much a symbol is preferred to another one at the same address, less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Global,
    Weak,
    Local,
    /// It is not declared to be a function.
    Label,
    Stub,
}

/// Where the names of a symbol table are.
#[derive(Clone, Copy, Debug)]
struct NameTable {
    file: TableFile,
    offset: u64,
    size: u64,
}

/// What a symbol table says of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundSymbol {
    pub(super) start: u64,
    pub(super) name: String,
    /// Whether it is the stub that jumps to the function of this name.
    pub(super) is_stub: bool,
    pub(super) file: TableFile,
}

/// The files of a module that names are read from.
#[derive(Debug)]
pub(super) struct SymbolFiles<'a, F> {
    pub(super) module: &'a ElfImage<F>,
    pub(super) debug: Option<&'a ElfImage<F>>,
    pub(super) mini: Option<&'a ElfImage<Vec<u8>>>,
}

/// The functions of a module, sorted.
#[derive(Debug, Default)]
pub(super) struct SymbolTable {
    functions: Vec<Function>,
    /// Those without a size. What lies within a function is a place in it and left out.
    labels: Vec<Function>,
    names: Vec<NameTable>,
}

impl SymbolTable {
    /// Reads the tables of all files. What cannot be read is left out and added to `problems`.
    pub(super) fn build<F: ReadAt>(files: &SymbolFiles<'_, F>, problems: &mut Vec<SymbolProblem>) -> Self {
        let mut table = SymbolTable::default();
        let mut note = |result: Result<(), SymbolProblem>| problems.extend(result.err());
        let full = elf::SHT_SYMTAB;
        if files.module.section_of_kind(full).is_some() {
            note(table.add(files.module, TableFile::Module, full));
        } else {
            note(table.add(files.module, TableFile::Module, elf::SHT_DYNSYM));
            if let Some(debug) = files.debug {
                note(table.add(debug, TableFile::Debug, full));
            }
            if let Some(mini) = files.mini {
                note(table.add(mini, TableFile::Mini, full));
            }
        }
        note(table.add_stubs(files.module));
        table.functions.sort_unstable();
        table.labels.retain(|label| covering(&table.functions, label.start).is_none());
        table.labels.sort_unstable();
        table.functions.shrink_to_fit();
        table.labels.shrink_to_fit();
        table
    }

    /// How many bytes of memory the table takes.
    pub(super) fn memory(&self) -> usize {
        (self.functions.capacity() + self.labels.capacity()) * size_of::<Function>()
    }

    fn add<F: ReadAt>(
        &mut self,
        image: &ElfImage<F>,
        file: TableFile,
        kind: elf::SectionType,
    ) -> Result<(), SymbolProblem> {
        let Some(section) = image.section_of_kind(kind) else { return Ok(()) };
        let Some(table) = self.add_names(image, file, section) else { return Ok(()) };
        let (count, entry) = symbol_count(section)?;
        let sections = image.sections();
        let mut done = 0;
        while done < count {
            let now = (count - done).min(SYMBOLS_AT_ONCE);
            let bytes =
                read(image.file(), section.offset.saturating_add(done * entry), now * entry, "symbols")?;
            let symbols = pod::slice_from_all_bytes::<Sym64<LE>>(&bytes).unwrap_or_default();
            for function in symbols.iter().filter_map(|symbol| function(symbol, sections, table)) {
                if function.size == 0 { &mut self.labels } else { &mut self.functions }.push(function);
            }
            let found = self.functions.len() + self.labels.len();
            check_limit("functions in symbol tables", found as u64, MAX_FUNCTIONS as u64)?;
            done += now;
        }
        Ok(())
    }

    /// Notes where the names of the symbols in `section` are.
    fn add_names<F: ReadAt>(
        &mut self,
        image: &ElfImage<F>,
        file: TableFile,
        section: &Section,
    ) -> Option<u8> {
        let names = image.sections().get(section.link as usize)?;
        self.names.push(NameTable { file, offset: names.offset, size: names.size });
        u8::try_from(self.names.len() - 1).ok()
    }

    /// Adds the stubs, under the names of the functions that they jump to.
    fn add_stubs<F: ReadAt>(&mut self, image: &ElfImage<F>) -> Result<(), SymbolProblem> {
        let Some(symbols) = image.section_of_kind(elf::SHT_DYNSYM) else { return Ok(()) };
        let Some(table) = self.add_names(image, TableFile::Module, symbols) else { return Ok(()) };
        let by_index = relocations(image, ".rela.plt")?;
        let mut by_slot: FxHashMap<u64, u32> = relocations(image, ".rela.dyn")?.into_iter().collect();
        by_slot.extend(by_index.iter().copied());
        let (count, _) = symbol_count(symbols)?;
        for section in STUB_SECTIONS.into_iter().filter_map(|name| image.section(name)) {
            let code = image.section_bytes(section, MAX_STUBS_BYTES)?;
            let length = stub_length(section);
            for (index, stub) in code.chunks(length).enumerate() {
                let address = section.address.wrapping_add((index * length) as u64);
                let symbol = match stubs::target(stub, address) {
                    Some(StubTarget::Slot(slot)) => by_slot.get(&slot).copied(),
                    Some(StubTarget::Relocation(index)) => {
                        by_index.get(index as usize).map(|(_, symbol)| *symbol)
                    }
                    None => None,
                };
                let Some(symbol) = symbol.filter(|symbol| u64::from(*symbol) < count) else { continue };
                let name = symbol_name(image, symbols, symbol)?;
                self.functions.push(Function {
                    start: address,
                    rank: Rank::Stub,
                    size: length as u32,
                    name,
                    table,
                });
            }
        }
        Ok(())
    }

    /// Where the function at an address starts.
    pub(super) fn start_at<F: ReadAt>(&self, files: &SymbolFiles<'_, F>, address: u64) -> Option<u64> {
        self.candidates(files, address)?.first().map(|function| function.start)
    }

    /// The function at an address, under the best of its names; `known` is the best of all, if it is one of them.
    pub(super) fn find<F: ReadAt>(
        &self,
        files: &SymbolFiles<'_, F>,
        address: u64,
        known: Option<&str>,
    ) -> Option<FoundSymbol> {
        let candidates = self.candidates(files, address)?;
        let aliases = candidates.iter().take(MAX_ALIASES).filter(|alias| alias.covers(address));
        let named = aliases.filter_map(|alias| {
            let name = self.name(files, alias)?;
            Some(((Some(&*name) != known, alias.rank, readability(&name), name), alias))
        });
        let ((_, rank, _, name), alias) = named.min_by(|one, other| one.0.cmp(&other.0))?;
        let file = self.names[usize::from(alias.table)].file;
        Some(FoundSymbol { start: alias.start, name, is_stub: rank == Rank::Stub, file })
    }

    /// The symbols that start where the innermost function that covers an address does. A function without a size ends where
    /// the next one starts, or with its section.
    fn candidates<F: ReadAt>(&self, files: &SymbolFiles<'_, F>, address: u64) -> Option<&[Function]> {
        if let Some(found) = covering(&self.functions, address) {
            return Some(starting_at(&self.functions, found.start));
        }
        let last = up_to(&self.functions, address).last();
        let label = up_to(&self.labels, address).last()?;
        let section = files.module.code_section_at(address)?;
        let is_next = section.address <= label.start && last.is_none_or(|last| last.start < label.start);
        is_next.then(|| starting_at(&self.labels, label.start))
    }

    /// The name of a symbol without its version; `None` if it is empty or cannot be read.
    fn name<F: ReadAt>(&self, files: &SymbolFiles<'_, F>, function: &Function) -> Option<String> {
        let table = self.names.get(usize::from(function.table))?;
        let offset = u64::from(function.name);
        let bytes = match table.file {
            TableFile::Module => read_name(files.module.file(), table, offset),
            TableFile::Debug => read_name(files.debug?.file(), table, offset),
            TableFile::Mini => read_name(files.mini?.file(), table, offset),
        }?;
        let name = String::from_utf8_lossy(&bytes);
        let name = name.split('@').next().unwrap_or_default();
        (!name.is_empty()).then(|| name.to_owned())
    }
}

/// Those of these sorted functions that start at an address or before it.
fn up_to(sorted: &[Function], address: u64) -> &[Function] {
    &sorted[..sorted.partition_point(|function| function.start <= address)]
}

/// The innermost of these sorted functions that covers an address.
fn covering(sorted: &[Function], address: u64) -> Option<&Function> {
    up_to(sorted, address).iter().rev().take(MAX_STEPS_BACK).find(|function| function.covers(address))
}

/// Those of these sorted functions that start at `start`.
fn starting_at(sorted: &[Function], start: u64) -> &[Function] {
    let from = sorted.partition_point(|function| function.start < start);
    let to = sorted.partition_point(|function| function.start <= start);
    &sorted[from..to]
}

/// What makes one name of a function better than another: fewer leading underscores, then fewer bytes.
fn readability(name: &str) -> (usize, usize) {
    let is_mangled = super::function_name::is_mangled(name);
    let underscores = name.bytes().take_while(|byte| *byte == b'_').count();
    (if is_mangled { 0 } else { underscores }, name.len())
}

/// The number of symbols in a section, and the size of each.
fn symbol_count(section: &Section) -> Result<(u64, u64), SymbolProblem> {
    let entry = size_of::<Sym64<LE>>() as u64;
    if section.entry_size != entry {
        let found = section.entry_size;
        return Err(SymbolProblem::TooLarge { what: "size of a symbol", found, limit: entry });
    }
    let count = section.size / entry;
    check_limit("symbols", count, MAX_SYMBOLS)?;
    Ok((count, entry))
}

/// The function that a symbol stands for, if it does.
fn function(symbol: &Sym64<LE>, sections: &[Section], table: u8) -> Option<Function> {
    let index = symbol.st_shndx.get(LE);
    let kind = symbol.st_type();
    let is_function = kind == elf::STT_FUNC || kind == elf::STT_GNU_IFUNC;
    let in_code = || sections.get(usize::from(index.0)).is_some_and(Section::is_executable);
    let is_label = kind == elf::STT_NOTYPE && in_code();
    let name = symbol.st_name.get(LE);
    if index == elf::SHN_UNDEF || name == 0 || !(is_function || is_label) {
        return None;
    }
    let size = u32::try_from(symbol.st_size.get(LE)).unwrap_or(u32::MAX);
    let rank = match symbol.st_bind() {
        _ if is_label => Rank::Label,
        elf::STB_LOCAL => Rank::Local,
        elf::STB_WEAK => Rank::Weak,
        _ => Rank::Global,
    };
    Some(Function { start: symbol.st_value.get(LE), rank, size, name, table })
}

/// The relocations of a section: the slot that each fills, and the symbol that it fills it with.
fn relocations<F: ReadAt>(image: &ElfImage<F>, name: &str) -> Result<Vec<(u64, u32)>, SymbolProblem> {
    let Some(section) = image.section(name) else { return Ok(Vec::new()) };
    let size = size_of::<Rela64<LE>>() as u64;
    let bytes = image.section_bytes(section, MAX_RELOCATIONS * size)?;
    let whole = bytes.len() - bytes.len() % size_of::<Rela64<LE>>();
    let entries = pod::slice_from_all_bytes::<Rela64<LE>>(&bytes[..whole]).unwrap_or_default();
    let target = |entry: &Rela64<LE>| (entry.r_info.get(LE) >> 32) as u32;
    let with_symbol = entries.iter().map(|entry| (entry.r_offset.get(LE), target(entry)));
    if name == ".rela.plt" {
        return Ok(with_symbol.collect());
    }
    Ok(with_symbol.filter(|(_, symbol)| *symbol != 0).collect())
}

/// How many bytes a stub of a section has.
fn stub_length(section: &Section) -> usize {
    match section.entry_size {
        8 => 8,
        _ => stubs::STUB_BYTES,
    }
}

/// Where the name of a dynamic symbol starts among the names.
fn symbol_name<F: ReadAt>(image: &ElfImage<F>, symbols: &Section, index: u32) -> Result<u32, SymbolProblem> {
    let size = size_of::<Sym64<LE>>() as u64;
    let offset = symbols.offset.saturating_add(u64::from(index) * size);
    let bytes = read(image.file(), offset, size, "symbols")?;
    Ok(pod::from_bytes::<Sym64<LE>>(&bytes).map_or(0, |(symbol, _)| symbol.st_name.get(LE)))
}

/// The bytes of a name up to its end, at most one more than [`MAX_SYMBOL_BYTES`].
fn read_name<F: ReadAt>(file: &F, table: &NameTable, offset: u64) -> Option<Vec<u8>> {
    let rest = table.size.checked_sub(offset)?;
    let start = table.offset.checked_add(offset)?;
    let mut length = FIRST_NAME_BYTES;
    loop {
        let now = rest.min(length as u64).min(file.size().checked_sub(start)?);
        let mut bytes = read(file, start, now, "symbol names").ok()?;
        if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
            bytes.truncate(end);
            return Some(bytes);
        }
        if now < length as u64 || length > MAX_SYMBOL_BYTES {
            return Some(bytes);
        }
        length = if length == FIRST_NAME_BYTES { 2048 } else { MAX_SYMBOL_BYTES + 1 };
    }
}
