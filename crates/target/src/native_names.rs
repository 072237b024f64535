//! Names for native frames: functions with what was inlined into them, files and lines. It reads symbols and debug information, which
//! takes long, and so is not done while sampling.

use std::collections::HashMap;
use std::sync::Arc;

use profiler_model::{Frame, FrameKind, Position, RemoteAddr};
use profiler_native::{DebugFileRequest, FunctionAt, ReadAt, Symbolizer, unwound_functions};
use profiler_os::{MappedFile, Process, target_files};

use crate::native_code::ModuleCode;

/// The most debug files that are looked at for a module.
const MAX_DEBUG_FILES: usize = 4;

/// A file that names come from.
#[derive(Debug)]
enum SymbolFile {
    Module(Arc<ModuleCode>),
    Debug(MappedFile),
}

impl ReadAt for SymbolFile {
    fn size(&self) -> u64 {
        self.bytes().len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> bool {
        self.bytes().read_at(offset, into)
    }
}

impl SymbolFile {
    fn bytes(&self) -> &[u8] {
        match self {
            SymbolFile::Module(code) => code.bytes(),
            SymbolFile::Debug(file) => file,
        }
    }
}

/// Names the native frames of a process.
pub struct NativeNames {
    process: Process,
    /// The modules, by their paths.
    modules: HashMap<Arc<str>, Arc<ModuleCode>>,
    opened: HashMap<Arc<str>, ModuleNames>,
}

/// What names the code of a module.
#[derive(Default)]
struct ModuleNames {
    symbolizer: Option<Symbolizer<SymbolFile>>,
    /// Where functions start, sorted.
    starts: Vec<u64>,
}

impl NativeNames {
    /// For these modules of a process. Debug files are looked for in its root.
    pub fn new(process: Process, modules: &[Arc<ModuleCode>]) -> Self {
        let modules = modules.iter().map(|code| (Arc::clone(&code.path), Arc::clone(code))).collect();
        NativeNames { process, modules, opened: HashMap::new() }
    }

    /// The frames that a captured native frame stands for, root first: its function with what was inlined into it. Code without a name
    /// gets the address at which its function starts, if that is known. None for frames of another kind, and for code of which nothing
    /// is known.
    pub fn describe(&mut self, frame: &Frame) -> Vec<Frame> {
        let (FrameKind::Native, Some(module), Some(address)) = (frame.kind, &frame.module, frame.address)
        else {
            return Vec::new();
        };
        let Some(code) = self.modules.get(module) else { return Vec::new() };
        let names = self.opened.entry(Arc::clone(module));
        let names = names.or_insert_with(|| ModuleNames::of(&self.process, code));
        let chain = names.symbolizer.as_mut().and_then(|symbolizer| symbolizer.lookup(address.as_u64()));
        match chain {
            Some(chain) => chain.functions.iter().rev().map(|function| named(frame, function)).collect(),
            None => names.start_of(address.as_u64()).map(|start| unnamed(frame, start)).into_iter().collect(),
        }
    }
}

impl ModuleNames {
    fn of(process: &Process, code: &Arc<ModuleCode>) -> Self {
        ModuleNames { symbolizer: opened(process, code), starts: unwound_functions(code.bytes()) }
    }

    fn start_of(&self, address: u64) -> Option<u64> {
        let after = self.starts.partition_point(|start| *start <= address);
        self.starts[..after].last().copied()
    }
}

impl std::fmt::Debug for NativeNames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NativeNames").field("modules", &self.modules.len()).finish_non_exhaustive()
    }
}

fn opened(process: &Process, code: &Arc<ModuleCode>) -> Option<Symbolizer<SymbolFile>> {
    let mut symbolizer = Symbolizer::new(SymbolFile::Module(Arc::clone(code))).ok()?;
    for _ in 0..MAX_DEBUG_FILES {
        let Some(request) = symbolizer.wanted_debug_file().cloned() else { break };
        if !give_debug_file(process, code, &request, &mut symbolizer) {
            symbolizer.skip_debug_file();
        }
    }
    Some(symbolizer)
}

/// Gives the first file that is the one that is wanted; returns whether there is one.
fn give_debug_file(
    process: &Process,
    code: &ModuleCode,
    request: &DebugFileRequest,
    symbolizer: &mut Symbolizer<SymbolFile>,
) -> bool {
    request.paths(&code.path).iter().any(|path| {
        let file = target_files::open_in_its_root(process, path);
        let file = file.and_then(|file| MappedFile::of(&file));
        file.is_ok_and(|file| symbolizer.give_debug_file(SymbolFile::Debug(file)).is_ok())
    })
}

/// A frame with the name of a function that runs at its address.
fn named(frame: &Frame, function: &FunctionAt) -> Frame {
    let kind = if function.is_inlined { FrameKind::Inlined } else { FrameKind::Native };
    let file = function.file.clone().unwrap_or_default();
    Frame {
        kind,
        function: function.name.as_ref().map(|name| Arc::clone(&name.display)).unwrap_or_default(),
        short_file: short(&file),
        file,
        position: Position { line: function.line, ..Position::default() },
        // Addresses of one line are one frame.
        address: None,
        ..frame.clone()
    }
}

/// A frame of a function without a name that starts at this address of its module.
fn unnamed(frame: &Frame, start: u64) -> Frame {
    Frame { address: Some(RemoteAddr::new(start)), ..frame.clone() }
}

/// The last part of a path: the folders are those of the machine that the code was built on.
fn short(file: &Arc<str>) -> Arc<str> {
    file.rsplit_once('/').map_or_else(|| Arc::clone(file), |(_, name)| name.into())
}
