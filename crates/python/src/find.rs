//! Finds the running CPython in a process: from its modules (as plain data) and its memory to a [`Runtime`].
//!
//! What is sure is tried first: the symbol `_PyRuntime` (3.6: `interp_head`) or the section `.PyRuntime`,
//! in the executable and in libpython, then in any other module. Only where none of these is there, data is
//! searched: for the cookie of the debug offsets (3.13+), and in stripped old builds for something that
//! leads to an interpreter, its thread state and back. A program of any name can be such a build, if it holds
//! CPython's cache tag. A process can hold libpython twice (`import _ctypes`
//! of another build, `dlmopen`); one with a live thread is taken. Where several have one, because the program runs
//! another Python, the program's own is taken: the one in the executable, else in a library that the executable needs,
//! else in the one that was loaded first.
//!
//! This module decides, [`evidence`] tells afterwards by what; [`image`] knows ELF, [`version`] recognises versions, [`scan`] searches data.

mod evidence;
mod image;
mod scan;
#[cfg(test)]
mod tests;
mod version;

use memchr::memmem;
use profiler_memory::{ReadError, ReadMemory};
use profiler_model::RemoteAddr;

use crate::debug_offsets::{COOKIE, MAX_DEBUG_OFFSETS_BYTES, parse};
use crate::offsets::{GilOffsets, Offsets, OffsetsError, Version};
use crate::versions::offsets_for;
pub use evidence::{Evidence, Whereabouts, whereabouts};
use image::{Depth, Image};

/// Interpreters that are looked at for a live thread: the first is alive in all but odd moments.
const MAX_INTERPRETERS_TRIED: usize = 64;

/// A mapping of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleMapping {
    /// Its first byte.
    pub start: RemoteAddr,
    /// The first byte after it.
    pub end: RemoteAddr,
    /// Where in the file it starts.
    pub file_offset: u64,
    /// Whether it can be read.
    pub readable: bool,
    /// Whether it can be written.
    pub writable: bool,
    /// Whether it can be executed.
    pub executable: bool,
}

/// A file that is mapped into the target.
#[derive(Clone, Copy, Debug)]
pub struct Module<'a> {
    /// Its path, as the target sees it.
    pub path: &'a str,
    /// The file's bytes; empty where the file cannot be read, and then only memory is searched.
    pub file: &'a [u8],
    /// Its mappings, by address.
    pub mappings: &'a [ModuleMapping],
}

/// A running CPython, and where to read what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Where its structures keep their fields.
    pub offsets: Offsets,
    /// Address of the pointer to the first interpreter.
    pub interpreters_head: RemoteAddr,
    /// The one GIL (to 3.11). `None` where each interpreter points to its own, and in a stripped 3.6,
    /// where nothing says where it is.
    pub gil: Option<GilAddresses>,
    /// The process-wide flag that the collector runs (3.6 to 3.8); later each interpreter has its own.
    pub gc_collecting: Option<RemoteAddr>,
    /// `_PyRuntime`; 3.6: the same as `interpreters_head`.
    pub main_address: RemoteAddr,
}

impl Runtime {
    /// Whether it still leads to a live thread.
    pub fn is_alive(&self, memory: &impl ReadMemory) -> bool {
        is_alive(memory, self.interpreters_head, &self.offsets) == Ok(true)
    }
}

/// Where a GIL is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GilAddresses {
    /// The thread state that holds it or held it last.
    pub last_holder: RemoteAddr,
    /// 1 while it is held, 0 while it is free, -1 before it exists: 3.6 creates it only when a second
    /// thread starts (four bytes).
    pub locked: RemoteAddr,
    /// How often it changed hands.
    pub switch_number: Option<RemoteAddr>,
    /// From here ...
    pub start: RemoteAddr,
    /// ... to before here, a futex that a thread waits on is the GIL's.
    pub end: RemoteAddr,
    /// Where the interpreter that this GIL is a part of has what [`crate::CodeCount`] says.
    pub code_count: Option<CountPlace>,
}

