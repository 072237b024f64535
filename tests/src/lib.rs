//! What the end-to-end tests of the binary `profiler` share: the interpreters of the matrix, fixtures that
//! announce their readiness, the binary itself with a limit on its time, readers of what it writes, and the
//! judgement whether a stack of the labyrinth is possible. The tests themselves are in `tests/`.
#![forbid(unsafe_code)]

pub mod account;
pub mod cache;
mod collapsed;
mod competitors;
pub mod core_file;
mod cpu_hotplug;
pub mod damage;
mod dump;
mod environment;
mod expectation;
mod fixture;
pub mod fuzzing;
pub mod hostile;
pub mod inside;
mod interpreter;
mod json_schema;
mod kernel_programs;
pub mod labyrinth;
mod ledger;
mod line_reader;
pub mod line_tables;
pub mod native_labyrinth;
pub mod place;
mod process;
mod profiler;
mod requirement;
mod sampling_limit;
mod scratch;
pub mod snapshot;
mod soak;
mod speedscope;
pub mod statistics;
pub mod streams;
pub mod suite;
pub mod survey;
pub mod survival;
mod terminal;
mod timed_recording;
pub mod times;
mod trace_events;
pub mod tree;
pub mod waits;
mod workload;

pub use collapsed::{Collapsed, Frame, Stack};
pub use competitors::Competitors;
pub use cpu_hotplug::RemovableCpu;
pub use dump::{DumpedFrame, DumpedThread, dumped_json, dumped_text};
pub use environment::Environment;
pub use expectation::{expectation, fixture_folder, line_numbers};
pub use fixture::Fixture;
pub use interpreter::{Interpreter, LIST_VARIABLE, WORK, interpreters, one_interpreter, write_list};
pub use json_schema::check_schema;
pub use kernel_programs::{can_load_programs, programs_of};
pub use ledger::{Ledger, Times};
pub use line_reader::Lines;
pub use process::{
    cpu_nanos, process_state, state_of, tracer_of, wait_until_others_are_still, wait_until_still,
};
pub use profiler::{Profiler, Run, Running, profiler_path};
pub use requirement::{is_root, missing};
pub use sampling_limit::{LoweredLimit, UsualLimit};
pub use scratch::Scratch;
pub use soak::{SOAK_VARIABLE, soak};
pub use speedscope::{WeightedSample, read_speedscope, samples_per_second, uninterrupted};
pub use terminal::{Terminal, USUAL_SIZE, count_before};
pub use timed_recording::TimedRecording;
pub use trace_events::{Drawn, check_trace_events};
pub use workload::{Extent, table_tests, topics};
