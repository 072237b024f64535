//! Shares of CPU time agree with what the program knows that it burnt, on every interpreter.

use anyhow::{Context, Result, ensure};
use profiler_tests::statistics::{bound_of_gaps, deviations};
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{Interpreter, TimedRecording, every_interpreter, expectation, interpreters};
use serde_json::Value;

/// Fewer samples than this and the bound would forgive anything.
const LEAST_EFFECTIVE_SAMPLES: f64 = 500.0;

/// Samples a second.
const RATE: f64 = 1000.0;

fn compare(interpreter: &Interpreter) -> Result<()> {
    let recording = TimedRecording::of(interpreter, "shares/shares.py", &["--seconds", "3"], RATE, "")?;
    let expected = expectation("shares")?;
    let functions: Vec<&str> =
        expected["functions"].as_array().context("functions")?.iter().filter_map(Value::as_str).collect();
    let sampled = |name: &str| recording.sampled(|sample| sample.has(name));
    let all: f64 = functions.iter().map(|name| sampled(name)).sum();
    let number = recording.effective_number(all, LEAST_EFFECTIVE_SAMPLES)?;
    let burnt: f64 = functions.iter().map(|name| recording.spent(name)).sum::<Result<_>>()?;
    // 99 % for the test as a whole: so many comparisons must all hold together.
    let confidence = expected["confidence"].as_f64().context("confidence")?;
    let deviations = deviations(confidence, functions.len() * interpreters().len());
    for name in &functions {
        let (truth, share) = (recording.spent(name)? / burnt, sampled(name) / all);
        let bound = bound_of_gaps(truth, number, deviations);
        ensure!(
            (share - truth).abs() <= bound,
            "{name}: {share:.4} sampled, {truth:.4} burnt, bound {bound:.4}, {number:.0} effective samples"
        );
    }
    Ok(())
}

fn shares_at_1000_hertz() {
    every_interpreter(compare);
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(shares_at_1000_hertz)]
}
