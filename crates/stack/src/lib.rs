//! From what was captured of a thread to the stack that is shown: names, files and lines for addresses.
//!
//! Does no I/O of its own: code objects are read through [`profiler_memory::ReadMemory`].
#![forbid(unsafe_code)]

mod code_evidence;
mod frame_cache;
mod resolver;

pub use code_evidence::{CodeEvidence, Identity, KnownCodes};
pub use frame_cache::{FrameCache, FrameEvidence};
pub use resolver::{Describe, MAX_CODE_OBJECTS, Resolver};
