//! Shares of CPU time agree with what the program knows that it burnt, on every interpreter.

use anyhow::{Context, Result, ensure};
use profiler_tests::statistics::{bound_of_gaps, deviations, effective_number_of_gaps};
use profiler_tests::{
    Interpreter, Profiler, Scratch, WeightedSample, every_interpreter, expectation, interpreters,
    read_speedscope, samples_per_second,
};
use serde_json::Value;

/// Fewer samples than this and the bound would forgive anything.
const LEAST_EFFECTIVE_SAMPLES: f64 = 500.0;

/// Samples a second.
const RATE: f64 = 1000.0;

fn compare(interpreter: &Interpreter) -> Result<()> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.json");
    let run = Profiler::new("record")
        .words(&format!("-f speedscope -r {RATE} -o"))
        .arg(&file)
        .command(&interpreter.fixture_words("shares/shares.py", &["--seconds", "3"]))
        .succeed()?;
    let account: Value = serde_json::from_str(run.stdout.lines().last().context("no output")?)?;
    let text = std::fs::read_to_string(&file)?;
    let samples = read_speedscope(&text)?;
    let expected = expectation("shares")?;
    let functions: Vec<&str> =
        expected["functions"].as_array().context("functions")?.iter().filter_map(Value::as_str).collect();
    let has = |sample: &&WeightedSample, name: &str| sample.frames.iter().any(|f| f.plain_name() == name);
    // CPU time against CPU time: numbers of samples count the wait for a CPU as well.
    let sampled = |name: &str| samples.iter().filter(|s| has(s, name)).map(|s| s.weight).sum::<f64>();
    let all: f64 = functions.iter().map(|name| sampled(name)).sum();
    let number = effective_number_of_gaps(all, samples_per_second(&text, RATE)?);
    ensure!(number >= LEAST_EFFECTIVE_SAMPLES, "only {number} effective samples");
    let mut burnt = 0.0;
    let spent = |name: &str| account["spent"][name].as_f64().with_context(|| name.to_owned());
    for name in &functions {
        burnt += spent(name)?;
    }
    // 99 % for the test as a whole: so many comparisons must all hold together.
    let confidence = expected["confidence"].as_f64().context("confidence")?;
    let deviations = deviations(confidence, functions.len() * interpreters().len());
    for name in &functions {
        let (truth, share) = (spent(name)? / burnt, sampled(name) / all);
        let bound = bound_of_gaps(truth, number, deviations);
        ensure!(
            (share - truth).abs() <= bound,
            "{name}: {share:.4} sampled, {truth:.4} burnt, bound {bound:.4}, {number:.0} effective samples"
        );
    }
    Ok(())
}

#[test]
fn shares_at_1000_hertz() {
    every_interpreter(compare);
}
