//! Attaching to a process: finding its Python, or saying why there is none to be found.
//!
//! Nothing is done to the process here; its files and memory are read.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use profiler_memory::ReadError;
use profiler_model::{Nanos, Pid, RemoteAddr};
use profiler_os::{MappedFile, Mapping, Process, ProcessMemory, clock, target_files};
use profiler_python::{
    AsyncioOffsets, FindError, Module, ModuleMapping, NotPython, Offsets, Runtime, find_opening,
    interpreters, is_python_file, thread_states,
};

use crate::attach_error::{AttachError, refusal, unseen};
use crate::target_process::TargetProcess;

/// Threads that come and go may make a Python look, for a moment, as if it were not up: the one that was looked at is gone.
const ATTEMPTS: u32 = 5;
const ATTEMPT_GAP: Nanos = Nanos::from_nanos(1_000_000);

/// One Python of a process.
#[derive(Debug)]
pub struct Target {
    process: TargetProcess,
    runtime: Arc<Runtime>,
}

/// What a process shares with the children that it forks: where its Python is.
#[derive(Clone, Debug)]
pub struct ForkedRuntime {
    runtime: Arc<Runtime>,
    executable: Arc<str>,
}

impl Target {
    /// Finds the Python of process `pid`. To try the same process again and again, [`Search`] costs less.
    ///
    /// # Errors
    /// When there is no such process, it may not be read or has no Python that is known.
    pub fn attach(pid: Pid) -> Result<Self, AttachError> {
        let mut search = Search::new(pid);
        for _ in 1..ATTEMPTS {
            match search.attach() {
                Err(AttachError::NotInitialised(_) | AttachError::Unreadable { .. }) => {
                    clock::sleep_until(clock::now() + ATTEMPT_GAP);
                }
                result => return result,
            }
        }
        search.attach()
    }

    /// What its children will share with it until they run another program.
    pub fn forked_runtime(&self) -> ForkedRuntime {
        ForkedRuntime { runtime: Arc::clone(&self.runtime), executable: self.process.shared_executable() }
    }

    /// Process `pid`, if it still has the Python of the process that forked it: it has the same executable, and
    /// interpreters and threads that belong together where that one has them.
    pub fn from_parent(forked_runtime: &ForkedRuntime, pid: Pid) -> Option<Self> {
        let process = Process::new(pid);
        let stat = process.stat().ok().filter(|_| process.is_alive())?;
        let executable = process.executable().ok()?;
        if executable.to_str() != Some(&forked_runtime.executable) {
            return None;
        }
        let memory = ProcessMemory::new(pid);
        let found = interpreters(&memory, &forked_runtime.runtime).ok()?;
        let main = found.last()?;
        if thread_states(&memory, &forked_runtime.runtime.offsets, main).ok()?.is_empty() {
            return None;
        }
        let ForkedRuntime { runtime, executable } = forked_runtime.clone();
        Some(Target { process: TargetProcess::new(process, memory, executable, stat.start_time), runtime })
    }

    /// The same process with another of its Pythons.
    pub(crate) fn with_runtime(&self, runtime: Runtime) -> Self {
        Target { process: self.process.with_own_memory(), runtime: Arc::new(runtime) }
    }

    /// When it was started, in the kernel's ticks since boot: with the id, what tells it from a later process.
    pub fn start_time(&self) -> u64 {
        self.process.start_time()
    }

    /// Its id.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// The version of its Python, such as `3.11.7`.
    pub fn version_text(&self) -> String {
        self.offsets().version.to_string()
    }

    /// The path of its executable, as it sees it itself.
    pub fn executable(&self) -> &str {
        self.process.executable()
    }

    /// The command it was started with.
    pub fn command_line(&self) -> &str {
        self.process.command_line()
    }

    /// The process, without what is known of its Python.
    pub fn target_process(&self) -> &TargetProcess {
        &self.process
    }

    /// The process.
    pub fn process(&self) -> &Process {
        self.process.process()
    }

    /// Its memory.
    pub fn memory(&self) -> &ProcessMemory {
        self.process.memory()
    }

    /// Its Python.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Where asyncio keeps its tasks, if the process has loaded it and its version tells.
    pub fn asyncio(&self) -> Option<AsyncioOffsets> {
        self.offsets().generators?;
        // Its C part is a module of its own, or built into what holds the runtime.
        let may_have_it = |path: &str| {
            let name = path.rsplit('/').next().unwrap_or_default();
            name.starts_with("_asyncio.") || name.starts_with("libpython3.") || path == self.executable()
        };
        let mut mappings = self.process().mappings().ok()?;
        mappings.retain(|mapping| may_have_it(&mapping.path));
        mappings.dedup_by(|one, before| one.path == before.path);
        mappings.iter().find_map(|mapping| {
            AsyncioOffsets::of_file(&open_module(self.process(), self.executable(), mapping)?)
        })
    }

