//! Counting names with a list: two hot lines.

use anyhow::{Context, Result, ensure};
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Test};
use profiler_tests::{
    Frame, Profiler, Scratch, WeightedSample, expectation, line_numbers, read_speedscope, test,
};
use serde_json::Value;

/// Names whose counting gives some five hundred samples: of fewer the cheaper one of the two lines might have too few.
const NAMES: &str = "8000";

fn inner_loop_is_hot(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.json");
    Profiler::new("record")
        .words(&format!("-f speedscope -r 1000 {} -o", case.sampler_words()))
        .arg(&file)
        .command(&case.interpreter.fixture_words("unique_names/unique_names.py", &["--names", NAMES]))
        .succeed()?;
    check(&read_speedscope(&std::fs::read_to_string(&file)?)?)
}

/// A recording with less CPU time than this in the hot function says nothing of its lines.
const LEAST_SECONDS: f64 = 0.1;

fn check(samples: &[WeightedSample]) -> Result<()> {
    let expected = expectation("unique_names")?;
    let text = |name: &str| expected[name].as_str().with_context(|| name.to_owned());
    let number = |name: &str| expected[name].as_f64().with_context(|| name.to_owned());
    // CPU time: the number of samples counts the wait for a CPU as well.
    let cpu = |is_meant: &dyn Fn(&Frame) -> bool| -> f64 {
        samples.iter().filter(|sample| sample.frames.last().is_some_and(is_meant)).map(|s| s.weight).sum()
    };
    let counting = |name: &str| cpu(&|leaf| leaf.plain_name() == name);
    let (slow, fast) = (counting(text("hot_function")?), counting(text("other_function")?));
    ensure!(slow >= LEAST_SECONDS, "only {slow} s in the slow function");
    ensure!(slow / (slow + fast) >= number("least_share")?, "{slow} s slow, {fast} s fast");
    ensure!(fast / (slow + fast) <= number("most_share_other")?, "{slow} s slow, {fast} s fast");
    let hot = text("hot_function")?;
    let mut on_lines = Vec::new();
    for line in expected["lines"].as_array().context("lines")?.iter().filter_map(Value::as_str) {
        let numbers = line_numbers("unique_names/unique_names.py", line)?;
        let is_there = |leaf: &Frame| leaf.line.is_some_and(|line| numbers.contains(&line));
        let seconds = cpu(&|leaf| leaf.plain_name() == hot && is_there(leaf));
        ensure!(seconds / slow >= number("each_line_at_least")?, "{line:?}: {seconds} s of {slow}");
        on_lines.push((seconds, line));
    }
    let sum: f64 = on_lines.iter().map(|(seconds, _)| seconds).sum();
    ensure!(sum / slow >= number("least_share_of_lines")?, "{on_lines:?} of {slow}");
    let hottest = on_lines.iter().max_by(|one, other| one.0.total_cmp(&other.0)).context("no lines")?.1;
    ensure!(hottest == text("hottest_line")?, "{on_lines:?}");
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(inner_loop_is_hot).on(On::Layouts).by(PAUSE_AND_BPF)]
}