/// Where a number lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CountPlace {
    /// Its address.
    pub at: RemoteAddr,
    /// How many bytes it has: four or eight.
    pub bytes: u32,
}

impl GilAddresses {
    /// The addresses in the GIL structure at `base`.
    pub fn at(base: RemoteAddr, offsets: &GilOffsets) -> Self {
        let at = |offset: u32| base.offset(u64::from(offset));
        GilAddresses {
            last_holder: at(offsets.last_holder.offset()),
            locked: at(offsets.locked.offset()),
            switch_number: Some(at(offsets.switch_number.offset())),
            start: base,
            end: at(offsets.size),
            code_count: offsets
                .code_count
                .map(|count| CountPlace { at: at(count.offset()), bytes: count.size() }),
        }
    }

    /// Whether a futex at `address` is this GIL's.
    pub fn contains(&self, address: RemoteAddr) -> bool {
        (self.start..self.end).contains(&address)
    }
}

/// What a process is in which no CPython 3 was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPython {
    /// None of its modules is a Python.
    #[error("it is not a Python process")]
    NoModule,
    /// It runs Python 2.
    #[error("it runs Python 2; CPython 3.6 to 3.15 are supported")]
    Python2,
    /// It runs PyPy.
    #[error("it runs PyPy; CPython 3.6 to 3.15 are supported")]
    PyPy,
    /// Its Python is not built for 64 bits, little-endian.
    #[error("its Python is built for 32 bits or another architecture; 64-bit little-endian is supported")]
    OtherArchitecture,
}

/// Why no running CPython was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// There is none, and what is there instead.
    #[error("{0}")]
    NotPython(NotPython),
    /// There is one of a version that is not known.
    #[error("CPython {0} is not known: 3.6 to 3.15 are")]
    UnknownVersion(Version),
    /// It is a pre-release, or its description of itself is damaged.
    #[error(transparent)]
    Offsets(OffsetsError),
    /// There is one, but no thread runs in it yet, or any more: try again.
    #[error("its Python has no running interpreter (yet)")]
    NotInitialised,
    /// The process's memory cannot be read.
    #[error(transparent)]
    Unreadable(ReadError),
}

impl From<OffsetsError> for FindError {
    fn from(error: OffsetsError) -> Self {
        match error {
            OffsetsError::UnknownVersion(version) => FindError::UnknownVersion(version),
            other => FindError::Offsets(other),
        }
    }
}

/// A module that is looked into: its ELF image where the file could be read.
struct Candidate<'a> {
    module: Module<'a>,
    image: Option<Image<'a>>,
    /// Where the module was loaded, against the addresses in its file; more than one where it was mapped
    /// twice.
    biases: Vec<u64>,
}

impl<'a> Candidate<'a> {
    fn new(module: &Module<'a>, depth: Depth) -> Self {
        let image = Image::parse(module.file, depth);
        let mut biases = image.as_ref().map(|image| image.biases(module.mappings)).unwrap_or_default();
        // The kernel places what is loaded later below.
        biases.sort_unstable_by_key(|bias| std::cmp::Reverse(*bias));
        Candidate { module: *module, image, biases }
    }

    fn file_name(&self) -> &'a str {
        file_name(self.module.path)
    }
}

/// Where a runtime is, before its version is known.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// `_PyRuntime`.
    Runtime(RemoteAddr),
    /// The separate variables of 3.6.
    Variables(Variables),
}

/// The variables that 3.6 has instead of `_PyRuntime`.
#[derive(Clone, Copy, Debug)]
struct Variables {
    interpreters_head: RemoteAddr,
    gil: Option<GilAddresses>,
    gc_collecting: Option<RemoteAddr>,
}

