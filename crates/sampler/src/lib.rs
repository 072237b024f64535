//! Taking samples: targets, the schedule, and the ways of taking a sample.
//!
//! A [`Session`] samples a [`Target`](profiler_target::Target), a process whose Python was found, or a tree of processes, on a
//! schedule and hands [events](profiler_profile::Event) to an [`Observer`]; [`dump`] takes one look; [`examine`]
//! says what kind of Python a target has. What the samplers do differently is in `pause`, `peek` and
//! `bpf`; everything else they share.
#![forbid(unsafe_code)]

mod bpf;
mod capture;
mod code_names;
mod core_file;
mod cpu_limit;
mod deadline;
mod dump;
mod event_writer;
mod examine;
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
mod stack_reader;
mod stop_bound;
mod tasks;
mod thread_table;

pub use bpf::{BpfProgram, KernelNames};
pub use core_file::{CoreFailure, CoreOptions, CoreTarget, FileTrouble, MissingFile, dump_core};
pub use dump::{DumpOptions, dump};
pub use event_writer::{Directive, Observer};
pub use examine::{Examination, ExaminedThread, Gils, Location, examine};
pub use profiler_bpf::BpfError;
pub use profiler_python::ReprLimits;
pub use session::{End, SamplerKind, SamplerOptions, Session};
