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
//! This module decides in which order all that is tried. [`candidate`] lists the modules that are looked into, [`image`]
//! reads ELF, [`version`] recognises versions, [`scan`] searches data, [`runtime`] is what is found, [`find_error`] why
//! nothing is, and [`evidence`] reports by what it was found.

mod candidate;
mod evidence;
mod find_error;
mod image;
mod runtime;
mod scan;
#[cfg(test)]
mod tests;
mod version;

use memchr::memmem;
use profiler_memory::ReadMemory;
use profiler_model::RemoteAddr;

use crate::debug_offsets::{COOKIE, MAX_DEBUG_OFFSETS_BYTES, parse};
use crate::offsets::{Offsets, OffsetsError, Version};
use crate::versions::offsets_for;
use candidate::{Candidate, file_name, is_python_name, likely};
use find_error::keep_best;
use image::{Depth, Image};
use runtime::{Place, Variables};

pub use candidate::is_python_file;
pub use evidence::{Evidence, Whereabouts, whereabouts};
pub use find_error::{FindError, NotPython};
pub use runtime::{CountPlace, GilAddresses, Runtime};

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

/// The Python that is linked into an executable named as one.
fn own(executable: &Candidate<'_>, memory: &impl ReadMemory) -> Option<Runtime> {
    if !is_python_name(executable.file_name()) {
        return None;
    }
    [by_symbol, by_search].iter().find_map(|search| search(executable, memory).ok().flatten())
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
    Ok(Runtime::at(place, offsets))
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
    let runtime = Runtime::at(place, offsets);
    match runtime.has_thread(memory)? {
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
