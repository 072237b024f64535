//! Taking samples: targets, the schedule, and the ways of taking a sample.
//!
//! A [`Session`] samples a [`Target`](profiler_target::Target), a process whose Python was found, or a tree of processes, on a
//! schedule, and hands [events](profiler_profile::Event) to an [`Observer`]. What the samplers do differently is in `pause`,
//! `peek` and `bpf`; everything else they share. [`once`] is for a single look.
#![forbid(unsafe_code)]

mod bpf;
mod capture;
mod cpu_limit;
mod deadline;
mod event_writer;
mod gil;
mod lazy_event;
mod names;
mod objects;
mod page_prefetcher;
mod pause;
mod peek;
mod probe;
mod process_sampler;
mod process_set;
mod rota;
mod session;
mod sleep_watch;
mod stack_names;
mod stack_reader;
mod stop_bound;
mod tasks;
mod thread_table;

pub use bpf::{BpfProgram, KernelNames};
pub use event_writer::{Directive, Observer};
pub use profiler_bpf::BpfError;
pub use profiler_python::ReprLimits;
pub use session::{End, SamplerKind, SamplerOptions, Session};

/// What one look at a process takes: its threads, stopped, proved and copied at one instant, with the objects that are
/// wanted.
pub mod once {
    pub use crate::capture::Capture;
    pub use crate::gil::read as read_gil;
    pub use crate::names::names;
    pub use crate::objects::{MAX_FRAMES_WITH_VARIABLES, ObjectCopy, ObjectsWanted, stack_variables};
    pub use crate::probe::{GilGroup, Probe};
    pub use crate::stack_reader::{CodeAhead, StackReader, loss};
    pub use crate::tasks::{TaskList, TaskReader, task_dumps};
    pub use crate::thread_table::{Thread, ThreadTable};
}
