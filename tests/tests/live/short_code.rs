//! Code that is thrown away keeps its own name and file, though the next one takes its place in memory: on every
//! interpreter.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Test};
use profiler_tests::{Collapsed, Frame, Profiler, Scratch, Stack, expectation, test};

/// Short-lived functions on a stack, with the frames that called them.
fn short_lived(stack: &Stack) -> impl Iterator<Item = (&Frame, &Frame, &'static str)> {
    stack.frames.windows(2).filter_map(|pair| {
        let kind =
            ["even", "odd"].into_iter().find(|kind| pair[1].function.starts_with(&format!("{kind}_")))?;
        Some((&pair[0], &pair[1], kind))
    })
}

/// Every short-lived function was called by its caller and has its own file; returns how many samples show one.
fn check(stack: &Stack, lines: u64) -> Result<u64> {
    let mut met = 0;
    for (caller, callee, kind) in short_lived(stack) {
        let number: u32 = callee.function[kind.len() + 1..].parse()?;
        let file = callee.file.as_deref().context("a function without a file")?;
        let line = callee.line.context("a function without a line")?;
        let is_right = caller.function == format!("call_{kind}")
            && file == format!("{}.py", callee.function)
            && number.is_multiple_of(2) == (kind == "even")
            && (1..=lines).contains(&line.into());
        ensure!(is_right, "{caller:?} never called {callee:?}");
        met += stack.count;
    }
    Ok(met)
}

fn thrown_away_code_keeps_its_name(case: &Case) -> Result<()> {
    let expected = expectation("short_code")?;
    let number = |name: &str| expected[name].as_f64().with_context(|| name.to_owned());
    let scratch = Scratch::new()?;
    let file = scratch.file("out.txt");
    let run = Profiler::new("record")
        .words(&format!("-f raw -r 1000 {} -o", case.sampler_words()))
        .arg(&file)
        .command(&case.interpreter.fixture_words("short_code/short_code.py", &["--seconds", "0.5"]))
        .succeed()?;
    let profile = Collapsed::parse(&std::fs::read_to_string(&file)?)?;
    let lines = number("lines")? as u64;
    let met: u64 = profile.stacks.iter().map(|stack| check(stack, lines)).sum::<Result<u64>>()?;
    ensure!(met as f64 >= number("least_samples")?, "only {met} samples of it: {}", run.stderr);
    // All ten run for the same time. A profiler that keeps the name that an address had first shows two or three.
    let names: HashSet<_> =
        profile.stacks.iter().flat_map(short_lived).map(|(_, callee, _)| &callee.function).collect();
    ensure!(names.len() as f64 >= number("least_names")?, "only {names:?}: {}", run.stderr);
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(thrown_away_code_keeps_its_name).on(On::Every).by(PAUSE_AND_BPF)]
}
