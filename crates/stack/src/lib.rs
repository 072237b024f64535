//! From what was captured of a thread to the stack that is shown: names, files and lines for addresses.
//!
//! [`StackResolver`] is the one way there, for all samplers. It does no I/O: code objects are read through
//! [`profiler_memory::ReadMemory`], and what the in-kernel program sends comes in as values.
#![forbid(unsafe_code)]

mod by_hash;
mod by_head;
mod capture;
mod code_evidence;
mod code_source;
mod frame_cache;
mod native_frames;
mod resolver;
mod stack_resolver;

pub use by_hash::{HashedEvidence, Kept, SentNames};
pub use capture::{Capture, CodeLocation, KernelStack, NativeStack};
pub use code_evidence::{CodeEvidence, KnownCodes};
pub use code_source::CodeSource;
pub use native_frames::NativeFrames;
pub use resolver::{Describe, Resolver};
pub use stack_resolver::{StackEvidence, StackResolver, truncation_mark};
