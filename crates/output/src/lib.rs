//! Views of a profile, one file per written format, and the texts of `dump` and of the closing ledger.
//!
//! A view decides what of a frame is shown and how samples are weighed; nothing here changes a profile. All
//! of it goes to a `Write`: which file that is, and whether it is a terminal, is the business of `cli`.
#![forbid(unsafe_code)]

mod chrometrace;
mod collapsed;
mod drawn_stack;
mod dump_json;
mod dump_tasks;
mod dump_text;
mod escape;
mod flamegraph;
mod format;
mod label;
mod ledger_json;
mod ledger_text;
mod options;
mod shared_frames;
mod speedscope;
mod stretches;
mod tree;

pub use chrometrace::ChromeTrace;
pub use collapsed::Collapsed;
pub use dump_json::write_dumps_json;
pub use dump_text::write_dump_text;
pub use escape::{json as escaped_json, plain as escaped_text};
pub use flamegraph::FlameGraph;
pub use format::{FORMATS, Format, OutputError, format_named, format_of_ending, format_of_file};
pub use ledger_json::write_ledger_json;
pub use ledger_text::{summary, write_ledger};
pub use options::{Lines, ViewOptions, Weight};
pub use speedscope::Speedscope;
