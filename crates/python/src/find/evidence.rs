//! By what a runtime was found, and in which module: for people who ask why a Python is found or not.

use profiler_memory::ReadMemory;

use super::image::{Depth, Image};
use super::{COOKIE, Module, Runtime};

/// What leads to a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// A symbol names it.
    Symbol(&'static str),
    /// It has a section of its own, `.PyRuntime`.
    Section,
    /// It begins with the cookie of the debug offsets (3.13+), for which the data was searched.
    Cookie,
    /// Nothing but that it leads to a live thread and back: the data was searched for that.
    Search,
}

/// Where a runtime is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whereabouts<'a> {
    /// The path of its module, as the target sees it.
    pub path: &'a str,
    /// Whether that is the executable: Python is linked into it. Otherwise it is a library.
    pub in_executable: bool,
    /// Whether the module's table of all symbols was removed; `None` where its file cannot be read.
    pub is_stripped: Option<bool>,
    /// What leads to it.
    pub evidence: Evidence,
}

/// Where `runtime` is among `modules`, the first of which is the executable; `None` where they have changed
/// since.
pub fn whereabouts<'a>(
    runtime: &Runtime,
    modules: &[Module<'a>],
    memory: &impl ReadMemory,
) -> Option<Whereabouts<'a>> {
    let at = runtime.main_address;
    let is_in = |module: &&Module<'_>| module.mappings.iter().any(|one| one.start <= at && at < one.end);
    let index = modules.iter().position(|module| is_in(&module))?;
    let module = &modules[index];
    let image = Image::parse(module.file, Depth::All);
    let named = image.as_ref().and_then(|image| named(image, module, runtime));
    Some(Whereabouts {
        path: module.path,
        in_executable: index == 0,
        is_stripped: image.as_ref().map(|image| !image.has_symbol_table()),
        evidence: named.unwrap_or_else(|| {
            let mut start = [0; COOKIE.len()];
            let has_cookie = memory.read(at, &mut start).is_ok() && start == *COOKIE;
            if has_cookie { Evidence::Cookie } else { Evidence::Search }
        }),
    })
}

/// What in the file leads to the runtime, in the order in which it is tried.
fn named(image: &Image<'_>, module: &Module<'_>, runtime: &Runtime) -> Option<Evidence> {
    let biases = image.biases(module.mappings);
    let leads_there = |address: Option<u64>| {
        let address = address?;
        biases.iter().any(|bias| address.wrapping_add(*bias) == runtime.main_address.as_u64()).then_some(())
    };
    let symbol = |name| leads_there(image.symbols([name])[0]).map(|()| Evidence::Symbol(name));
    leads_there(image.dynamic_symbol("_PyRuntime"))
        .map(|()| Evidence::Symbol("_PyRuntime"))
        .or_else(|| leads_there(image.section(".PyRuntime")).map(|()| Evidence::Section))
        .or_else(|| symbol("_PyRuntime"))
        .or_else(|| symbol("interp_head"))
}
