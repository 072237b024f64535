//! Taking samples: targets, the schedule, and the ways of taking a sample.
//!
//! A [`Target`] is a process whose Python was found. A [`Session`] samples it, or a tree of processes, on a
//! schedule and hands [events](profiler_profile::Event) to an [`Observer`]; [`dump`] takes one look; [`examine`]
//! says what kind of Python a target has. What the samplers do differently is in `pause`, `peek` and
//! `bpf_program`; everything else they share.
#![forbid(unsafe_code)]

mod attach;
mod bpf_program;
mod capture;
mod code_cache;
mod code_names;
mod codes;
mod core_file;
mod cpu_follower;
mod cpu_limit;
mod deadline;
mod dump;
mod event_writer;
mod examine;
mod frame_cache;
mod gil;
mod kernel_frames;
mod kernel_names;
mod known_stacks;
mod launch_time;
mod lazy_event;
mod names;
mod objects;
mod off_cpu_clock;
mod off_cpu_reason;
mod off_cpu_tracker;
mod other_pythons;
mod page_prefetcher;
mod pause;
mod peek;
mod period_changer;
mod probe;
mod process_sampler;
mod process_set;
mod quota;
mod random;
mod random_period;
mod reported_intervals;
mod rota;
mod schedule;
mod session;
mod short_file;
mod sleep_watch;
mod sources;
mod stack_reader;
mod stop_bound;
mod tasks;
mod thread_table;
mod ticks;
mod tree;
mod unattached_time;

pub use attach::{AttachError, Search, Target};
pub use bpf_program::BpfProgram;
pub use core_file::{CoreFailure, CoreOptions, CoreTarget, FileTrouble, MissingFile, dump_core};
pub use dump::{DumpOptions, dump};
pub use event_writer::{Directive, Observer};
pub use examine::{Examination, ExaminedThread, Gils, Location, examine};
pub use kernel_names::KernelNames;
pub use launch_time::LaunchTime;
pub use profiler_bpf::BpfError;
pub use profiler_python::ReprLimits;
pub use session::{End, SamplerKind, SamplerOptions, Session};
pub use tree::family;
