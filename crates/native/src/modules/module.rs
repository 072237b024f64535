//! A module: code that was loaded from one file at one place.

use std::sync::Arc;

use profiler_model::RemoteAddr;

use super::build_id::BuildId;

/// The number of a module in its [`super::ModuleMap`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleIndex(u32);

impl ModuleIndex {
    /// An index from its numeric value.
    pub const fn new(value: u32) -> Self {
        ModuleIndex(value)
    }

    /// The numeric value.
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

/// The identity of a code address, independent of where the module was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CodeAddress {
    /// The module.
    pub module: ModuleIndex,
    /// The address in the module. [`ModuleKind`] says what it counts from.
    pub offset: u64,
}

/// What kind of code a module is, and what its offsets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModuleKind {
    /// An ELF file. Offsets are virtual addresses in the file's own terms, as its symbols have them.
    Elf,
    /// The kernel's own ELF image in every process. Offsets as in [`ModuleKind::Elf`].
    Vdso,
    /// Another file, or one that cannot be read. Offsets are offsets in the file.
    File,
    /// Executable memory without a file: code that a JIT made. Offsets count from the module's lowest address.
    Anonymous,
}

/// What has become of a module's file since it was mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileState {
    /// It is there, or there is none.
    Present,
    /// It was deleted. It may have been read all the same, by the mapping itself.
    Deleted,
    /// Another file has its path, and it could not be read.
    Replaced,
    /// It could not be read.
    Unreadable,
}

/// What was found when the file of a region was opened.
#[derive(Clone, Copy, Debug)]
pub enum OpenedFile<R> {
    /// The bytes of the very file that is mapped; of the vDSO the bytes in memory.
    Bytes(R),
    /// The path leads to another file than the mapped one.
    Replaced,
    /// It cannot be opened.
    Unreadable,
}

/// A module of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeModule {
    /// What kind of code it is.
    pub kind: ModuleKind,
    /// The path without the kernel's mark of a deleted file; a name in brackets (`[vdso]`); or empty.
    pub path: Arc<str>,
    /// The device of the file; 0 if there is no file.
    pub device: u64,
    /// The inode of the file; 0 if there is no file.
    pub inode: u64,
    /// What has become of the file.
    pub state: FileState,
    /// The build id, if the file was read and has one.
    pub build_id: Option<BuildId>,
    /// What is to be added to an offset to get an address in the process; it wraps around.
    pub bias: u64,
}

impl NativeModule {
    /// The address in the process of an offset of this module.
    pub fn address(&self, offset: u64) -> RemoteAddr {
        RemoteAddr::new(self.bias.wrapping_add(offset))
    }
}
