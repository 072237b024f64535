//! The files that were mapped into a process that is no more: looked for where they were, compared with what
//! the core has of them, and given to the core's memory to fill its gaps.

use std::fmt;
use std::path::{Path, PathBuf};

use profiler_memory::{CoreMapping, CoreMemory, FileMatch, compare_with_core};
use profiler_model::RemoteAddr;
use profiler_os::MappedFile;
use profiler_python::{AsyncioOffsets, Module, ModuleMapping};

/// The most files that are looked for. The largest programs map some thousand libraries.
const MAX_CORE_MODULES: usize = 4096;

/// What the kernel writes behind the path of a file that was deleted.
const DELETED: &str = " (deleted)";

/// A file that the core needs and that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingFile {
    /// Its path in the core.
    pub path: String,
    /// What is the matter with it.
    pub trouble: FileTrouble,
}

/// What is the matter with a mapped file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileTrouble {
    /// It is not there or cannot be read.
    Gone,
    /// It is another one now.
    Changed,
    /// It is there, and the core does not have the part that tells whether it is the same one.
    Unchecked,
}

impl fmt::Display for MissingFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match self.trouble {
            FileTrouble::Gone => write!(f, "{path:?} cannot be read, and the core has only a part of it"),
            FileTrouble::Changed => {
                write!(f, "{path:?} is not the file that was mapped (another build), so it was not used")
            }
            FileTrouble::Unchecked => {
                write!(f, "{path:?} is taken for the file that was mapped: the core does not tell its build")
            }
        }
    }
}

/// The modules of a process that is no more.
pub struct CoreModules {
    modules: Vec<CoreModule>,
    /// What is the matter with the executable and with files that are named like a Python.
    pub missing: Vec<MissingFile>,
}

struct CoreModule {
    path: String,
    file: Option<usize>,
    mappings: Vec<ModuleMapping>,
}

/// Finds and opens the modules, the executable first, and lets `memory` read from them.
pub fn open(memory: &mut CoreMemory<MappedFile>, sysroot: Option<&Path>) -> CoreModules {
    let executable = memory.file.executable().unwrap_or_default().to_owned();
    let mut by_path = mappings_by_path(&memory.file.files);
    by_path.sort_by_key(|mappings| mappings[0].path != executable);
    let mut opened = CoreModules { modules: Vec::new(), missing: Vec::new() };
    for mappings in by_path {
        if opened.modules.len() >= MAX_CORE_MODULES {
            break;
        }
        let path = mappings[0].path.clone();
        let file = match find_file(memory, &mappings, sysroot) {
            Ok((file, trouble)) => {
                opened.note(&path, path == executable, trouble);
                Some(memory.add_file(&mappings, file))
            }
            Err(trouble) => {
                opened.note(&path, path == executable, Some(trouble));
                None
            }
        };
        if mappings.iter().any(|mapping| memory.is_executable(mapping, file)) {
            let mappings = module_mappings(memory, &mappings, file);
            opened.modules.push(CoreModule { path, file, mappings });
        }
    }
    opened
}

impl CoreModules {
    /// As `python::find` wants them.
    pub fn as_python<'a>(&'a self, memory: &'a CoreMemory<MappedFile>) -> Vec<Module<'a>> {
        let module = |module: &'a CoreModule| Module {
            path: &module.path,
            file: module.file.map(|index| memory.mapped_file(index)).unwrap_or_default(),
            mappings: &module.mappings,
        };
        self.modules.iter().map(module).collect()
    }

    /// Where asyncio keeps its tasks, as the file says that has its C part.
    pub fn asyncio(&self, memory: &CoreMemory<MappedFile>) -> Option<AsyncioOffsets> {
        let files = self.modules.iter().filter_map(|module| module.file);
        files.filter_map(|index| AsyncioOffsets::of_file(memory.mapped_file(index))).next()
    }

    fn note(&mut self, path: &str, is_executable: bool, trouble: Option<FileTrouble>) {
        let name = path.rsplit('/').next().unwrap_or(path);
        let matters = is_executable || name.starts_with("libpython") || name.starts_with("python");
        if let Some(trouble) = trouble.filter(|_| matters) {
            self.missing.push(MissingFile { path: path.to_owned(), trouble });
        }
    }
}

/// The mappings of each file, in the order in which the files are met.
fn mappings_by_path(all: &[CoreMapping]) -> Vec<Vec<CoreMapping>> {
    let mut by_path: Vec<Vec<CoreMapping>> = Vec::new();
    let mut known = std::collections::HashMap::new();
    for mapping in all {
        let index = *known.entry(mapping.path.as_str()).or_insert(by_path.len());
        match by_path.get_mut(index) {
            Some(mappings) => mappings.push(mapping.clone()),
            None => by_path.push(vec![mapping.clone()]),
        }
    }
    by_path
}

/// The file that was mapped so, and what is uncertain about it.
fn find_file(
    memory: &CoreMemory<MappedFile>,
    mappings: &[CoreMapping],
    sysroot: Option<&Path>,
) -> Result<(MappedFile, Option<FileTrouble>), FileTrouble> {
    let path = mappings[0].path.as_str();
    let start = mappings.iter().find(|mapping| mapping.file_offset == 0);
    let start_in_core = start.map(|mapping| memory.in_core(mapping.start)).unwrap_or_default();
    let mut trouble = FileTrouble::Gone;
    for place in places(path, sysroot) {
        let Ok(file) = MappedFile::open_regular(&place) else { continue };
        match compare_with_core(start_in_core, &file) {
            FileMatch::Same => return Ok((file, None)),
            // What has this name now is not what was deleted.
            FileMatch::Unknown if !path.ends_with(DELETED) => {
                return Ok((file, Some(FileTrouble::Unchecked)));
            }
            FileMatch::Unknown | FileMatch::Different => trouble = FileTrouble::Changed,
        }
    }
    Err(trouble)
}

/// Where a file may be: below the root that the user names, then where it was.
fn places(path: &str, sysroot: Option<&Path>) -> Vec<PathBuf> {
    let path = path.strip_suffix(DELETED).unwrap_or(path);
    if !path.starts_with('/') {
        return Vec::new();
    }
    let below = sysroot.map(|root| root.join(path.trim_start_matches('/')));
    below.into_iter().chain([PathBuf::from(path)]).collect()
}

/// The mappings with what they allow. Behind the last comes the module's zeroed data, which is of no file.
fn module_mappings(
    memory: &CoreMemory<MappedFile>,
    mappings: &[CoreMapping],
    file: Option<usize>,
) -> Vec<ModuleMapping> {
    let mut all: Vec<ModuleMapping> = mappings
        .iter()
        .map(|mapping| ModuleMapping {
            start: mapping.start,
            end: mapping.end,
            file_offset: mapping.file_offset,
            readable: true,
            writable: memory.file.segment(mapping.start).is_some_and(|segment| segment.writable),
            executable: memory.is_executable(mapping, file),
        })
        .collect();
    all.extend(mappings.iter().filter_map(|mapping| zeroed_data(memory, mapping.end)));
    all.sort_by_key(|mapping| mapping.start);
    all
}

/// The writable memory that begins at `at` and is of no file.
fn zeroed_data(memory: &CoreMemory<MappedFile>, at: RemoteAddr) -> Option<ModuleMapping> {
    let segment = memory.file.segment(at).filter(|segment| segment.start == at && segment.writable)?;
    memory.file.file_at(at).is_none().then_some(ModuleMapping {
        start: at,
        end: at.offset(segment.memory_size),
        file_offset: 0,
        readable: true,
        writable: true,
        executable: false,
    })
}