/// Finds the running CPython. The first of `modules` is taken to be the executable.
///
/// # Errors
/// When there is none, it is not up yet, its version is not known or the process cannot be read.
pub fn find(modules: &[Module<'_>], memory: &impl ReadMemory) -> Result<Runtime, FindError> {
    find_opening(modules, |index| modules[index].file, memory)
}

/// The same where the files of most modules are not open yet. Those of the executable and of what is named like a Python
/// ([`is_python_file`]) are looked into at once; `open` opens any other one, by its index, and is called only if Python is
/// in none of these.
///
/// # Errors
/// As [`find`].
pub fn find_opening<'a>(
    modules: &[Module<'a>],
    open: impl Fn(usize) -> &'a [u8],
    memory: &impl ReadMemory,
) -> Result<Runtime, FindError> {
    let likely = likely(modules);
    let mut best: Option<FindError> = None;
    if let Some(runtime) = likely.first().and_then(|executable| own(executable, memory)) {
        return Ok(runtime);
    }
    for search in [by_symbol, by_search] {
        for candidate in &likely {
            match search(candidate, memory) {
                Ok(Some(runtime)) => return Ok(runtime),
                Ok(None) => {}
                Err(error) => keep_best(&mut best, error)?,
            }
        }
        if let Some(error) = best {
            return Err(error);
        }
    }
    if likely.iter().any(|candidate| candidate.image.as_ref().is_some_and(Image::needs_libpython)) {
        return Err(FindError::NotInitialised);
    }
    let others = modules.iter().enumerate().skip(1).filter(|(_, module)| !is_python_file(module.path));
    for (index, module) in others {
        let opened = Module { file: open(index), ..*module };
        match by_symbol(&Candidate::new(&opened, Depth::Exported), memory) {
            Ok(Some(runtime)) => return Ok(runtime),
            Ok(None) => {}
            Err(error) => keep_best(&mut best, error)?,
        }
    }
    // Last, as it takes longest: a stripped Python inside a program of another name.
    if let Some(program) = likely.first().filter(|candidate| !is_python_name(candidate.file_name())) {
        match by_tag(program, memory) {
            Ok(Some(runtime)) => return Ok(runtime),
            Ok(None) => {}
            Err(error) => keep_best(&mut best, error)?,
        }
    }
    Err(best.unwrap_or_else(|| FindError::NotPython(what_else(modules, &likely))))
}

/// The Pythons with a live thread beside `runtime`, each with the path of its module. The first of `modules` is taken to be
/// the executable; only it and modules that are named as Pythons are looked into.
pub fn find_others<'a>(
    runtime: &Runtime,
    modules: &[Module<'a>],
    memory: &impl ReadMemory,
) -> Vec<(Runtime, &'a str)> {
    let mut others: Vec<(Runtime, &str)> = Vec::new();
    for candidate in likely(modules) {
        let by_symbol = all_by_symbol(&candidate, memory).map_or(Vec::new(), |(found, _)| found);
        let found = match by_symbol.is_empty() && is_python_name(candidate.file_name()) {
            true => by_search(&candidate, memory).ok().flatten().into_iter().collect(),
            false => by_symbol,
        };
        for other in found {
            let is_known = |known: &Runtime| known.main_address == other.main_address;
            if !is_known(runtime) && !others.iter().any(|(known, _)| is_known(known)) {
                others.push((other, candidate.module.path));
            }
        }
    }
    others
}

/// The modules in which a Python is looked for first: the executable and those that are named as Pythons, of these the
/// libraries that the executable needs before others, and what was loaded earlier before what was loaded later.
fn likely<'a>(modules: &[Module<'a>]) -> Vec<Candidate<'a>> {
    let mut likely: Vec<Candidate<'_>> = modules
        .iter()
        .enumerate()
        .filter(|(index, module)| *index == 0 || is_python_name(file_name(module.path)))
        .map(|(_, module)| Candidate::new(module, Depth::All))
        .collect();
    let Some((executable, libraries)) = likely.split_first_mut() else { return likely };
    let needed = executable.image.as_ref().map(Image::needed).unwrap_or_default();
    libraries.sort_by_key(|library| {
        let is_needed = needed.contains(&library.file_name().as_bytes());
        let start = library.module.mappings.first().map(|mapping| mapping.start);
        // The kernel places what is loaded later below.
        (!is_needed, std::cmp::Reverse(start))
    });
    likely
}

