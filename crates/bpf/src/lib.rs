//! The in-kernel sampler: a small program that a perf event runs at the very instant, on the very CPU, and what
//! loads it and reads what it sends.
//!
//! The program is C (`src/program/`), built by `cargo xtask bpf` to the object that is checked in beside it. It
//! copies addresses and bytes; what they mean is for the crates above: this one knows no version of CPython.

mod btf;
mod clock_events;
mod descriptor_calls;
mod error;
mod error_chain;
mod ids;
mod kept_records;
mod layout;
mod loader;
mod native;
mod off_cpu;
mod off_cpu_record;
mod records;
#[cfg(test)]
mod stack_depth;
mod stack_record;
mod task_layout;
mod wire;

pub use clock_events::ClockEvents;
pub use descriptor_calls::DescriptorCalls;
pub use error::BpfError;
pub use ids::PidNamespace;
pub use kept_records::KeptRecords;
pub use layout::{Layout, MAX_RUNTIMES, MAX_STATES, NO_OFFSET, StateEntry, ThreadEntry, head_hash};
pub use loader::{Counters, KernelSampler, RingLoss};
pub use native::{NativeCounts, NativeTicks};
pub use off_cpu::{OffCpu, OffCpuCopy, OffCpuSum};
pub use off_cpu_record::{BlockReason, OffCpuRecord};
pub use records::{NamesRecord, Record};
pub use stack_record::{FrameRecord, Outcome, StackRecord};
pub use wire::OpenFile;
