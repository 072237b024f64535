//! The native code of a process: its modules, their files and what unwinds them.
//!
//! The modules are read when the process is met, and again when a program counter lies in none of them. A module keeps its number as
//! long as the process is sampled, also after it was unmapped, so that what was captured in it can still be named.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use profiler_memory::ReadMemory;
use profiler_model::{ModuleNumber, RemoteAddr};
use profiler_native::function_ranges;
use profiler_native::modules::{
    BuildId, ElfImage, MemoryRegion, ModuleIndex, ModuleMap, NativeModule, OpenedFile,
};
use profiler_native::unwind::{UnwindTable, compile};
use profiler_os::{MappedFile, Mapping, target_files};

use crate::target_process::TargetProcess;

/// The code that the kernel maps into each process.
const VDSO: &str = "[vdso]";

/// The most bytes of it; it has two or three pages.
const MAX_VDSO_BYTES: usize = 1 << 20;

/// A module of a process: its file, while that could be opened, and its compiled unwind information.
#[derive(Debug)]
pub struct ModuleCode {
    /// The path, as the process sees it; `[vdso]` and the like; or empty.
    pub path: Arc<str>,
    /// The build id, if it has one.
    pub build_id: Option<BuildId>,
    file: Option<ModuleFile>,
    table: UnwindTable,
}

impl ModuleCode {
    /// The bytes of its file; none if it could not be opened.
    pub fn bytes(&self) -> &[u8] {
        self.file.as_deref().unwrap_or_default()
    }

    /// What unwinds its stacks.
    pub fn table(&self) -> &UnwindTable {
        &self.table
    }
}

/// What tells the file of a module from all others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FileKey {
    device: u64,
    inode: u64,
    path: Arc<str>,
}

impl FileKey {
    /// What the kernel tells the file by.
    fn file(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    fn of(module: &NativeModule) -> Self {
        FileKey { device: module.device, inode: module.inode, path: Arc::clone(&module.path) }
    }
}

/// The native code of a process.
#[derive(Debug, Default)]
pub struct NativeCode {
    map: ModuleMap,
    /// The number of each module of the map, by its index there.
    numbers: Vec<ModuleNumber>,
    modules: Vec<Arc<ModuleCode>>,
    by_file: HashMap<FileKey, ModuleNumber>,
}

impl NativeCode {
    /// Reads the modules that the process has now. Those that are met for the first time are opened and their unwind information is
    /// compiled, which takes up to some tenths of a second for the largest ones.
    ///
    /// # Errors
    /// When the mappings cannot be read.
    pub fn refresh(&mut self, process: &TargetProcess) -> std::io::Result<()> {
        let mappings = process.process().mappings()?;
        let regions: Vec<MemoryRegion<'_>> = mappings.iter().map(region).collect();
        let with_bytes = self.by_file.iter().filter(|(key, _)| key.inode != 0 || &*key.path == VDSO);
        let known: HashMap<(u64, u64), Arc<ModuleCode>> =
            with_bytes.map(|(key, number)| (key.file(), self.of_number(*number))).collect();

        let mut files = opened_files(process, &mappings, &known);
        let map = ModuleMap::new(&regions, |region| {
            let file = (region.device, region.inode);
            match (files.get(&file), known.get(&file)) {
                (Some(opened), _) => OpenedFile::Bytes(&**opened),
                (None, Some(code)) if !code.bytes().is_empty() => OpenedFile::Bytes(code.bytes()),
                (None, _) => OpenedFile::Unreadable,
            }
        });

        self.numbers = map.modules().iter().map(|module| self.number(module, &mut files)).collect();
        self.map = map;
        Ok(())
    }

    /// The modules that are mapped.
    pub fn map(&self) -> &ModuleMap {
        &self.map
    }

    /// What unwinds the stacks of a module of the map.
    pub fn table(&self, index: ModuleIndex) -> Option<&UnwindTable> {
        self.code(self.number_of(index)?).map(ModuleCode::table)
    }

    /// The number of a module of the map.
    pub fn number_of(&self, index: ModuleIndex) -> Option<ModuleNumber> {
        self.numbers.get(index.as_usize()).copied()
    }

    /// A module by its number.
    pub fn code(&self, number: ModuleNumber) -> Option<&ModuleCode> {
        self.modules.get(number.as_u32() as usize).map(|module| &**module)
    }

    fn of_number(&self, number: ModuleNumber) -> Arc<ModuleCode> {
        Arc::clone(&self.modules[number.as_u32() as usize])
    }

    /// All modules that the process has had.
    pub fn modules(&self) -> &[Arc<ModuleCode>] {
        &self.modules
    }

    /// Whether there is executable code at an address.
    pub fn is_code(&self, at: RemoteAddr) -> bool {
        self.map.find(at).is_some()
    }

    /// The number of a module, which is compiled if it is met for the first time.
    fn number(&mut self, module: &NativeModule, files: &mut HashMap<(u64, u64), ModuleFile>) -> ModuleNumber {
        let key = FileKey::of(module);
        if let Some(number) = self.by_file.get(&key) {
            return *number;
        }
        let file = files.remove(&(module.device, module.inode));
        let compiled = file.as_deref().and_then(|bytes| {
            let image = ElfImage::parse(bytes).ok()?;
            Some(compile(&image, None, function_ranges(bytes)))
        });
        let table = compiled.unwrap_or_default();
        let code =
            ModuleCode { path: Arc::clone(&module.path), build_id: module.build_id.clone(), file, table };
        let number = ModuleNumber::new(self.modules.len() as u32);
        self.modules.push(Arc::new(code));
        self.by_file.insert(key, number);
        number
    }
}

/// The bytes of a module's file.
#[derive(Debug)]
enum ModuleFile {
    Mapped(MappedFile),
    /// Copied from memory: the vDSO is in no file.
    Copied(Vec<u8>),
}

impl Deref for ModuleFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            ModuleFile::Mapped(file) => file,
            ModuleFile::Copied(bytes) => bytes,
        }
    }
}

/// The files of the executable mappings that are not known yet, by device and inode; the vDSO has 0 for both.
fn opened_files(
    process: &TargetProcess,
    mappings: &[Mapping],
    known: &HashMap<(u64, u64), Arc<ModuleCode>>,
) -> HashMap<(u64, u64), ModuleFile> {
    let mut files = HashMap::new();
    for mapping in mappings.iter().filter(|mapping| mapping.executable) {
        let key = (mapping.device, mapping.inode);
        if files.contains_key(&key) || known.contains_key(&key) {
            continue;
        }
        let opened = match mapping.path.as_str() {
            VDSO => copied(process, mapping).map(ModuleFile::Copied),
            _ if mapping.inode == 0 => None,
            path if path == process.executable() => {
                target_files::open_executable(process.process()).ok().map(ModuleFile::Mapped)
            }
            _ => target_files::open_mapped(process.process(), mapping).ok().map(ModuleFile::Mapped),
        };
        files.extend(opened.map(|file| (key, file)));
    }
    files
}

fn copied(process: &TargetProcess, mapping: &Mapping) -> Option<Vec<u8>> {
    let length = mapping.end.checked_distance_from(mapping.start)?;
    process.memory().bytes(mapping.start, length, MAX_VDSO_BYTES).ok()
}

fn region(mapping: &Mapping) -> MemoryRegion<'_> {
    MemoryRegion {
        start: mapping.start,
        end: mapping.end,
        file_offset: mapping.file_offset,
        device: mapping.device,
        inode: mapping.inode,
        executable: mapping.executable,
        path: &mapping.path,
    }
}
