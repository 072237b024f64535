//! A module's ELF file: where it was loaded, its symbols, sections and segments. Nothing of Python.

use object::LittleEndian;
use object::elf;
use object::read::elf::{Dyn, ElfFile64, ProgramHeader, SectionHeader, Sym, SymbolTable, VersionTable};

use profiler_model::RemoteAddr;

use super::ModuleMapping;

type Elf = elf::FileHeader64<LittleEndian>;

/// Symbols looked at in one table. The largest programs have a few million; beyond that a search would
/// cost more than it is worth, and CPython's own symbols are in tables a hundredth of that.
const MAX_SYMBOLS: usize = 4 << 20;

/// Entries of the dynamic section that are looked at; real ones have some thirty.
const MAX_DYNAMIC_ENTRIES: usize = 1024;

/// The name of the structure that everything starts from, 3.7+.
const RUNTIME: &str = "_PyRuntime";

const PAGE: u64 = 4096;

/// How much of a file is looked at for symbols.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// What it exports: quick, for modules that hardly hold a Python.
    Exported,
    /// The table that stripping removes, too.
    All,
}

/// A parsed ELF file.
pub(super) struct Image<'a> {
    elf: ElfFile64<'a, LittleEndian>,
    depth: Depth,
    /// `_PyRuntime` by symbol or section, looked up once: an address in the file.
    runtime: Option<u64>,
}

/// A loadable segment: its address in the file's terms, its size in memory and what the file has of it.
#[derive(Clone, Copy)]
pub(super) struct Segment<'a> {
    pub(super) address: u64,
    pub(super) memory_size: u64,
    pub(super) data: &'a [u8],
}

/// Whether `file` is an ELF file of any kind.
pub(super) fn is_elf(file: &[u8]) -> bool {
    file.starts_with(&elf::ELFMAG)
}

/// Whether `file` is an ELF file of another class or byte order than [`Image::parse`] reads.
pub(super) fn is_foreign(file: &[u8]) -> bool {
    let is_ours = file.get(4) == Some(&elf::ELFCLASS64.0) && file.get(5) == Some(&elf::ELFDATA2LSB.0);
    is_elf(file) && !is_ours
}

impl<'a> Image<'a> {
    /// `None` when `file` is no 64-bit little-endian ELF file.
    pub(super) fn parse(file: &'a [u8], depth: Depth) -> Option<Self> {
        if !is_elf(file) || file.get(5) != Some(&elf::ELFDATA2LSB.0) {
            return None;
        }
        let elf = ElfFile64::parse(file).ok()?;
        let mut image = Image { elf, depth, runtime: None };
        image.runtime = image
            .dynamic_symbol(RUNTIME)
            .or_else(|| image.section(".PyRuntime"))
            .or_else(|| image.symbols([RUNTIME])[0]);
        Some(image)
    }

    /// Whether the file says where `_PyRuntime` is.
    pub(super) fn has_runtime_symbol(&self) -> bool {
        self.runtime.is_some()
    }

    /// `_PyRuntime` of the copy loaded with `bias`.
    pub(super) fn runtime(&self, bias: u64) -> Option<RemoteAddr> {
        self.runtime.map(|address| RemoteAddr::new(address.wrapping_add(bias)))
    }

    /// What was added to the addresses of the file, once for each time that it is loaded: every mapping of
    /// the page that the lowest segment starts in is one.
    pub(super) fn biases(&self, mappings: &[ModuleMapping]) -> Vec<u64> {
        let Some(first) = self.load_headers().next() else { return Vec::new() };
        let (offset, address) = (first.p_offset(LittleEndian), first.p_vaddr(LittleEndian));
        let page = offset & !(PAGE - 1);
        let executable = first.p_flags(LittleEndian).contains(elf::PF_X);
        let mut biases: Vec<u64> = mappings
            .iter()
            .filter(|mapping| mapping.file_offset == page && mapping.executable == executable)
            .map(|mapping| mapping.start.as_u64().wrapping_sub(address.wrapping_sub(offset - page)))
            .collect();
        biases.dedup();
        biases
    }

    /// A defined variable of the table that survives stripping. Mostly the file has an index of that table,
    /// as the loader does what is done here: then a few of its bytes are looked at instead of megabytes.
    pub(super) fn dynamic_symbol(&self, name: &str) -> Option<u64> {
        match self.indexed_symbol(name.as_bytes()) {
            Some(found) => found,
            None => lookup(self.elf.elf_dynamic_symbol_table(), [name])[0],
        }
    }

