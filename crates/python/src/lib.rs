//! CPython from outside: everything that is known of its memory, and nothing of how it is fetched.
//!
//! The crate reads through [`profiler_memory::ReadMemory`] and does no I/O: a live process, a core file
//! and a stored snapshot are walked by the same code. What differs by version is data in [`Offsets`];
//! whoever uses this crate never sees a version number decide anything.
#![forbid(unsafe_code)]

mod offsets;

pub use offsets::{
    BytesOffsets, CodeOffsets, DictOffsets, FrameLayout, FrameOffsets, GilOffsets, InstructionPointer,
    InterpreterOffsets, LineTableFormat, LongOffsets, ManagedAttributes, ObjectOffsets, Offsets,
    RuntimeOffsets, ThreadOffsets, UnicodeOffsets, Version,
};
