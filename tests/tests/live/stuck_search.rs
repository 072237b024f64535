//! The search that never ends: both `dump` and a short `record` show where it is stuck.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Test};
use profiler_tests::{
    Collapsed, Fixture, Frame, Profiler, Scratch, dumped_json, dumped_text, expectation, line_numbers, test,
};
use serde_json::Value;

const PROGRAM: &str = "stuck_search/stuck_search.py";

/// It finds its way into the search in some microseconds.
const UNTIL_STUCK: Duration = Duration::from_millis(20);

/// CPU time in which there are three times as many samples as are asked for.
const RECORDED: Duration = Duration::from_millis(150);

fn start(case: &Case) -> Result<Fixture> {
    let fixture = Fixture::start(case.interpreter, PROGRAM, &[])?;
    fixture.work_for(UNTIL_STUCK)?;
    Ok(fixture)
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The stack must be that of the search, and its leaf on one of the lines of the loop.
fn must_be_stuck(frames: &[Frame]) -> Result<()> {
    let expected = expectation("stuck_search")?;
    let names: Vec<&str> = frames.iter().map(Frame::plain_name).collect();
    ensure!(names == texts(&expected["stack"]), "stack {names:?}");
    let line = frames.last().and_then(|leaf| leaf.line).context("a leaf without line")?;
    let mut lines = Vec::new();
    for text in texts(&expected["leaf_lines"]) {
        lines.extend(line_numbers(PROGRAM, &text)?);
    }
    ensure!(lines.contains(&line), "line {line}, not one of {lines:?}");
    Ok(())
}

fn dump_shows_the_loop(case: &Case) -> Result<()> {
    let fixture = start(case)?;
    let text = Profiler::new("dump").pid(&fixture).succeed()?.stdout;
    let threads = dumped_text(&text, fixture.pid())?;
    ensure!(threads.len() == 1 && threads[0].active, "{threads:?}");
    must_be_stuck(&threads[0].root_first())?;
    let json = Profiler::new("dump").words("--json").pid(&fixture).succeed()?.stdout;
    let threads = dumped_json(&json)?;
    ensure!(threads.len() == 1 && threads[0].active && threads[0].owns_gil, "{threads:?}");
    must_be_stuck(&threads[0].root_first())
}

fn record_shows_nothing_but_the_loop(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.txt");
    let fixture = start(case)?;
    let words = format!("-f raw -r 1000 {} -o", case.sampler_words());
    let record = Profiler::new("record").words(&words).arg(&file).pid(&fixture).spawn()?;
    record.end_after_cpu_time(fixture.pid(), RECORDED)?;
    let profile = Collapsed::parse(&std::fs::read_to_string(&file)?)?;
    ensure!(profile.total() >= 50, "only {} samples", profile.total());
    profile.stacks.iter().try_for_each(|stack| must_be_stuck(&stack.frames))
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(dump_shows_the_loop).on(On::Layouts),
        test!(record_shows_nothing_but_the_loop).on(On::Layouts).by(PAUSE_AND_BPF),
    ]
}
