//! Taking samples: targets, the schedule, and the ways of taking a sample.
//!
//! An [`Engine`] samples processes and hands [events](profiler_profile::Event) to a sink; a [`Session`] runs it for one process or
//! tree until an [`Observer`] ends it. What the samplers do differently is in `pause`, `peek` and `bpf`; everything else they share.
//! [`once`] is for a single look.
#![forbid(unsafe_code)]

mod bpf;
mod capture;
mod cpu_limit;
mod deadline;
mod engine;
mod event_writer;
mod gil;
mod kernel_frames;
mod kernel_names;
mod lazy_event;
mod names;
mod native;

mod objects;
mod observation;
mod on_schedule;
mod page_prefetcher;
mod pause;
mod peek;
mod probe;
mod process_sampler;
mod processes;
mod reporter;
mod roster;
mod rota;
mod runtimes;
mod sampled_process;
mod session;
mod sleep_watch;
mod stack_reader;
mod stop_bound;
mod tasks;
mod thread_table;

pub use bpf::BpfProgram;
pub use engine::{Engine, SamplerKind, SamplerOptions};
pub use kernel_names::KernelNames;
pub use native::ProcessCode;
pub use profiler_bpf::{BpfError, KeptRecords, MAX_RUNTIMES};
pub use profiler_python::ReprLimits;
pub use session::{Directive, End, Observer, Session};

/// What one look at a process takes: its threads, stopped, proved and copied at one instant, with the objects that are
/// wanted.
pub mod once {
    pub use crate::capture::InstantCopy;
    pub use crate::gil::read as read_gil;
    pub use crate::names::names;
    pub use crate::objects::{MAX_FRAMES_WITH_VARIABLES, ObjectCopy, ObjectsWanted, stack_variables};
    pub use crate::probe::{GilGroup, Probe};
    pub use crate::stack_reader::{CodeAhead, StackReader, loss};
    pub use crate::tasks::{TaskList, TaskReader, task_dumps};
    pub use crate::thread_table::{Thread, ThreadTable};
}
