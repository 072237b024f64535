//! Everything that is asked of Linux, on one page: foreign memory, stopping a thread, `/proc`, clocks,
//! signals, starting a command. What the answers mean is decided elsewhere.
//!
//! The only crate beside `bpf` that may hold `unsafe` code; each block says why it is sound.

pub mod clock;
pub mod file;
pub mod launch;
pub mod memory;
pub mod permission;
pub mod priority;
pub mod proc;
pub mod ptrace;
pub mod signals;

pub use file::MappedFile;
pub use memory::ProcessMemory;
pub use proc::{Activity, Mapping, ProcView, Process, Schedule, ThreadFiles, proc_view};
pub use ptrace::{StopError, StoppedThread, Tracer};
