//! Foreign memory: [`ReadMemory`], typed and bounded reads on top of it, and [`Snapshot`]s of it.
//!
//! A live process, a core file and a stored snapshot all implement [`ReadMemory`], so whatever
//! interprets memory is written and tested once. This crate does no I/O itself.
#![forbid(unsafe_code)]

mod batched_reader;
mod copied;
mod core_file;
mod field;
mod pages;
mod read;
mod recorder;
mod snapshot;

pub use batched_reader::BatchedReader;
pub use copied::{CopiedPages, Copying, Nothing};
pub use core_file::{
    CoreActivity, CoreError, CoreFile, CoreMapping, CoreMemory, CoreProcess, CoreSegment, CoreThread,
    FileMatch, compare as compare_with_core,
};
pub use field::{Field, Scalar};
pub use pages::{PAGE_BYTES, PageCopy};
pub use read::{ReadError, ReadMemory, ReadRequest};
pub use recorder::Recorder;
pub use snapshot::{Snapshot, SnapshotError};
