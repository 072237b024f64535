//! The line on a terminal that tells how a recording gets on. On anything but a terminal it is not shown.

use std::io::{self, IsTerminal, Write};

use profiler_model::Nanos;

use crate::messages::{counted, grouped};

/// How far a recording has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Time since it began.
    pub elapsed: Nanos,
    /// Samples shown.
    pub samples: u64,
    /// Samples lost.
    pub lost: u64,
}

/// Between two updates of the line: four a second are read, more only flicker.
const INTERVAL: Nanos = Nanos::from_nanos(250_000_000);

/// Clears from the cursor to the end of the line.
const CLEAR: &str = "\r\x1b[K";

/// The line, cleared when this is dropped.
#[derive(Debug)]
pub struct ProgressLine {
    enabled: bool,
    shown_at: Option<Nanos>,
}

impl ProgressLine {
    /// A line on stderr, if that is a terminal.
    pub fn on_stderr() -> Self {
        ProgressLine { enabled: io::stderr().is_terminal(), shown_at: None }
    }

    /// Shows how far the recording is, unless it was shown just now.
    pub fn update(&mut self, progress: &Progress) {
        let is_due = self.shown_at.is_none_or(|shown| progress.elapsed.saturating_sub(shown) >= INTERVAL);
        if self.enabled && is_due {
            self.shown_at = Some(progress.elapsed);
            // The cursor goes back to the start: what a launched command prints then begins where it
            // would begin without us.
            let _ = write!(io::stderr(), "{CLEAR}{}\r", line(progress));
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if self.shown_at.is_some() {
            let _ = write!(io::stderr(), "{CLEAR}");
        }
    }
}

fn line(progress: &Progress) -> String {
    let samples = counted(progress.samples, "sample");
    format!("{:.1} s  {samples}, {} lost", progress.elapsed.as_secs_f64(), grouped(progress.lost))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_time_samples_and_losses() {
        let progress = Progress { elapsed: Nanos::from_nanos(12_345_000_000), samples: 1_230, lost: 0 };
        assert_eq!(line(&progress), "12.3 s  1,230 samples, 0 lost");
    }
}
