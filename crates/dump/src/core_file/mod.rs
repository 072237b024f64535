//! A process that is no more: its core file, and the files that were mapped into it. What is in `attach` for a
//! live process is here for a dead one; from the memory on, both go the same way.
//!
//! Nothing moves here, so nothing has to be proved: what can be read is true.

mod dump;
mod files;

use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use profiler_memory::{CoreError, CoreFile, CoreMemory};
use profiler_model::{Nanos, Pid};
use profiler_os::MappedFile;
use profiler_python::{AsyncioOffsets, FindError, Offsets, Runtime, find};

pub use dump::{CoreOptions, dump_core};
pub use files::{FileTrouble, MissingFile};

/// A core file whose Python was found.
#[derive(Debug)]
pub struct CoreTarget {
    memory: CoreMemory<MappedFile>,
    runtime: Runtime,
    /// The folder in which the process's `/` lies.
    root: PathBuf,
    /// When the core file was written, since 1970, where it is known.
    written: Option<Nanos>,
    /// Where asyncio keeps its tasks, if its C part was loaded and tells.
    asyncio: Option<AsyncioOffsets>,
    missing: Vec<MissingFile>,
}

/// Why nothing can be told of a core file.
#[derive(Debug, thiserror::Error)]
pub enum CoreFailure {
    /// It cannot be opened.
    #[error("{0}")]
    Open(io::Error),
    /// It is no core file, or one that cannot be read.
    #[error("{0}")]
    Core(CoreError),
    /// The list of threads and mapped files is missing.
    #[error("it does not say which files were mapped{}", cut_text(.cut))]
    NoFiles {
        /// If the core file is cut short: how many bytes it has of how many.
        cut: Option<(u64, u64)>,
    },
    /// Its Python was not found.
    #[error("{error}{}", cut_text(.cut))]
    NotFound {
        /// Why.
        error: FindError,
        /// If the core file is cut short: how many bytes it has of how many.
        cut: Option<(u64, u64)>,
        /// Files that the core leaves to be read from the disk, and that are not there any more.
        missing: Vec<MissingFile>,
    },
}

fn cut_text(cut: &Option<(u64, u64)>) -> String {
    match cut {
        Some((length, whole)) => format!(": it is cut short, {length} bytes of {whole} are there"),
        None => String::new(),
    }
}

/// When the file was last written to.
fn written_at(core: &Path) -> Option<Nanos> {
    let modified = std::fs::metadata(core).ok()?.modified().ok()?;
    let since = modified.duration_since(UNIX_EPOCH).ok()?;
    Some(Nanos::from_nanos(u64::try_from(since.as_nanos()).ok()?))
}

fn cut_of(file: &CoreFile) -> Option<(u64, u64)> {
    file.is_cut_short().then_some((file.length, file.whole_length))
}

impl CoreTarget {
    /// Opens a core file and finds its Python. The files that were mapped are looked for below `sysroot` first, if
    /// it is given.
    ///
    /// # Errors
    /// When it is no core file, has no Python that is known, or too much of it is missing.
    pub fn open(core: &Path, sysroot: Option<&Path>) -> Result<Self, CoreFailure> {
        let bytes = MappedFile::open_regular(core).map_err(CoreFailure::Open)?;
        let file = CoreFile::parse(&bytes).map_err(CoreFailure::Core)?;
        let cut = cut_of(&file);
        let written = written_at(core);
        if file.files.is_empty() {
            return Err(CoreFailure::NoFiles { cut });
        }
        let mut memory = CoreMemory::new(file, bytes);
        let modules = files::open(&mut memory, sysroot);
        let found = find(&modules.as_python(&memory), &memory);
        match found {
            Ok(runtime) => {
                let root = sysroot.unwrap_or(Path::new("/")).to_owned();
                let asyncio = modules.asyncio(&memory);
                let missing = modules.missing;
                Ok(CoreTarget { memory, runtime, root, written, asyncio, missing })
            }
            Err(error) => Err(CoreFailure::NotFound { error, cut, missing: modules.missing }),
        }
    }

    /// The id that the process had.
    pub fn pid(&self) -> Pid {
        let file = self.file();
        let of_threads = || file.threads.first().map(|thread| thread.tid.as_u32());
        Pid::new(file.process.as_ref().map(|process| process.pid).or_else(of_threads).unwrap_or_default())
    }

    /// How many bytes the core file has of how many, if it is cut short.
    pub fn cut(&self) -> Option<(u64, u64)> {
        cut_of(self.file())
    }

    /// Files of its Python that could not be read or checked.
    pub fn missing(&self) -> &[MissingFile] {
        &self.missing
    }

    /// Why asyncio's tasks are not shown, where there are none.
    pub fn why_no_tasks(&self) -> &'static str {
        match (self.offsets().generators, &self.asyncio) {
            (None, _) => {
                "asyncio's tasks are shown from CPython 3.14 on: earlier ones do not tell where they are"
            }
            (Some(_), None) => {
                "The process had not loaded asyncio's C part (_asyncio), or its file is gone: --sysroot FOLDER"
            }
            (Some(_), Some(_)) => "The process had no asyncio tasks",
        }
    }

    fn file(&self) -> &CoreFile {
        &self.memory.file
    }

    fn offsets(&self) -> &Offsets {
        &self.runtime.offsets
    }
}
