//! A region of a process's memory map, as plain data.

use profiler_model::RemoteAddr;

/// One line of `/proc/PID/maps`, or what a core file says of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRegion<'a> {
    /// First address.
    pub start: RemoteAddr,
    /// First address after it.
    pub end: RemoteAddr,
    /// Offset of `start` in the mapped file, in bytes.
    pub file_offset: u64,
    /// The device of the mapped file, in any encoding that is the same for all regions; 0 if it is not known.
    pub device: u64,
    /// The inode of the mapped file; 0 if no file is mapped.
    pub inode: u64,
    /// Whether it may be executed.
    pub executable: bool,
    /// The path as the kernel shows it, with ` (deleted)` where the file is; `[vdso]` and the like; or empty.
    pub path: &'a str,
}
