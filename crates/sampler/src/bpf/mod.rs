//! The `bpf` sampler: a program inside the kernel takes the samples. This is the program as the sampler uses it, what is known
//! of the code that it meets, and the accounts of threads that are off the CPU.

mod code_cache;
mod kernel_frames;
mod kernel_names;
mod off_cpu_reason;
mod off_cpu_tracker;
mod period_changer;
mod program;
mod switch_watch;

pub use code_cache::{CodeCache, Sent};
pub use kernel_frames::KernelFrames;
pub use kernel_names::KernelNames;
pub use off_cpu_reason::Owner;
pub use off_cpu_tracker::{Instead, IntervalSink, OffCpuInterval, OffCpuTracker};
pub use program::{BpfProgram, RingLosses, entries};
