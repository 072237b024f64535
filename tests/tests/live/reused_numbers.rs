//! A file descriptor that is open on something else each time it is waited for: each wait has the name of what it was for,
//! though that number is another file's long before anybody looks.

use std::fs;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    Collapsed, Fixture, Profiler, Scratch, Stack, can_load_programs, expectation, one_interpreter,
};
use serde_json::Value;

/// For so many milliseconds each wait lasts.
const WAIT: &str = "3";

/// How far the time of a function may be off that waits so often for so short: what it takes to begin and end a wait
/// is some ten microseconds.
const BOUND: f64 = 0.05;

/// It could go on, but others were on the CPUs, or had the GIL.
const DELAYS: [&str; 2] = ["<waiting: CPU>", "<waiting for the GIL>"];

fn leaf(stack: &Stack) -> &str {
    stack.leaf().map_or("", |leaf| &leaf.function)
}

/// What is shown of a program whose waits are summed below `least`, and its own account in seconds.
fn record(least: &str) -> Result<(Collapsed, Value)> {
    let mut fixture = Fixture::start(one_interpreter(), "reused_numbers/reused_numbers.py", &[])?;
    let scratch = Scratch::new()?;
    let file = scratch.file("out.txt");
    let words = format!("-t --mode off-cpu --min-wait {least} -f raw -o");
    let mut running = Profiler::new("record").words(&words).arg(&file).pid(&fixture).spawn()?;
    running.wait_until_sampling()?;
    fixture.ask(WAIT)?;
    running.signal(Signal::SIGINT)?;
    running.wait()?;
    Ok((Collapsed::parse(&fs::read_to_string(&file)?)?, fixture.finish()?["spent"].clone()))
}

/// The functions with their states, and for how long each of them waited.
fn truths(spent: &Value) -> Result<Vec<(String, String, f64)>> {
    let expected = expectation("reused_numbers")?;
    let states = expected["states"].as_object().context("no states")?;
    let truths = states.iter().map(|(function, state)| {
        let state = format!("<{}>", state.as_str().context("no state")?);
        Ok((function.clone(), state, spent[function].as_f64().with_context(|| function.clone())?))
    });
    truths.collect()
}

fn is_right(what: &str, named: f64, delayed: f64, truth: f64) -> Result<()> {
    ensure!(
        named > 0.0 && named <= truth * (1.0 + BOUND) && named + delayed >= truth * (1.0 - BOUND),
        "{what}: {named} s, {delayed} s delayed, by its own clock {truth} s"
    );
    Ok(())
}

fn each_wait_has_the_name_of_what_it_was_for() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    let (profile, spent) = record("0")?;
    let truths = truths(&spent)?;
    for (function, state, truth) in &truths {
        let within = |stack: &Stack| stack.contains("reads") && stack.contains(function);
        let seconds = |wanted: &dyn Fn(&str) -> bool| {
            profile.count(|stack| within(stack) && wanted(leaf(stack))) as f64 / 1e9
        };
        let wrong = seconds(&|leaf| {
            leaf == "<waiting>" || truths.iter().any(|(_, other, _)| other != state && leaf == other)
        });
        ensure!(wrong == 0.0, "{function}: {wrong} s of something else, of {truth} s: {profile:?}");
        is_right(function, seconds(&|leaf| leaf == state), seconds(&|leaf| DELAYS.contains(&leaf)), *truth)?;
    }
    Ok(())
}

fn short_waits_are_summed_by_what_they_were_for() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    let (profile, spent) = record("60")?;
    let main =
        |stack: &Stack| stack.thread.as_deref() == Some("MainThread") && stack.contains("<short waits>");
    let seconds = |wanted: &dyn Fn(&str) -> bool| {
        profile.count(|stack| main(stack) && wanted(leaf(stack))) as f64 / 1e9
    };
    let delayed = seconds(&|leaf| DELAYS.contains(&leaf));
    ensure!(seconds(&|leaf| leaf == "<waiting>") == 0.0, "not named: {profile:?}");
    // It waits for a file as well while nobody asks anything of it.
    for (function, state, truth) in truths(&spent)?.into_iter().filter(|(name, _, _)| name != "reads_pipe") {
        is_right(&function, seconds(&|leaf| leaf == state), delayed, truth)?;
    }
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(each_wait_has_the_name_of_what_it_was_for),
        test!(short_waits_are_summed_by_what_they_were_for),
    ]
}
