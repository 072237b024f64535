//! The Julia program and its variants: the hot function, the hot lines, on every interpreter.

use anyhow::{Context, Result, ensure};
use profiler_tests::{
    Collapsed, Frame, Interpreter, Profiler, Scratch, every_interpreter, expectation, line_numbers,
};
use serde_json::Value;

fn number(expected: &Value, name: &str) -> Result<f64> {
    expected[name].as_f64().with_context(|| name.to_owned())
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn record(interpreter: &Interpreter, program: &str) -> Result<Collapsed> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.txt");
    Profiler::new("record")
        .words("-f raw -r 500 -o")
        .arg(&file)
        .command(&interpreter.fixture_words(&format!("julia/{program}"), &["--size", "400"]))
        .succeed()?;
    Collapsed::parse(&std::fs::read_to_string(&file)?)
}

fn check(interpreter: &Interpreter, program: &str) -> Result<()> {
    let expected = &expectation("julia")?["programs"][program];
    let profile = record(interpreter, program)?;
    // The work only: not the start of the interpreter, which has functions called `main` too.
    let work = |frame: &Frame| {
        frame.plain_name() == "main" && frame.file.as_ref().is_some_and(|file| file.ends_with(program))
    };
    let whole = profile.count(|stack| stack.frames.iter().any(work));
    ensure!(whole >= 100, "only {whole} samples");
    let hot = expected["hot_function"].as_str().context("hot_function")?;
    let in_hot = profile.count(|stack| stack.leaf().is_some_and(|leaf| leaf.plain_name() == hot));
    let least = number(expected, "least_share")?;
    ensure!(share(in_hot, whole) >= least, "{hot}: {in_hot} of {whole}, less than {least}");
    if let Some(building) = expected["building"].as_str() {
        let count = profile.count(|stack| stack.contains(building));
        let most = number(expected, "most_share_building")?;
        ensure!(share(count, whole) <= most, "{building}: {count} of {whole}, more than {most}");
    }
    let mut on_lines = 0;
    for (text, least) in expected["lines"].as_object().context("lines")? {
        let numbers = line_numbers(&format!("julia/{program}"), text)?;
        let count = profile.count(|stack| {
            let leaf = stack.leaf().filter(|leaf| leaf.plain_name() == hot);
            leaf.and_then(|leaf| leaf.line).is_some_and(|line| numbers.contains(&line))
        });
        let least = least.as_f64().context("the least share of a line")?;
        ensure!(share(count, in_hot) >= least, "{text:?}: {count} of {in_hot}, less than {least}");
        on_lines += count;
    }
    let least = number(expected, "least_share_of_lines")?;
    ensure!(share(on_lines, in_hot) >= least, "hot lines: {on_lines} of {in_hot}, less than {least}");
    Ok(())
}

#[test]
fn lists_of_points() {
    every_interpreter(|interpreter| check(interpreter, "julia.py"));
}

#[test]
fn condition_in_four_statements() {
    every_interpreter(|interpreter| check(interpreter, "julia_split.py"));
}

#[test]
fn tests_swapped() {
    every_interpreter(|interpreter| check(interpreter, "julia_swapped.py"));
}

#[test]
fn points_on_the_fly() {
    every_interpreter(|interpreter| check(interpreter, "julia_fly.py"));
}
