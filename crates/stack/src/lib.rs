//! From what was captured of a thread to the stack that is shown: names, files and lines for addresses.
//!
//! Does no I/O of its own: code objects are read through [`profiler_memory::ReadMemory`].
#![forbid(unsafe_code)]

mod resolver;

pub use resolver::{Describe, MAX_CODE_OBJECTS, Resolver};
