//! Shares of CPU time agree with what the program knows that it burnt, on every interpreter.

use anyhow::{Context, Result, ensure};
use profiler_tests::statistics::{bound, deviations, effective_number};
use profiler_tests::{
    Collapsed, Interpreter, Profiler, Scratch, every_interpreter, expectation, interpreters,
};
use serde_json::Value;

/// Fewer samples than this and the bound would forgive anything.
const LEAST_EFFECTIVE_SAMPLES: f64 = 500.0;

fn compare(interpreter: &Interpreter, rate: u32) -> Result<()> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.txt");
    let run = Profiler::new("record")
        .words(&format!("-f raw -r {rate} -o"))
        .arg(&file)
        .command(&interpreter.fixture_words("shares/shares.py", &["--seconds", "3"]))
        .succeed()?;
    let account: Value = serde_json::from_str(run.stdout.lines().last().context("no output")?)?;
    let profile = Collapsed::parse(&std::fs::read_to_string(&file)?)?;
    let expected = expectation("shares")?;
    let functions: Vec<&str> =
        expected["functions"].as_array().context("functions")?.iter().filter_map(Value::as_str).collect();
    let count = |name: &str| profile.count(|stack| stack.contains(name));
    let all: u64 = functions.iter().map(|name| count(name)).sum();
    // Every sample in this file weighs one.
    let number = effective_number(&vec![1.0; usize::try_from(all)?]);
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
        let (truth, share) = (spent(name)? / burnt, count(name) as f64 / all as f64);
        let bound = bound(truth, number, deviations);
        ensure!(
            (share - truth).abs() <= bound,
            "{name}: {share:.4} sampled, {truth:.4} burnt, bound {bound:.4}, {number:.0} effective samples"
        );
    }
    Ok(())
}

#[test]
fn shares_at_500_hertz() {
    every_interpreter(|interpreter| compare(interpreter, 500));
}
