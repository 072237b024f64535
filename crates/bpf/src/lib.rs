//! The in-kernel sampler: a small program that a perf event runs at the very instant, on the very CPU, and what
//! loads it and reads what it sends.
//!
//! The program is C (`src/program/`), built by `cargo xtask bpf` to the object that is checked in beside it. It
//! copies addresses and bytes; what they mean is for the crates above: this one knows no version of CPython.

mod btf;
mod clock_events;
mod error_chain;
mod ids;
mod layout;
mod loader;
mod off_cpu;
mod records;
#[cfg(test)]
mod stack_depth;
mod task_layout;
mod wire;

pub use clock_events::ClockEvents;
pub use ids::PidNamespace;
pub use layout::{Layout, MAX_STATES, NO_OFFSET, StateEntry, ThreadEntry, head_hash};
pub use loader::{BpfError, Counters, KernelSampler};
pub use off_cpu::{BlockReason, DescriptorCalls, OffCpu, OffCpuCopy, OffCpuRecord, OffCpuSum, OpenFile};
pub use records::{FrameRecord, NamesRecord, Outcome, Record, StackRecord};
