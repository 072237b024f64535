//! The `bpf` sampler: a program inside the kernel takes the samples. This is the program as the sampler uses it, what
//! it sends as values of crate `stack`, frames of the kernel, and the accounts of threads that are off the CPU.

mod kernel_frames;
mod kernel_names;
mod off_cpu_reason;
mod off_cpu_tracker;
mod period_changer;
mod program;
mod sent_stack;
mod switch_watch;

pub use kernel_frames::KernelFrames;
pub use kernel_names::KernelNames;
pub use off_cpu_reason::Owner;
pub use off_cpu_tracker::{Instead, IntervalSink, OffCpuInterval, OffCpuTracker};
pub use program::{BpfProgram, RingLosses, entries};
pub use sent_stack::{raw_stack, read_evidence, sent_hashes, sent_names};
