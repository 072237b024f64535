//! How the live view begins.

use profiler_model::Nanos;

/// How the view begins.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The length of an interval.
    pub interval: Nanos,
    /// Whether threads that wait are included.
    pub include_idle: bool,
    /// Whether only samples with the GIL are shown.
    pub gil_only: bool,
    /// Whether line numbers are shown.
    pub line_numbers: bool,
    /// Whether whole file names are shown.
    pub full_filenames: bool,
    /// The file that is proposed when the user saves what is shown.
    pub file: String,
}
