//! What a run has seen: interned frames and stacks, processes, threads, summed samples and the ledger.
//!
//! Pure: no I/O, no clock. Writing a profile in a format is the business of `output`, filling it that of
//! `sampler`. Memory grows with the number of distinct stacks, not with time, unless a profile is asked to
//! keep its [timeline](Profile::with_timeline) as well.
#![forbid(unsafe_code)]

mod basis;
mod described;
mod dictionary;
mod dump;
mod event;
mod frame_table;
mod handle;
mod hot;
mod ledger;
mod mapping;
mod merge;
mod policy;
mod process;
mod profile;
mod renaming;
mod sample;
mod select;
mod stack_table;
mod tally;
mod thread_table;
mod timeline;

pub use basis::Basis;
pub use dictionary::{Dictionary, Epoch};
pub use dump::{
    Ancestor, FrameDetails, ProcessDump, Stops, TaskDump, TaskState, Tasks, ThreadDump, Variables,
};
pub use event::{
    Event, Held, HeldBy, Loss, Mark, MarkKind, Metric, MetricValue, SampleCause, SampleEvent, Scope, Sink,
    Skip, ThreadRole,
};
pub use handle::{FrameId, ProcessId, StackId, ThreadId};
pub use hot::{Function, Hot, Line};
pub use ledger::{Ledger, ProcessCounts};
pub use policy::{CapturePolicy, Filtered, ViewFilter};
pub use process::{ProcessInfo, ThreadInfo};
pub use profile::Profile;
pub use renaming::Renaming;
pub use sample::{Sample, Weights};
pub use stack_table::LeafFirst;
pub use tally::Tally;
pub use timeline::Run;
