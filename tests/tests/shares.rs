//! Shares of CPU time agree with what the program knows that it burnt, on every interpreter.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use profiler_tests::statistics::{bound, deviations, effective_number};
use profiler_tests::{
    Interpreter, Profiler, Scratch, every_interpreter, expectation, interpreters, read_speedscope,
};
use serde_json::Value;

/// The weights of all samples of each burner.
fn sampled(text: &str, functions: &[&str]) -> Result<BTreeMap<String, Vec<f64>>> {
    let mut weights: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for sample in read_speedscope(text)? {
        let burner = sample.frames.iter().rev().find(|frame| functions.contains(&frame.plain_name()));
        if let Some(burner) = burner {
            weights.entry(burner.plain_name().to_owned()).or_default().push(sample.weight);
        }
    }
    Ok(weights)
}

fn compare(interpreter: &Interpreter, rate: u32) -> Result<()> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.json");
    let run = Profiler::new("record")
        .words(&format!("-f speedscope -r {rate} -o"))
        .arg(&file)
        .command(&interpreter.fixture_words("shares/shares.py", &["--seconds", "3"]))
        .succeed()?;
    let account: Value = serde_json::from_str(run.stdout.lines().last().context("no output")?)?;
    let expected = expectation("shares")?;
    let functions: Vec<&str> =
        expected["functions"].as_array().context("functions")?.iter().filter_map(Value::as_str).collect();
    let sampled = sampled(&std::fs::read_to_string(&file)?, &functions)?;
    let all: Vec<f64> = sampled.values().flatten().copied().collect();
    let (number, total) = (effective_number(&all), all.iter().sum::<f64>());
    ensure!(number > f64::from(rate), "only {number} effective samples");
    let spent = |name: &str| account["spent"][name].as_f64().with_context(|| name.to_owned());
    let mut burnt = 0.0;
    for name in &functions {
        burnt += spent(name)?;
    }
    // 99 % for the test as a whole: so many comparisons must all hold together.
    let confidence = expected["confidence"].as_f64().context("confidence")?;
    let deviations = deviations(confidence, functions.len() * interpreters().len());
    for name in &functions {
        let truth = spent(name)? / burnt;
        let share = sampled.get(*name).map_or(0.0, |weights| weights.iter().sum::<f64>()) / total;
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
