//! The modules of a process: which code is mapped where, and where an address lies in the file that it comes from.
//!
//! `region` is a line of the memory map as plain data, `image` reads ELF, `map` puts both together and looks program counters
//! up.

mod build_id;
mod image;
mod map;
mod module;
mod region;
#[cfg(test)]
mod tests;

pub use build_id::BuildId;
pub use image::{ElfImage, ImageError, LoadSegment, Section};
pub use map::ModuleMap;
pub use module::{CodeAddress, FileState, ModuleIndex, ModuleKind, NativeModule, OpenedFile};
pub use region::MemoryRegion;
