//! Taking samples: targets, the schedule, and the ways of taking a sample.
//!
//! A [`Target`] is a process whose Python was found. A [`Session`] samples it, or a tree of processes, on a
//! schedule into a [`Profile`](profiler_profile::Profile) and its ledger; [`dump`] takes one look; [`examine`]
//! tells what kind of Python a target has. What the samplers do differently is in `pause`, `peek` and
//! `kernel`; everything else they share.
#![forbid(unsafe_code)]

mod intervals;
mod attach;
mod beginning;
mod capture;
mod code_names;
mod codes;
mod company;
mod core_file;
mod cpu_limit;
mod deadline;
mod dump;
mod examine;
mod forecast;
mod gil;
mod instant;
mod kernel;
mod kernel_frames;
mod kernel_names;
mod known_stacks;
mod members;
mod met_frames;
mod missed;
mod names;
mod objects;
mod off_cpu_reason;
mod opened;
mod other_pythons;
mod pause;
mod peek;
mod period_changer;
mod probe;
mod process_sampler;
mod quota;
mod random;
mod random_period;
mod roster;
mod rota;
mod schedule;
mod sent;
mod session;
mod short_file;
mod sleep_watch;
mod sources;
mod stop_bound;
mod tasks;
mod ticks;
mod told_parts;
mod tree;
mod wait_account;

pub use attach::{AttachError, Search, Target};
pub use beginning::Beginning;
pub use core_file::{CoreFailure, CoreOptions, CoreTarget, FileTrouble, MissingFile, dump_core};
pub use dump::{DumpOptions, dump};
pub use examine::{Examination, ExaminedThread, Gils, Location, examine};
pub use kernel::Kernel;
pub use kernel_names::KernelNames;
pub use profiler_bpf::BpfError;
pub use profiler_python::ReprLimits;
pub use session::{End, Progress, SamplerKind, SamplerOptions, Session};
pub use tree::family;
