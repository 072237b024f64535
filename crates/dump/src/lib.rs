//! One look at a process, live or a core file: what every thread does, the variables of its frames, and asyncio's tasks.
//!
//! [`dump`] looks at a process that runs, [`dump_core`] at what is left of one; [`examine`] says what kind of Python a process
//! has. Threads are stopped, and stacks proved and copied, by the sampler.
#![forbid(unsafe_code)]

mod core_file;
mod examine;
mod live;

pub use core_file::{CoreFailure, CoreOptions, CoreTarget, FileTrouble, MissingFile, dump_core};
pub use examine::{Examination, ExaminedThread, Gils, Location, examine};
pub use live::{DumpOptions, dump};