    /// The same by the index (`DT_GNU_HASH`); the outer `None` says that there is none.
    fn indexed_symbol(&self, name: &[u8]) -> Option<Option<u64>> {
        let (sections, file) = (self.elf.elf_section_table(), self.elf.data());
        let header = sections.gnu_hash_header(LittleEndian, file).ok()??;
        if header.bloom_shift.get(LittleEndian) >= u32::BITS {
            return None;
        }
        let (index, _) = sections.gnu_hash(LittleEndian, file).ok()??;
        let symbols = self.elf.elf_dynamic_symbol_table();
        let any_version = VersionTable::default();
        let hash = elf::gnu_hash(name);
        let found = index.find(LittleEndian, name, hash, None, symbols, &any_version);
        Some(found.filter(|(_, symbol)| is_variable(symbol)).map(|(_, symbol)| symbol.st_value(LittleEndian)))
    }

    /// Defined variables of the table that stripping removes. A compiler may have added a suffix to a
    /// `static` variable (`interp_head.lto_priv.0`).
    pub(super) fn symbols<const N: usize>(&self, names: [&str; N]) -> [Option<u64>; N] {
        match self.depth {
            Depth::Exported => [None; N],
            Depth::All => lookup(self.elf.elf_symbol_table(), names),
        }
    }

    /// Whether the table that stripping removes is there.
    pub(super) fn has_symbol_table(&self) -> bool {
        !self.elf.elf_symbol_table().is_empty()
    }

    /// The address of a section.
    pub(super) fn section(&self, name: &str) -> Option<u64> {
        let (_, section) = self.elf.elf_section_table().section_by_name(LittleEndian, name.as_bytes())?;
        Some(section.sh_addr(LittleEndian)).filter(|address| *address != 0)
    }

    /// The segments that are written to: data that is initialised, then data that is not.
    pub(super) fn writable(&self) -> impl Iterator<Item = Segment<'a>> {
        self.segments(|flags| flags.contains(elf::PF_W))
    }

    /// The segments that hold constants; in old layouts these are in the same segment as code.
    pub(super) fn constant(&self) -> impl Iterator<Item = Segment<'a>> {
        self.segments(|flags| !flags.contains(elf::PF_W))
    }

    fn segments(&self, wanted: fn(elf::ProgramFlags) -> bool) -> impl Iterator<Item = Segment<'a>> {
        let file = self.elf.data();
        self.load_headers().filter(move |header| wanted(header.p_flags(LittleEndian))).map(move |header| {
            Segment {
                address: header.p_vaddr(LittleEndian),
                memory_size: header.p_memsz(LittleEndian),
                data: header.data(LittleEndian, file).unwrap_or_default(),
            }
        })
    }

    fn load_headers(&self) -> impl Iterator<Item = &'a elf::ProgramHeader64<LittleEndian>> {
        self.elf.elf_program_headers().iter().filter(|header| header.p_type(LittleEndian) == elf::PT_LOAD)
    }

    /// Whether the program asks for a libpython to be loaded.
    pub(super) fn needs_libpython(&self) -> bool {
        self.needed().iter().any(|name| name.starts_with(b"libpython3"))
    }

    /// The names of the libraries that the loader loads with it.
    pub(super) fn needed(&self) -> Vec<&'a [u8]> {
        let file = self.elf.data();
        let Ok(Some((entries, strings))) = self.elf.elf_section_table().dynamic(LittleEndian, file) else {
            return Vec::new();
        };
        let strings = self.elf.elf_section_table().strings(LittleEndian, file, strings).unwrap_or_default();
        entries
            .iter()
            .take(MAX_DYNAMIC_ENTRIES)
            .filter(|entry| entry.d_tag(LittleEndian) == elf::DT_NEEDED)
            .filter_map(|entry| strings.get(u32::try_from(entry.d_val(LittleEndian)).ok()?).ok())
            .collect()
    }
}

/// The addresses of defined variables, each by its name or its name with a compiler's suffix.
fn lookup<const N: usize>(table: &SymbolTable<'_, Elf>, names: [&str; N]) -> [Option<u64>; N] {
    let mut found = [None; N];
    for symbol in table.iter().take(MAX_SYMBOLS) {
        let Ok(name) = table.symbol_name(LittleEndian, symbol) else { continue };
        for (index, wanted) in names.iter().enumerate() {
            if found[index].is_none()
                && name.strip_prefix(wanted.as_bytes()).is_some_and(|rest| rest.is_empty() || rest[0] == b'.')
                && is_variable(symbol)
            {
                found[index] = Some(symbol.st_value(LittleEndian));
            }
        }
        if found.iter().all(Option::is_some) {
            break;
        }
    }
    found
}

/// Whether a symbol is defined here and no function.
fn is_variable(symbol: &elf::Sym64<LittleEndian>) -> bool {
    symbol.st_shndx(LittleEndian) != elf::SHN_UNDEF && symbol.st_type() != elf::STT_FUNC
}
