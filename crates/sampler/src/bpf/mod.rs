//! The `bpf` sampler: a program inside the kernel takes the samples. This is the program as the sampler uses it, what it has to
//! know of each process, and the accounts of threads that are off the CPU.

mod capture;
mod idle_scan;
mod in_kernel;
mod off_cpu;
mod off_cpu_reason;
mod off_cpu_tracker;
mod period_changer;
mod program;
mod registration;
mod switch_watch;

pub use idle_scan::report_sleeper;
pub use in_kernel::InKernel;
pub use program::{BpfProgram, RingLosses};
