//! Rows out of hand-made unwind information, and walks by them.

mod compiling;
mod random;
mod walking;

use profiler_model::RemoteAddr;

use super::*;
use crate::modules::{ElfImage, MemoryRegion, ModuleMap, OpenedFile};
use crate::test_image::{CODE, CODE_BYTES};

/// Where the tests load code.
const BIAS: u64 = 0x5555_0000_0000;

fn table(file: &[u8]) -> UnwindTable {
    compile(&ElfImage::parse(file).unwrap(), None, [])
}

/// A process with the code of a file at [`BIAS`].
fn modules(file: &[u8]) -> ModuleMap {
    let region = MemoryRegion {
        start: RemoteAddr::new(BIAS + CODE),
        end: RemoteAddr::new(BIAS + CODE + CODE_BYTES),
        file_offset: file.len() as u64 - CODE_BYTES,
        device: 1,
        inode: 1,
        executable: true,
        path: "/program",
    };
    ModuleMap::new(&[region], |_| OpenedFile::Bytes(file))
}