    /// Whether its Python still has a live thread, whatever else of it may be damaged or gone.
    pub fn has_live_runtime(&self) -> bool {
        self.runtime.is_alive(self.memory())
    }

    /// The layout of its Python's structures.
    pub fn offsets(&self) -> &Offsets {
        &self.runtime.offsets
    }
}

/// The search for the Python of a process that may have none yet: a shell that is going to start one with
/// `exec`, a wrapper, a child that was just forked. It remembers what it has ruled out, so that trying again
/// costs next to nothing until the process maps other files.
#[derive(Debug)]
pub struct Search {
    process: Process,
    /// The mapped files when there was no Python among them.
    ruled_out: Option<Vec<Mapping>>,
}

impl Search {
    /// A search in process `pid` that has not begun.
    pub fn new(pid: Pid) -> Self {
        Search { process: Process::new(pid), ruled_out: None }
    }

    /// Finds its Python, if it is there by now.
    ///
    /// # Errors
    /// When there is no such process, it may not be read or has no Python that is known.
    pub fn attach(&mut self) -> Result<Target, AttachError> {
        let process = self.process;
        let pid = process.pid();
        let stat = process.stat().map_err(|error| unseen(&process, &error))?;
        if !process.is_alive() {
            return Err(AttachError::ProcessEnded(pid));
        }
        let executable = process.executable().map_err(|error| refusal(&process, &error))?;
        let executable = executable.to_string_lossy().into_owned();
        let mappings = process.mappings().map_err(|error| refusal(&process, &error))?;
        if mappings.is_empty() {
            return Err(AttachError::ProcessEnded(pid));
        }
        let of_files = mappings.iter().filter(|mapping| mapping.inode != 0);
        if self.ruled_out.as_ref().is_some_and(|ruled_out| of_files.clone().eq(ruled_out)) {
            return Err(AttachError::NotPython { pid, executable, what: NotPython::NoModule });
        }
        let memory = ProcessMemory::new(pid);
        let files = MappedModules::open(&process, &executable, &mappings);
        match find_opening(&files.modules(), |index| files.file(index), &memory) {
            Ok(runtime) => {
                let process = TargetProcess::new(process, memory, executable.into(), stat.start_time);
                Ok(Target { process, runtime: Arc::new(runtime) })
            }
            // What is not there may have been there just before.
            Err(_) if process.is_ending() => Err(AttachError::ProcessEnded(pid)),
            Err(error) => {
                // Of a file that cannot be read the memory was searched, and that changes.
                let is_final = error == FindError::NotPython(NotPython::NoModule) && files.are_readable();
                self.ruled_out = is_final.then(|| of_files.cloned().collect());
                Err(not_found(&process, &executable, error))
            }
        }
    }
}

fn not_found(process: &Process, executable: &str, error: FindError) -> AttachError {
    let pid = process.pid();
    match error {
        FindError::NotPython(what) => AttachError::NotPython { pid, executable: executable.to_owned(), what },
        FindError::UnknownVersion(version) => AttachError::UnknownVersion { pid, version },
        FindError::NotInitialised => AttachError::NotInitialised(pid),
        FindError::Unreadable(ReadError::ProcessEnded) => AttachError::ProcessEnded(pid),
        FindError::Unreadable(ReadError::NoAnswer) => AttachError::NoAnswer(pid),
        FindError::Unreadable(ReadError::NotPermitted) => AttachError::NotPermitted(pid),
        other => AttachError::Unreadable { pid, cause: other.to_string() },
    }
}

/// A mapped file and where it is mapped.
struct MappedModule {
    /// Its first mapping, with the path.
    first: Mapping,
    /// Its file, once it was opened; `None` where it cannot be.
    file: OnceCell<Option<MappedFile>>,
    mappings: Vec<ModuleMapping>,
}

/// The files that a process has mapped, its executable first. Each is opened when it is needed: a process may have mapped
/// thousands, and Python is most often in one of two.
pub struct MappedModules<'a> {
    process: &'a Process,
    executable: &'a str,
    modules: Vec<MappedModule>,
}

