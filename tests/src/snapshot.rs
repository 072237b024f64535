//! Stored snapshots of real processes: for each interpreter, the memory that a survey of it looks at
//! (`ID.pmem`), and beside it (`ID.json`) what else is needed to repeat the survey, and what it must find.
//! `cargo xtask snapshots` makes them.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use profiler_memory::Snapshot;
use profiler_model::{NsTid, RemoteAddr};
use profiler_python::{Module, ModuleMapping};
use serde::{Deserialize, Serialize};

use crate::survey::Survey;

/// What the files of a stored thing are called: `3.6.15`, `3.11-debian`.
#[derive(Clone, Debug)]
pub struct StoredId(String);

impl StoredId {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A stored process.
#[derive(Clone, Debug)]
pub struct StoredProcess {
    /// The interpreter that ran it: `3.6.15`, `3.11-debian`.
    pub id: String,
    /// Its memory, as far as it is needed.
    pub memory: Snapshot,
    /// All else.
    pub about: About,
}

/// What is not memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// The files that may hold the runtime.
    pub modules: Vec<StoredModule>,
    /// The ids of its threads.
    pub alive: Vec<u32>,
    /// What is found in it.
    pub survey: Survey,
}

/// A mapped file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredModule {
    /// Its path.
    pub path: String,
    /// What matters of the file, in hexadecimal: headers of segments and the symbols that are looked for.
    pub file: String,
    /// Its mappings: start, end, offset in the file, and the letters of `/proc/PID/maps`.
    pub mappings: Vec<(u64, u64, u64, String)>,
}

/// A mapped file, ready to be searched.
#[derive(Clone, Debug)]
pub struct LoadedModule {
    path: String,
    file: Vec<u8>,
    mappings: Vec<ModuleMapping>,
}

/// What is stored in a folder, as labels of test cases and ids.
///
/// # Panics
/// When nothing is.
pub(crate) fn ids_in(folder: &Path) -> Vec<(String, StoredId)> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let ids = files.filter_map(|file| {
        let path = file.path();
        let stored = path.extension().is_some_and(|ending| ending == "pmem");
        stored.then(|| path.file_stem().unwrap_or_default().to_string_lossy().into_owned())
    });
    let all: Vec<_> = ids.map(|id| (label(&id), StoredId(id))).collect();
    assert!(!all.is_empty(), "nothing in {}: `cargo xtask snapshots` stores it", folder.display());
    all
}

/// `3.9` of `3.9.18`; what has a place in its name (`3.11-debian`) keeps it.
fn label(id: &str) -> String {
    match id.splitn(3, '.').collect::<Vec<_>>()[..] {
        [major, minor, _] => format!("{major}.{minor}"),
        _ => id.to_owned(),
    }
}

impl LoadedModule {
    /// What `profiler_python::find` takes.
    pub fn as_module(&self) -> Module<'_> {
        Module { path: &self.path, file: &self.file, mappings: &self.mappings }
    }

    /// The bytes of the file.
    pub fn file(&self) -> &[u8] {
        &self.file
    }

    /// The same module with another file.
    pub fn with_file<'a>(&'a self, file: &'a [u8]) -> Module<'a> {
        Module { file, ..self.as_module() }
    }
}

impl StoredModule {
    /// Unpacks it.
    ///
    /// # Errors
    /// When what is stored is damaged.
    pub fn load(&self) -> Result<LoadedModule> {
        let mapping = |(start, end, file_offset, letters): &(u64, u64, u64, String)| ModuleMapping {
            start: RemoteAddr::new(*start),
            end: RemoteAddr::new(*end),
            file_offset: *file_offset,
            readable: letters.contains('r'),
            writable: letters.contains('w'),
            executable: letters.contains('x'),
        };
        let digits = self.file.as_bytes().chunks(2);
        let file = digits.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?));
        Ok(LoadedModule {
            path: self.path.clone(),
            file: file.collect::<Result<_>>()?,
            mappings: self.mappings.iter().map(mapping).collect(),
        })
    }
}

impl StoredProcess {
    /// Where snapshots are stored.
    pub fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/python/tests/data/snapshots")
    }

    /// All that are stored, by name.
    ///
    /// # Errors
    /// When one is damaged, or there is none.
    pub fn all() -> Result<Vec<StoredProcess>> {
        let mut paths: Vec<PathBuf> = fs::read_dir(StoredProcess::folder())
            .context("the stored snapshots")?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "pmem"));
        paths.sort();
        ensure!(!paths.is_empty(), "no snapshots are stored: `cargo xtask snapshots` makes them");
        paths.iter().map(|path| StoredProcess::open(path)).collect()
    }

    /// Those that are stored, as labels of test cases (`3.6`, `3.11-debian`) and ids.
    ///
    /// # Panics
    /// When there are none.
    pub fn ids() -> Vec<(String, StoredId)> {
        ids_in(&StoredProcess::folder())
    }

    /// The one with this id.
    ///
    /// # Errors
    /// When it is damaged or missing.
    pub fn of_id(id: &StoredId) -> Result<Self> {
        StoredProcess::open(&StoredProcess::folder().join(format!("{}.pmem", id.0)))
    }

    fn open(path: &Path) -> Result<Self> {
        let about = path.with_extension("json");
        let text = fs::read_to_string(&about).with_context(|| about.display().to_string())?;
        Ok(StoredProcess {
            id: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            memory: Snapshot::from_bytes(&fs::read(path)?)?,
            about: serde_json::from_str(&text).with_context(|| about.display().to_string())?,
        })
    }

    /// Stores it; returns how many bytes that took.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn store(&self) -> Result<usize> {
        let folder = StoredProcess::folder();
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let memory = self.memory.to_bytes();
        let about = serde_json::to_string(&self.about)?;
        fs::write(folder.join(format!("{}.pmem", self.id)), &memory)?;
        fs::write(folder.join(format!("{}.json", self.id)), about + "\n")?;
        Ok(memory.len())
    }

    /// Its modules, unpacked.
    ///
    /// # Errors
    /// When what is stored is damaged.
    pub fn modules(&self) -> Result<Vec<LoadedModule>> {
        self.about.modules.iter().map(StoredModule::load).collect()
    }

    /// The ids of its threads.
    pub fn alive(&self) -> HashSet<NsTid> {
        self.about.alive.iter().copied().map(NsTid::new).collect()
    }
}