/// The Python that is linked into an executable named as one.
fn own(executable: &Candidate<'_>, memory: &impl ReadMemory) -> Option<Runtime> {
    if !is_python_name(executable.file_name()) {
        return None;
    }
    [by_symbol, by_search].iter().find_map(|search| search(executable, memory).ok().flatten())
}

/// Keeps the error that says most; one that concerns the whole process ends the search.
fn keep_best(best: &mut Option<FindError>, error: FindError) -> Result<(), FindError> {
    use ReadError::{NoAnswer, NotPermitted, ProcessEnded};
    if matches!(error, FindError::Unreadable(ProcessEnded | NotPermitted | NoAnswer)) {
        return Err(error);
    }
    let rank = |error: &FindError| match error {
        FindError::NotInitialised => 3,
        FindError::UnknownVersion(_) | FindError::Offsets(_) => 2,
        FindError::Unreadable(_) => 1,
        FindError::NotPython(_) => 0,
    };
    if best.as_ref().is_none_or(|kept| rank(kept) < rank(&error)) {
        *best = Some(error);
    }
    Ok(())
}

fn file_name(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.strip_suffix(" (deleted)").unwrap_or(name)
}

/// Whether the file at this path is named like a Python.
pub fn is_python_file(path: &str) -> bool {
    is_python_name(file_name(path))
}

fn is_python_name(name: &str) -> bool {
    name.starts_with("python") || name.starts_with("libpython")
}

/// The runtime at the symbols or the section of the module; `None` where it has none of them.
fn by_symbol(candidate: &Candidate<'_>, memory: &impl ReadMemory) -> Result<Option<Runtime>, FindError> {
    let (found, best) = all_by_symbol(candidate, memory)?;
    match found.into_iter().next() {
        Some(runtime) => Ok(Some(runtime)),
        None => best.map_or(Ok(None), Err),
    }
}

/// All runtimes there, one for each copy of the module in which a thread lives, and the error that says most of the
/// others.
fn all_by_symbol(
    candidate: &Candidate<'_>,
    memory: &impl ReadMemory,
) -> Result<(Vec<Runtime>, Option<FindError>), FindError> {
    let Some(image) = &candidate.image else { return Ok((Vec::new(), None)) };
    let (mut found, mut best) = (Vec::new(), None);
    let place: fn(&Image<'_>, u64) -> Option<Place> = if image.has_runtime_symbol() {
        |image, bias| image.runtime(bias).map(Place::Runtime)
    } else {
        variables
    };
    for bias in &candidate.biases {
        let Some(place) = place(image, *bias) else { continue };
        match identify(candidate, *bias, place, memory) {
            Ok(runtime) => found.push(runtime),
            Err(error) => keep_best(&mut best, error)?,
        }
    }
    Ok((found, best))
}

/// The variables of 3.6, by their symbols.
fn variables(image: &Image<'_>, bias: u64) -> Option<Place> {
    // `static` variables: only in the full symbol table.
    let [head, locked, last_holder, switch_number, cond, mutex, switch_cond, switch_mutex, collecting] =
        image
            .symbols([
                "interp_head",
                "gil_locked",
                "gil_last_holder",
                "gil_switch_number",
                "gil_cond",
                "gil_mutex",
                "switch_cond",
                "switch_mutex",
                "collecting",
            ])
            .map(|address| address.map(|address| RemoteAddr::new(address.wrapping_add(bias))));
    let locks = [cond, mutex, switch_cond, switch_mutex];
    let gil = (|| {
        Some(GilAddresses {
            last_holder: last_holder?,
            locked: locked?,
            switch_number,
            start: locks.iter().flatten().min().copied()?,
            // Each lock is followed by at most 48 bytes of itself.
            end: locks.iter().flatten().max().copied()?.offset(48),
            code_count: None,
        })
    })();
    Some(Place::Variables(Variables { interpreters_head: head?, gil, gc_collecting: collecting }))
}

