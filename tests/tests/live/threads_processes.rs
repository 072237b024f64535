//! Threads share the GIL, processes do not.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Test};
use profiler_tests::{Collapsed, Fixture, Profiler, Scratch, dumped_json, expectation, test};

const PROGRAM: &str = "threads_processes/threads_processes.py";

/// CPU time in which there are three times as many samples as are asked for.
const RECORDED: Duration = Duration::from_millis(150);

fn at_most_one_thread_holds_the_gil(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, PROGRAM, &["--threads", "4"])?;
    let mut held = 0;
    for _ in 0..10 {
        let json = Profiler::new("dump").words("--json").pid(&fixture).succeed()?.stdout;
        let threads = dumped_json(&json)?;
        ensure!(threads.len() == 5, "{} threads", threads.len());
        let holders = threads.iter().filter(|thread| thread.owns_gil).count();
        ensure!(holders <= 1 || case.interpreter.free_threaded, "{holders} threads hold the GIL");
        held += holders;
    }
    ensure!(held > 0, "no thread ever held the GIL");
    Ok(())
}

fn forked_processes_are_seen_at_work(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let fixture = Fixture::start(case.interpreter, PROGRAM, &["--processes", "2"])?;
    let expected = expectation("threads_processes")?;
    let known = expected["leaf_functions"].as_array().context("leaf_functions")?;
    for pid in fixture.children() {
        let file = scratch.file("out.txt");
        let words = format!("-f raw -r 1000 {} --pid {pid} -o", case.sampler_words());
        let run = Profiler::new("record").words(&words).arg(&file);
        run.spawn()?.end_after_cpu_time(*pid, RECORDED)?;
        let profile = Collapsed::parse(&std::fs::read_to_string(&file)?)?;
        ensure!(profile.total() >= 50, "only {} samples of a child", profile.total());
        for stack in &profile.stacks {
            let leaf = stack.leaf().context("an empty stack")?.plain_name();
            ensure!(known.iter().any(|name| name == leaf), "a child in {leaf}");
        }
    }
    fixture.finish().map(drop)
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(at_most_one_thread_holds_the_gil).on(On::Every),
        test!(forked_processes_are_seen_at_work).on(On::Layouts).by(PAUSE_AND_BPF),
    ]
}
