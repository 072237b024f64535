//! The functions of one module by address, from the best source that the module has.

use std::sync::Arc;

use super::compressed;
use super::debug_files::{self, DebugFileRequest};
use super::debug_info::{DebugFrame, DebugInfo};
use super::elf_image::{ElfImage, check_limit};
use super::function_name::{FunctionName, is_mangled};
use super::go_functions::GoFunctions;
use super::name_cache::{NameCache, NameStyle};
use super::problem::{DebugFileRefusal, SymbolProblem};
use super::read_at::ReadAt;
use super::symbol_table::{FoundSymbol, SymbolFiles, SymbolTable, TableFile};

/// The most bytes of `.gnu_debugdata`, compressed and decompressed: the symbols of a large program.
const MAX_MINI_BYTES: u64 = 64 << 20;

/// The most problems that are kept of one module.
const MAX_PROBLEMS: usize = 16;

/// Where a name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NameSource {
    /// DWARF, of the module or of its debug file.
    DebugInfo,
    /// Go's table of functions.
    GoTable,
    /// The symbol table, of the module or of its debug file.
    SymbolTable,
    /// The symbol table in `.gnu_debugdata`.
    MiniDebugInfo,
    /// A stub of the procedure linkage table, by the function that it jumps to.
    Stub,
}

/// A function that runs at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionAt {
    /// Its name; `None` if only its file and line are known.
    pub name: Option<Arc<FunctionName>>,
    /// Whether the compiler inlined it into the next function of the chain.
    pub is_inlined: bool,
    /// The source file of the instruction.
    pub file: Option<Arc<str>>,
    /// The line of the instruction, from 1.
    pub line: Option<u32>,
    /// The column of the instruction, from 1.
    pub column: Option<u32>,
}

/// The functions that run at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionChain {
    /// The innermost inlined function first, the one that is really called last. Never empty.
    pub functions: Vec<FunctionAt>,
    /// Where the names come from.
    pub source: NameSource,
}

/// The functions of one module. Its file stays open to be read from; nothing is read before it is asked for.
///
/// Addresses are those of the file: the address in memory less what the module's load moved it by.
pub struct Symbolizer<F> {
    module: ElfImage<F>,
    debug: Option<ElfImage<F>>,
    shared: Option<ElfImage<F>>,
    /// The debug files to ask for, the next one last.
    requests: Vec<DebugFileRequest>,
    symbols: Option<Symbols>,
    /// The outer `None` says that it was not looked for yet.
    debug_info: Option<Option<DebugInfo>>,
    go: Option<Option<GoFunctions>>,
    names: NameCache,
    problems: Vec<SymbolProblem>,
}

/// The symbol tables of the module, and the file in memory that one of them is in.
struct Symbols {
    mini: Option<ElfImage<Vec<u8>>>,
    table: SymbolTable,
}

impl<F: ReadAt> Symbolizer<F> {
    /// Reads the headers of a module's file.
    ///
    /// # Errors
    /// If it is no ELF file for 64-bit little-endian machines, or its headers are cut or too large.
    pub fn new(file: F) -> Result<Self, SymbolProblem> {
        let module = ElfImage::open(file)?;
        let mut requests = debug_files::requests_of(&module, DebugInfo::is_in(&module));
        requests.reverse();
        Ok(Symbolizer {
            module,
            debug: None,
            shared: None,
            requests,
            symbols: None,
            debug_info: None,
            go: None,
            names: NameCache::default(),
            problems: Vec::new(),
        })
    }

    /// The debug file that is wanted next; `None` if no other file would help. Answered by [`Symbolizer::give_debug_file`] or
    /// [`Symbolizer::skip_debug_file`]; lookups work before, with what there is.
    pub fn wanted_debug_file(&self) -> Option<&DebugFileRequest> {
        self.requests.last()
    }

    /// Says that there is no file for [`Symbolizer::wanted_debug_file`]: the next one is wanted.
    pub fn skip_debug_file(&mut self) {
        self.requests.pop();
    }

    /// Gives a file for [`Symbolizer::wanted_debug_file`]. One that is refused leaves the request as it is: another path may
    /// have the right file.
    ///
    /// # Errors
    /// If it is damaged or belongs to another build of the module.
    pub fn give_debug_file(&mut self, file: F) -> Result<(), DebugFileRefusal> {
        let request = self.requests.last().ok_or(DebugFileRefusal::NotWanted)?;
        let image = debug_files::open_checked(request, &self.module, file)?;
        if matches!(request, DebugFileRequest::Shared { .. }) {
            self.shared = Some(image);
            self.requests.pop();
        } else {
            self.requests = debug_files::shared_request(&image).into_iter().collect();
            self.debug = Some(image);
        }
        (self.symbols, self.debug_info) = (None, None);
        Ok(())
    }

