//! The Julia program and its variants: the hot function, the hot lines, on every interpreter.

use anyhow::{Context, Result, ensure};
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    Frame, Interpreter, Profiler, Scratch, WeightedSample, every_interpreter_side_by_side, expectation,
    line_numbers, read_speedscope,
};
use serde_json::Value;

fn number(expected: &Value, name: &str) -> Result<f64> {
    expected[name].as_f64().with_context(|| name.to_owned())
}

/// CPU time of the stacks that are meant: numbers of samples count the wait for a CPU as well.
fn cpu(samples: &[WeightedSample], is_meant: impl Fn(&[Frame]) -> bool) -> f64 {
    samples.iter().filter(|sample| is_meant(&sample.frames)).map(|sample| sample.weight).sum()
}

/// Less CPU time than this at work says nothing of shares.
const LEAST_SECONDS: f64 = 0.2;

fn record(interpreter: &Interpreter, program: &str) -> Result<Vec<WeightedSample>> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.json");
    Profiler::new("record")
        .words("-f speedscope -r 500 -o")
        .arg(&file)
        .command(&interpreter.fixture_words(&format!("julia/{program}"), &["--size", "400"]))
        .succeed()?;
    read_speedscope(&std::fs::read_to_string(&file)?)
}

fn check(interpreter: &Interpreter, program: &str) -> Result<()> {
    let expected = &expectation("julia")?["programs"][program];
    let samples = record(interpreter, program)?;
    // The work only: not the start of the interpreter, which has functions called `main` too.
    let work = |frame: &Frame| {
        frame.plain_name() == "main" && frame.file.as_ref().is_some_and(|file| file.ends_with(program))
    };
    let whole = cpu(&samples, |frames| frames.iter().any(work));
    ensure!(whole >= LEAST_SECONDS, "only {whole} s at work");
    let hot = expected["hot_function"].as_str().context("hot_function")?;
    let is_hot = |frames: &[Frame]| frames.last().is_some_and(|leaf| leaf.plain_name() == hot);
    let in_hot = cpu(&samples, is_hot);
    let least = number(expected, "least_share")?;
    ensure!(in_hot / whole >= least, "{hot}: {in_hot} s of {whole}, less than {least}");
    if let Some(building) = expected["building"].as_str() {
        let there = cpu(&samples, |frames| frames.iter().any(|frame| frame.plain_name() == building));
        let most = number(expected, "most_share_building")?;
        ensure!(there / whole <= most, "{building}: {there} s of {whole}, more than {most}");
    }
    let mut on_lines = 0.0;
    for (text, least) in expected["lines"].as_object().context("lines")? {
        let numbers = line_numbers(&format!("julia/{program}"), text)?;
        let is_there = |frame: Option<&Frame>| {
            frame.and_then(|leaf| leaf.line).is_some_and(|line| numbers.contains(&line))
        };
        let there = cpu(&samples, |frames| is_hot(frames) && is_there(frames.last()));
        let least = least.as_f64().context("the least share of a line")?;
        ensure!(there / in_hot >= least, "{text:?}: {there} s of {in_hot}, less than {least}");
        on_lines += there;
    }
    let least = number(expected, "least_share_of_lines")?;
    ensure!(on_lines / in_hot >= least, "hot lines: {on_lines} s of {in_hot}, less than {least}");
    Ok(())
}

fn lists_of_points() {
    every_interpreter_side_by_side(|interpreter| check(interpreter, "julia.py"));
}

fn condition_in_four_statements() {
    every_interpreter_side_by_side(|interpreter| check(interpreter, "julia_split.py"));
}

fn tests_swapped() {
    every_interpreter_side_by_side(|interpreter| check(interpreter, "julia_swapped.py"));
}

fn points_on_the_fly() {
    every_interpreter_side_by_side(|interpreter| check(interpreter, "julia_fly.py"));
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(lists_of_points),
        test!(condition_in_four_statements),
        test!(tests_swapped),
        test!(points_on_the_fly),
    ]
}
