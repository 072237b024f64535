//! A recording of a program that counts the CPU time of its own parts, from its start to its end: what was sampled
//! and what the program says can be compared. What is compared, and how far it may be off, is for the tests to say.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::statistics::effective_number_of_gaps;
use crate::{Interpreter, Profiler, Scratch, WeightedSample, read_speedscope, samples_per_second};

/// The samples of a program and its account.
#[derive(Debug)]
pub struct TimedRecording {
    samples: Vec<WeightedSample>,
    account: Value,
    samples_per_second: f64,
}

impl TimedRecording {
    /// Runs a program of `fixtures/` under `record`, so many samples a second, with more options.
    pub fn of(
        interpreter: &Interpreter,
        program: &str,
        arguments: &[&str],
        rate: f64,
        options: &str,
    ) -> Result<Self> {
        let scratch = Scratch::new()?;
        let file = scratch.file("out.json");
        let run = Profiler::new("record")
            .words(&format!("{options} -t -f speedscope -r {rate} -o"))
            .arg(&file)
            .command(&interpreter.fixture_words(program, arguments))
            .succeed()?;
        let text = std::fs::read_to_string(&file)?;
        Ok(TimedRecording {
            samples: read_speedscope(&text)?,
            account: serde_json::from_str(run.stdout.lines().last().context("no output")?)?,
            samples_per_second: samples_per_second(&text, rate)?,
        })
    }

    /// The CPU seconds that the program has counted for a function or thread of one of its parts.
    ///
    /// # Errors
    /// When its account has no such entry.
    pub fn counted(&self, part: &str, name: &str) -> Result<f64> {
        self.account[part][name].as_f64().with_context(|| format!("no {part} {name} in {}", self.account))
    }

    /// The CPU seconds that such samples stand for. (Numbers of samples count the wait for a CPU as well.)
    pub fn sampled(&self, is_meant: impl Fn(&WeightedSample) -> bool) -> f64 {
        self.samples.iter().filter(|sample| is_meant(sample)).map(|sample| sample.weight).sum()
    }

    /// The effective number of the samples that stand for `seconds` of CPU time.
    pub fn effective_number(&self, seconds: f64) -> f64 {
        effective_number_of_gaps(seconds, self.samples_per_second)
    }
}

impl WeightedSample {
    /// Whether a function is on the stack.
    pub fn has(&self, name: &str) -> bool {
        self.frames.iter().any(|frame| frame.plain_name() == name)
    }

    /// Whether it is the innermost function.
    pub fn ends_in(&self, name: &str) -> bool {
        self.frames.last().is_some_and(|frame| frame.plain_name() == name)
    }
}