/// What a search of the module's data finds; `None` where the module is no Python.
fn by_search(candidate: &Candidate<'_>, memory: &impl ReadMemory) -> Result<Option<Runtime>, FindError> {
    if image::is_foreign(candidate.module.file) {
        // Its structures have other sizes, so a match would not be a runtime.
        return Ok(None);
    }
    let mut best = None;
    for at in scan::cookies(candidate, memory) {
        match identify(candidate, 0, Place::Runtime(at), memory) {
            Ok(runtime) => return Ok(Some(runtime)),
            Err(error) => keep_best(&mut best, error)?,
        }
    }
    if let Some(error) = best {
        return Err(error);
    }
    if !is_python_name(candidate.file_name()) {
        return Ok(None);
    }
    let Some(version) = version::from_text(candidate, memory) else { return Ok(None) };
    if version.major < 3 {
        return Ok(None);
    }
    let offsets = table(version)?;
    if candidate.image.as_ref().is_some_and(Image::needs_libpython) {
        // The executable of a shared build: its Python is in a library that is not mapped yet.
        return Ok(None);
    }
    by_walk(candidate, offsets, memory).map(Some)
}

/// What a search finds in a program whose name does not say that it is a Python, but whose constants hold CPython's
/// cache tag; `None` where they do not.
fn by_tag(candidate: &Candidate<'_>, memory: &impl ReadMemory) -> Result<Option<Runtime>, FindError> {
    match version::from_tag(candidate, memory) {
        Some(version) => by_walk(candidate, table(version)?, memory).map(Some),
        None => Ok(None),
    }
}

/// The runtime that is found in the module's data by walking from it to a thread.
fn by_walk(
    candidate: &Candidate<'_>,
    offsets: Offsets,
    memory: &impl ReadMemory,
) -> Result<Runtime, FindError> {
    let place = scan::walk(candidate, &offsets, memory).ok_or(FindError::NotInitialised)?;
    Ok(assemble(offsets, place))
}

/// The runtime at `place`: its version, its offsets, and whether a thread lives in it.
fn identify(
    candidate: &Candidate<'_>,
    bias: u64,
    place: Place,
    memory: &impl ReadMemory,
) -> Result<Runtime, FindError> {
    let offsets = match place {
        Place::Runtime(at) => match described(at, memory)? {
            Some(offsets) => offsets,
            None => tabulated(candidate, bias, memory)?,
        },
        Place::Variables(_) => tabulated(candidate, bias, memory)?,
    };
    let runtime = assemble(offsets, place);
    match is_alive(memory, runtime.interpreters_head, &runtime.offsets)? {
        true => Ok(runtime),
        false => Err(FindError::NotInitialised),
    }
}

/// The offsets that the runtime at `at` describes itself with; `None` where it does not.
fn described(at: RemoteAddr, memory: &impl ReadMemory) -> Result<Option<Offsets>, FindError> {
    let mut bytes = [0; MAX_DEBUG_OFFSETS_BYTES];
    // `_PyRuntime` of 3.7 to 3.12 may be shorter than that and lie at the end of its segment.
    let mut cookie = [0; COOKIE.len()];
    memory.read(at, &mut cookie).map_err(FindError::Unreadable)?;
    if cookie != *COOKIE {
        return Ok(None);
    }
    memory.read(at, &mut bytes).map_err(FindError::Unreadable)?;
    Ok(Some(parse(&bytes)?))
}

/// The offsets from the tables, for the version that the module names.
fn tabulated(candidate: &Candidate<'_>, bias: u64, memory: &impl ReadMemory) -> Result<Offsets, FindError> {
    let version = version::from_symbol(candidate, bias, memory)
        .or_else(|| version::from_text(candidate, memory))
        .ok_or(FindError::NotPython(NotPython::NoModule))?;
    table(version)
}