impl<'a> MappedModules<'a> {
    /// The modules in `mappings`. Of their files the executable, and what is named like a Python, is opened.
    pub fn open(process: &'a Process, executable: &'a str, mappings: &[Mapping]) -> Self {
        let mut modules: Vec<MappedModule> = Vec::new();
        let mut by_path: HashMap<&str, usize> = HashMap::new();
        // The module whose mapping has just ended: an anonymous one right behind it is its zeroed data.
        let mut before: Option<(usize, RemoteAddr)> = None;
        for mapping in mappings {
            let index = match before {
                Some((index, end)) if mapping.path.is_empty() && mapping.start == end => index,
                _ if mapping.path.starts_with('/') => *by_path.entry(&mapping.path).or_insert_with(|| {
                    modules.push(MappedModule::new(mapping));
                    modules.len() - 1
                }),
                _ => {
                    before = None;
                    continue;
                }
            };
            modules[index].mappings.push(module_mapping(mapping));
            before = (!mapping.path.is_empty()).then_some((index, mapping.end));
        }
        modules.retain(|module| module.mappings.iter().any(|mapping| mapping.executable));
        modules.sort_by_key(|module| module.first.path != executable);
        let files = MappedModules { process, executable, modules };
        for (index, module) in files.modules.iter().enumerate() {
            if index == 0 || is_python_file(&module.first.path) {
                files.file(index);
            }
        }
        files
    }

    /// The bytes of the file of a module, which is opened if it was not yet; none where it cannot be.
    pub fn file(&self, index: usize) -> &[u8] {
        let module = &self.modules[index];
        let open = || open_module(self.process, self.executable, &module.first);
        module.file.get_or_init(open).as_deref().unwrap_or_default()
    }

    /// Opens the file that is mapped at an address, if any is.
    pub fn open_at(&self, address: RemoteAddr) {
        let is_there = |mapping: &ModuleMapping| (mapping.start..mapping.end).contains(&address);
        let index = self.modules.iter().position(|module| module.mappings.iter().any(is_there));
        if let Some(index) = index {
            self.file(index);
        }
    }

    /// Whether all files were opened and could be.
    fn are_readable(&self) -> bool {
        self.modules.iter().all(|module| matches!(module.file.get(), Some(Some(_))))
    }

    /// The modules, with the bytes of those files that are open.
    pub fn modules(&self) -> Vec<Module<'_>> {
        self.modules.iter().map(MappedModule::as_module).collect()
    }
}

impl MappedModule {
    fn new(first: &Mapping) -> Self {
        MappedModule { first: first.clone(), file: OnceCell::new(), mappings: Vec::new() }
    }

    fn as_module(&self) -> Module<'_> {
        let file = self.file.get().and_then(Option::as_deref);
        Module { path: &self.first.path, file: file.unwrap_or_default(), mappings: &self.mappings }
    }
}

fn module_mapping(mapping: &Mapping) -> ModuleMapping {
    ModuleMapping {
        start: mapping.start,
        end: mapping.end,
        file_offset: mapping.file_offset,
        readable: mapping.readable,
        writable: mapping.writable,
        executable: mapping.executable,
    }
}

/// Opens a mapped file. The executable is the one that runs, even if it was replaced since.
fn open_module(process: &Process, executable: &str, mapped: &Mapping) -> Option<MappedFile> {
    if mapped.path == executable {
        return target_files::open_executable(process).ok();
    }
    target_files::open_mapped(process, mapped).ok()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn own() -> Process {
        Process::new(Pid::new(std::process::id()))
    }

    #[test]
    fn files_are_opened_when_they_are_needed() {
        let process = own();
        let executable = process.executable().unwrap().to_string_lossy().into_owned();
        let mappings = process.mappings().unwrap();
        let files = MappedModules::open(&process, &executable, &mappings);
        let open = || files.modules.iter().filter(|module| module.file.get().is_some()).count();
        assert!(files.modules.len() > 1 && open() == 1, "{} open", open());
        assert!(!files.modules()[0].file.is_empty() && !files.are_readable());
        let library = files.modules[1].mappings[0].start;
        files.open_at(library);
        assert_eq!(open(), 2);
        assert!(!files.modules()[1].file.is_empty());
        for index in 0..files.modules.len() {
            files.file(index);
        }
        assert!(files.are_readable());
    }

    #[test]
    fn process_without_python_is_ruled_out_once_all_its_files_are_known() {
        let mut search = Search::new(own().pid());
        let no_python = |result: Result<Target, AttachError>| {
            matches!(result, Err(AttachError::NotPython { what: NotPython::NoModule, .. }))
        };
        assert!(no_python(search.attach()) && search.ruled_out.is_some());
        assert!(no_python(search.attach()));
    }

    #[test]
    fn process_without_executable_is_ending_unless_it_is_of_the_kernel() {
        let missing = io::Error::from(io::ErrorKind::NotFound);
        let no_executable = refusal(&own(), &missing);
        assert!(matches!(no_executable, AttachError::NotPython { .. }), "{no_executable}");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::new(child.id());
        while !Process::new(pid).is_ending() {
            std::thread::yield_now();
        }
        assert_eq!(refusal(&Process::new(pid), &missing), AttachError::ProcessEnded(pid));
        child.wait().unwrap();
        assert_eq!(refusal(&Process::new(pid), &missing), AttachError::ProcessEnded(pid));
    }
}
