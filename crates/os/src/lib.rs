//! Everything that is asked of Linux, on one page: foreign memory, stopping a thread, `/proc`, clocks,
//! signals, starting a command. What the answers mean is decided elsewhere.
//!
//! The only crate beside `bpf` that may hold `unsafe` code; each block says why it is sound.

pub mod affinity;
pub mod bpf_restriction;
pub mod children;
pub mod clock;
pub mod context_switch_log;
mod cpu_quota;
mod direct_memory;
pub mod file;
mod file_faults;
pub mod first_event;
pub mod guardian;
pub mod hang;
pub mod heap;
pub mod host;
pub mod kernel_symbols;
pub mod launch;
pub mod limits;
pub mod loaded_code;
pub mod memory;
pub mod patience;
mod perf_event;
pub mod permission;
pub mod priority;
pub mod proc;
mod proc_file;
pub mod process_events;
pub mod ptrace;
pub mod quiet_thread;
pub mod readiness;
mod residency;
pub mod self_test;
pub mod signals;
pub mod target_files;
pub mod thread_clock;
mod user_name;

pub use affinity::Affinity;
pub use bpf_restriction::BpfRestriction;
pub use children::ChildFinder;
pub use context_switch_log::{ContextSwitchLog, Switch, SwitchKind};
pub use cpu_quota::CpuQuota;
pub use file::MappedFile;
pub use guardian::Guardian;
pub use kernel_symbols::{KernelSymbol, KernelSymbols, KernelSymbolsError, Restriction};
pub use loaded_code::LoadedCode;
pub use memory::ProcessMemory;
pub use proc::{Activity, CopyEnd, Mapping, ProcView, Process, ThreadFiles, proc_view};
pub use process_events::{EventsError, ProcessEvent, ProcessEvents};
pub use ptrace::{StopError, StoppedThread, Tracer};
pub use thread_clock::ThreadClock;
pub use user_name::UserName;