    /// The build id of the module.
    pub fn build_id(&self) -> Option<Box<[u8]>> {
        self.module.build_id()
    }

    /// The address of the file that the byte at an offset of the file is loaded to.
    pub fn address_of_offset(&self, offset: u64) -> Option<u64> {
        self.module.segments().iter().find_map(|segment| {
            let inside = offset.checked_sub(segment.file_offset)?;
            (inside < segment.file_size).then(|| segment.address.wrapping_add(inside))
        })
    }

    /// What is wrong with the files of the module, as far as they were read.
    pub fn problems(&self) -> &[SymbolProblem] {
        &self.problems
    }

    /// About how many bytes of memory the tables and names take.
    pub fn memory(&self) -> u64 {
        let debug_info = self.debug_info.iter().flatten().map(DebugInfo::memory).sum::<u64>();
        let go = self.go.iter().flatten().map(GoFunctions::memory).sum::<usize>();
        let symbols = self.symbols.as_ref().map_or(0, |symbols| {
            symbols.table.memory() + symbols.mini.as_ref().map_or(0, |mini| mini.file().len())
        });
        debug_info + (go + symbols + self.names.memory()) as u64
    }

    /// The functions at an address of the file; `None` if nothing names it. A return address is looked up one byte before,
    /// which is the caller's to know.
    pub fn lookup(&mut self, address: u64) -> Option<FunctionChain> {
        if !self.module.is_code(address) {
            return None;
        }
        let frames = self.debug_frames(address);
        if !frames.is_empty() {
            return Some(self.chain_of(&frames, address));
        }
        self.load_go();
        if let Some(function) = self.go.iter().flatten().find_map(|go| go.find(address)) {
            let found = FunctionAt {
                name: Some(self.names.name(NameStyle::Go, &function.name)),
                is_inlined: false,
                file: function.file.map(|file| self.names.file(&file)),
                line: function.line,
                column: None,
            };
            return Some(FunctionChain { functions: vec![found], source: NameSource::GoTable });
        }
        let symbol = self.symbol_at(address, None)?;
        let name = self.names.name(NameStyle::Linked, &symbol.name);
        let name = if symbol.is_stub { Arc::new(name.stub()) } else { name };
        let found = FunctionAt { name: Some(name), is_inlined: false, file: None, line: None, column: None };
        Some(FunctionChain { functions: vec![found], source: source_of(&symbol) })
    }

    /// Where the function that covers an address starts, by the symbol tables or Go's table.
    pub fn function_start(&mut self, address: u64) -> Option<u64> {
        if !self.module.is_code(address) {
            return None;
        }
        self.load_symbols();
        let symbols = self.symbols.as_ref()?;
        let files = files_of(&self.module, self.debug.as_ref(), symbols);
        if let Some(start) = symbols.table.start_at(&files, address) {
            return Some(start);
        }
        self.load_go();
        self.go.iter().flatten().find_map(|go| go.start_at(address))
    }

    /// Whether anything names functions of this module beyond those that it exports or imports.
    pub fn has_full_symbols(&self) -> bool {
        let has_table = |image: &ElfImage<F>| {
            image.section_of_kind(object::elf::SHT_SYMTAB).is_some() || DebugInfo::is_in(image)
        };
        has_table(&self.module) || self.debug.as_ref().is_some_and(has_table)
    }

    fn chain_of(&mut self, frames: &[DebugFrame], address: u64) -> FunctionChain {
        let last = frames.len() - 1;
        let symbol = self.symbol_at(address, frames[last].name.as_deref()).filter(|symbol| !symbol.is_stub);
        self.load_go();
        let is_go = self.go.iter().flatten().next().is_some();
        let mut functions = Vec::with_capacity(frames.len());
        for (index, frame) in frames.iter().enumerate() {
            let symbol = symbol.as_ref().filter(|_| index == last).map(|symbol| symbol.name.as_str());
            functions.push(FunctionAt {
                name: self.name_of(frame, symbol, is_go),
                is_inlined: index != last,
                file: frame.file.as_ref().map(|file| self.names.file(file)),
                line: frame.line,
                column: frame.column,
            });
        }
        FunctionChain { functions, source: NameSource::DebugInfo }
    }

