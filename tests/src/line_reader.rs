//! Lines of a child's output as they come, with a limit on the waiting.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// No test waits longer than this for a line. It never comes near on a healthy run: a fixture is ready in
/// under a second, on a machine that is busy with something else in a few.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The lines of a pipe, read by a thread of their own so that waiting can be limited.
#[derive(Debug)]
pub struct Lines(Receiver<String>);

impl Lines {
    /// Starts to read.
    pub fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = channel();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines() {
                let Ok(line) = line else { break };
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Lines(receiver)
    }

    /// The next line.
    pub fn next_line(&self) -> Result<String> {
        self.0.recv_timeout(LONGEST_WAIT).context("no further line of output")
    }

    /// The last line, once the pipe has been closed.
    pub fn last_line(&self) -> Result<String> {
        let mut last = self.next_line()?;
        while let Ok(line) = self.0.recv_timeout(LONGEST_WAIT) {
            last = line;
        }
        Ok(last)
    }
}