/// The table for `version`, which no debug offsets describe.
fn table(version: Version) -> Result<Offsets, FindError> {
    match (version.major, version.minor) {
        (..3, _) => Err(FindError::NotPython(NotPython::Python2)),
        // It should describe itself, but its cookie is not there: not written yet, or wiped.
        (3, 13..=15) => Err(FindError::Offsets(OffsetsError::NoCookie)),
        _ => Ok(offsets_for(version)?),
    }
}

fn assemble(offsets: Offsets, place: Place) -> Runtime {
    match place {
        Place::Runtime(at) => {
            let field = |offset: u32| at.offset(u64::from(offset));
            Runtime {
                interpreters_head: field(offsets.runtime.interpreters_head.offset()),
                gil: offsets.runtime.gil.map(|base| GilAddresses::at(field(base), &offsets.gil)),
                gc_collecting: offsets.runtime.gc_collecting.map(|flag| field(flag.offset())),
                main_address: at,
                offsets,
            }
        }
        Place::Variables(variables) => Runtime {
            offsets,
            interpreters_head: variables.interpreters_head,
            gil: variables.gil,
            gc_collecting: variables.gc_collecting,
            main_address: variables.interpreters_head,
        },
    }
}

/// Whether the list at `head` leads to an interpreter with a thread state that points back to it. Lists that change under
/// the walk may look broken or empty; the caller tries again.
fn is_alive(memory: &impl ReadMemory, head: RemoteAddr, offsets: &Offsets) -> Result<bool, FindError> {
    let mut interpreter = memory.scalar::<RemoteAddr>(head).map_err(FindError::Unreadable)?;
    let mut known = Vec::new();
    let mut broken = None;
    while !interpreter.is_null() && known.len() < MAX_INTERPRETERS_TRIED {
        let owned = owns_a_thread(memory, interpreter, offsets);
        if owned == Ok(true) {
            return Ok(true);
        }
        broken = broken.or(owned.err());
        known.push(interpreter);
        match memory.field(interpreter, offsets.interpreter.next) {
            Ok(next) if known.contains(&next) => broken = broken.or(Some(ReadError::BrokenList(next))),
            Ok(next) => {
                interpreter = next;
                continue;
            }
            Err(error) => broken = broken.or(Some(error)),
        }
        break;
    }
    broken.map_or(Ok(false), |error| Err(FindError::Unreadable(error)))
}

/// Whether the interpreter has a thread state that points back to it; an error where it has one that does not.
fn owns_a_thread(
    memory: &impl ReadMemory,
    interpreter: RemoteAddr,
    offsets: &Offsets,
) -> Result<bool, ReadError> {
    let thread = memory.field(interpreter, offsets.interpreter.threads_head)?;
    if thread.is_null() {
        return Ok(false);
    }
    match memory.field(thread, offsets.thread.interpreter)? == interpreter {
        true => Ok(true),
        false => Err(ReadError::BrokenList(thread)),
    }
}

/// What the process is instead of a CPython 3.
fn what_else(modules: &[Module<'_>], likely: &[Candidate<'_>]) -> NotPython {
    let named = |prefixes: [&str; 2]| {
        modules.iter().any(|module| prefixes.iter().any(|prefix| file_name(module.path).starts_with(prefix)))
    };
    if named(["libpypy", "pypy"]) {
        return NotPython::PyPy;
    }
    let has_python2 = |candidate: &Candidate<'_>| {
        candidate.image.as_ref().is_some_and(|image| image.dynamic_symbol("PyString_Type").is_some())
    };
    if named(["libpython2", "python2"]) || likely.iter().any(has_python2) {
        return NotPython::Python2;
    }
    // A program of another name that has such a Python in it still names the runtime.
    let foreign = |candidate: &Candidate<'_>| {
        let file = candidate.module.file;
        image::is_foreign(file)
            && (is_python_name(candidate.file_name()) || memmem::find(file, b"_PyRuntime").is_some())
    };
    if likely.iter().any(foreign) { NotPython::OtherArchitecture } else { NotPython::NoModule }
}
