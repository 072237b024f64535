//! The Julia program and its variants: the hot function, the hot lines.

use anyhow::{Context, Result, ensure};
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Test};
use profiler_tests::{
    Frame, Profiler, Scratch, WeightedSample, expectation, line_numbers, read_speedscope, test,
};
use serde_json::Value;

fn number(expected: &Value, name: &str) -> Result<f64> {
    expected[name].as_f64().with_context(|| name.to_owned())
}

/// CPU time of the stacks that are meant: the number of samples counts the wait for a CPU as well.
fn cpu(samples: &[WeightedSample], is_meant: impl Fn(&[Frame]) -> bool) -> f64 {
    samples.iter().filter(|sample| is_meant(&sample.frames)).map(|sample| sample.weight).sum()
}

/// A recording with less CPU time than this at work says nothing of shares.
const LEAST_SECONDS: f64 = 0.2;

/// A grid that takes some hundred milliseconds: of fewer samples than it has the cheapest lines might have none.
const SIZE: &str = "340";

fn record(case: &Case, program: &str) -> Result<Vec<WeightedSample>> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.json");
    Profiler::new("record")
        .words(&format!("-f speedscope -r 1000 {} -o", case.sampler_words()))
        .arg(&file)
        .command(&case.interpreter.fixture_words(&format!("julia/{program}"), &["--size", SIZE]))
        .succeed()?;
    read_speedscope(&std::fs::read_to_string(&file)?)
}

fn check(case: &Case, program: &str) -> Result<()> {
    let expected = &expectation("julia")?["programs"][program];
    let samples = record(case, program)?;
    // The work only: not the start of the interpreter, which has functions called `main` too.
    let work = |frame: &Frame| {
        frame.plain_name() == "main" && frame.file.as_ref().is_some_and(|file| file.ends_with(program))
    };
    let whole = cpu(&samples, |frames| frames.iter().any(work));
    ensure!(whole >= LEAST_SECONDS, "only {whole} s at work");
    let hot = expected["hot_function"].as_str().context("hot_function")?;
    let in_hot = cpu(&samples, |frames| is_hot(frames, hot));
    let least = number(expected, "least_share")?;
    ensure!(in_hot / whole >= least, "{hot}: {in_hot} s of {whole}, less than {least}");
    if let Some(building) = expected["building"].as_str() {
        let there = cpu(&samples, |frames| frames.iter().any(|frame| frame.plain_name() == building));
        let most = number(expected, "most_share_building")?;
        ensure!(there / whole <= most, "{building}: {there} s of {whole}, more than {most}");
    }
    check_lines(&samples, expected, program, (hot, in_hot))
}

fn is_hot(frames: &[Frame], hot: &str) -> bool {
    frames.last().is_some_and(|leaf| leaf.plain_name() == hot)
}

/// The CPU time of the hot function is on its lines as expected.
fn check_lines(
    samples: &[WeightedSample],
    expected: &Value,
    program: &str,
    (hot, in_hot): (&str, f64),
) -> Result<()> {
    let mut on_lines = 0.0;
    for (text, least) in expected["lines"].as_object().context("lines")? {
        let numbers = line_numbers(&format!("julia/{program}"), text)?;
        let is_there = |frame: Option<&Frame>| {
            frame.and_then(|leaf| leaf.line).is_some_and(|line| numbers.contains(&line))
        };
        let there = cpu(samples, |frames| is_hot(frames, hot) && is_there(frames.last()));
        let least = least.as_f64().context("the least share of a line")?;
        ensure!(there / in_hot >= least, "{text:?}: {there} s of {in_hot}, less than {least}");
        on_lines += there;
    }
    let least = number(expected, "least_share_of_lines")?;
    ensure!(on_lines / in_hot >= least, "hot lines: {on_lines} s of {in_hot}, less than {least}");
    Ok(())
}

fn lists_of_points(case: &Case) -> Result<()> {
    check(case, "julia.py")
}

fn condition_in_four_statements(case: &Case) -> Result<()> {
    check(case, "julia_split.py")
}

fn cheap_test_before_the_dear_one(case: &Case) -> Result<()> {
    check(case, "julia_swapped.py")
}

fn points_on_the_fly(case: &Case) -> Result<()> {
    check(case, "julia_fly.py")
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(lists_of_points).on(On::Layouts).by(PAUSE_AND_BPF),
        test!(condition_in_four_statements).on(On::Layouts).by(PAUSE_AND_BPF),
        test!(cheap_test_before_the_dear_one).on(On::Layouts).by(PAUSE_AND_BPF),
        test!(points_on_the_fly).on(On::Layouts).by(PAUSE_AND_BPF),
    ]
}
