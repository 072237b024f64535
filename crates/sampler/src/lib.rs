//! Taking samples: targets, the schedule, and the ways of taking a sample.
//!
//! A [`Session`] samples a [`Target`](profiler_target::Target), a process whose Python was found, or a tree of processes, on a
//! schedule and hands [events](profiler_profile::Event) to an [`Observer`]; [`dump`] takes one look; [`examine`]
//! says what kind of Python a target has. What the samplers do differently is in `pause`, `peek` and
//! `bpf_program`; everything else they share.
#![forbid(unsafe_code)]

mod bpf_program;
mod capture;
mod code_cache;
mod code_names;
mod core_file;
mod cpu_follower;
mod cpu_limit;
mod deadline;
mod dump;
mod event_writer;
mod examine;
mod gil;
mod kernel_frames;
mod kernel_names;
mod lazy_event;
mod names;
mod objects;
mod off_cpu_reason;
mod off_cpu_tracker;
mod page_prefetcher;
mod pause;
mod peek;
mod period_changer;
mod probe;
mod process_sampler;
mod process_set;
mod quota;
mod rota;
mod session;
mod sleep_watch;
mod stack_reader;
mod stop_bound;
mod tasks;
mod thread_table;

pub use bpf_program::BpfProgram;
pub use core_file::{CoreFailure, CoreOptions, CoreTarget, FileTrouble, MissingFile, dump_core};
pub use dump::{DumpOptions, dump};
pub use event_writer::{Directive, Observer};
pub use examine::{Examination, ExaminedThread, Gils, Location, examine};
pub use kernel_names::KernelNames;
pub use profiler_bpf::BpfError;
pub use profiler_python::ReprLimits;
pub use session::{End, SamplerKind, SamplerOptions, Session};
