//! Threads share the GIL, each for its share of the work.

use anyhow::{Context, Result, ensure};
use profiler_tests::statistics::{Parts, effective_number};
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Test};
use profiler_tests::{Profiler, Scratch, expectation, test, uninterrupted};
use serde_json::Value;

const PROGRAM: &str = "threads_processes/threads_processes.py";

fn each_thread_holds_the_gil_for_its_share_of_the_work(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.json");
    // Launched, so that what is recorded is what the program counts.
    let command = case.interpreter.fixture_words(PROGRAM, &["--threads", "4", "--seconds", "2"]);
    let words = format!("-f speedscope -r 500 -g -t {} -o", case.sampler_words());
    let run = Profiler::new("record").words(&words).arg(&file).command(&command).succeed()?;
    let account: Value = serde_json::from_str(run.stdout.lines().last().context("no output")?)?;
    let batches: Vec<f64> =
        account["batches"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
    ensure!(batches.len() == 4, "{account}");
    let named = expectation("threads_processes")?["threads_named"].clone();
    let named = named.as_str().context("threads_named")?;
    let turns = uninterrupted(&std::fs::read_to_string(&file)?)?;
    let turns: Vec<_> = turns.iter().filter(|(thread, _)| thread.contains(named)).collect();
    let all: Vec<f64> = turns.iter().map(|(_, weight)| *weight).collect();
    let number = effective_number(&all);
    ensure!(number >= 30.0, "only {number:.0} effective turns with the GIL");
    let mut parts = Parts::default();
    parts.add_number(number);
    for (index, done) in batches.iter().enumerate() {
        let name = format!("{named}{index}");
        let of_it = turns.iter().filter(|(thread, _)| thread.contains(&name));
        parts.add(&name, *done, of_it.map(|(_, weight)| weight).sum());
    }
    parts.judge(&format!("turns with the GIL on {case}"), None, 0.0)
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    let held = test!(each_thread_holds_the_gil_for_its_share_of_the_work);
    vec![held.on(On::Layouts).by(PAUSE_AND_BPF).needs_gil()]
}