    /// The name of a function by the debug information and, if it is no inlined one, by its symbol, which alone tells the parts
    /// and copies of a function from each other.
    fn name_of(
        &mut self,
        frame: &DebugFrame,
        symbol: Option<&str>,
        is_go: bool,
    ) -> Option<Arc<FunctionName>> {
        let style = match frame.name.as_deref() {
            Some(name) if is_go && !is_mangled(name) => NameStyle::Go,
            _ if frame.is_fortran => NameStyle::Fortran,
            _ => NameStyle::Linked,
        };
        let (name, symbol) = match (frame.name.as_deref(), symbol) {
            (Some(name), Some(symbol)) if is_mangled(symbol) && !is_mangled(name) => (symbol, Some(symbol)),
            (Some(name), symbol) => (name, symbol),
            (None, symbol) => (symbol?, symbol),
        };
        let named = self.names.name(style, name);
        let Some(symbol) = symbol.filter(|symbol| *symbol != &*named.symbol) else { return Some(named) };
        let symbol = Arc::clone(&self.names.name(style, symbol).symbol);
        Some(Arc::new(FunctionName { display: Arc::clone(&named.display), symbol }))
    }

    /// What the debug information says of an address; nothing if there is none.
    fn debug_frames(&mut self, address: u64) -> Vec<DebugFrame> {
        self.load_debug_info();
        let Some(Some(info)) = &self.debug_info else { return Vec::new() };
        match info.frames_at(address) {
            Ok(frames) => frames,
            Err(problem) => {
                if problem == SymbolProblem::TooMuchWork {
                    self.debug_info = Some(None);
                }
                self.note(problem);
                Vec::new()
            }
        }
    }

    fn symbol_at(&mut self, address: u64, known: Option<&str>) -> Option<FoundSymbol> {
        self.load_symbols();
        let symbols = self.symbols.as_ref()?;
        symbols.table.find(&files_of(&self.module, self.debug.as_ref(), symbols), address, known)
    }

    fn load_debug_info(&mut self) {
        if self.debug_info.is_some() {
            return;
        }
        let images = [Some(&self.module), self.debug.as_ref()];
        let image = images.into_iter().flatten().find(|image| DebugInfo::is_in(image));
        let read = image.map(|image| DebugInfo::read(image, self.shared.as_ref()));
        self.debug_info = Some(read.and_then(|read| self.noted(read)));
    }

    fn load_go(&mut self) {
        if self.go.is_none() {
            let read = GoFunctions::read(&self.module);
            self.go = Some(read.and_then(|read| self.noted(read)));
        }
    }

    fn load_symbols(&mut self) {
        if self.symbols.is_some() {
            return;
        }
        let mini = mini_debug_info(&self.module).and_then(|read| self.noted(read));
        let mut problems = Vec::new();
        let files = SymbolFiles { module: &self.module, debug: self.debug.as_ref(), mini: mini.as_ref() };
        let table = SymbolTable::build(&files, &mut problems);
        problems.into_iter().for_each(|problem| self.note(problem));
        self.symbols = Some(Symbols { mini, table });
    }

    /// The value, or nothing after its problem was noted.
    fn noted<T>(&mut self, read: Result<T, SymbolProblem>) -> Option<T> {
        read.map_err(|problem| self.note(problem)).ok()
    }

    fn note(&mut self, problem: SymbolProblem) {
        if self.problems.len() < MAX_PROBLEMS && !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}

fn files_of<'a, F>(
    module: &'a ElfImage<F>,
    debug: Option<&'a ElfImage<F>>,
    symbols: &'a Symbols,
) -> SymbolFiles<'a, F> {
    SymbolFiles { module, debug, mini: symbols.mini.as_ref() }
}

fn source_of(symbol: &FoundSymbol) -> NameSource {
    match symbol.file {
        _ if symbol.is_stub => NameSource::Stub,
        TableFile::Module | TableFile::Debug => NameSource::SymbolTable,
        TableFile::Mini => NameSource::MiniDebugInfo,
    }
}

/// The symbols that distributions leave in stripped programs: an ELF file in a section, compressed by xz.
fn mini_debug_info<F: ReadAt>(module: &ElfImage<F>) -> Option<Result<ElfImage<Vec<u8>>, SymbolProblem>> {
    let section = module.section(".gnu_debugdata")?;
    Some(open_mini(module, section))
}

fn open_mini<F: ReadAt>(
    module: &ElfImage<F>,
    section: &super::elf_image::Section,
) -> Result<ElfImage<Vec<u8>>, SymbolProblem> {
    check_limit("bytes of .gnu_debugdata", section.size, MAX_MINI_BYTES)?;
    let bytes = module.section_bytes(section, MAX_MINI_BYTES)?;
    let damaged = || SymbolProblem::Compression(".gnu_debugdata");
    ElfImage::open(compressed::xz(&bytes, MAX_MINI_BYTES as usize).ok_or_else(damaged)?)
}
