//! Threads share the GIL, processes do not, on every interpreter.

use anyhow::{Context, ensure};
use profiler_tests::{Collapsed, Fixture, Profiler, Scratch, dumped_json, every_interpreter, expectation};
use serde_json::Value;

const PROGRAM: &str = "threads_processes/threads_processes.py";

#[test]
fn each_thread_holds_the_gil_for_its_share_of_the_work() {
    every_interpreter(|interpreter| {
        let scratch = Scratch::new()?;
        let file = scratch.file("out.txt");
        let fixture = Fixture::start(interpreter, PROGRAM, &["--threads", "4"])?;
        Profiler::new("record").words("-f raw -r 500 -d 2 -g -t -o").arg(&file).pid(&fixture).succeed()?;
        let profile = Collapsed::parse(&std::fs::read_to_string(&file)?)?;
        let told = fixture.finish()?;
        if interpreter.free_threaded {
            return Ok(());
        }
        let batches: Vec<f64> =
            told["batches"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        ensure!(batches.len() == 4, "{told}");
        let expected = expectation("threads_processes")?;
        let bound = expected["threads_share_of_work_at_most_off"].as_f64().context("no bound")?;
        let total = profile.total();
        ensure!(total >= 200, "only {total} samples of whoever holds the GIL");
        for index in 0..4 {
            let name = format!("counter-{index}");
            let count = profile.count(|stack| stack.thread.as_deref() == Some(&name));
            let (held, worked) = (count as f64 / total as f64, batches[index] / batches.iter().sum::<f64>());
            ensure!(
                (held - worked).abs() <= bound,
                "{name}: held the GIL {held:.3}, did {worked:.3} of the work"
            );
        }
        Ok(())
    });
}

#[test]
fn at_most_one_thread_holds_the_gil() {
    every_interpreter(|interpreter| {
        let fixture = Fixture::start(interpreter, PROGRAM, &["--threads", "4"])?;
        let mut held = 0;
        for _ in 0..10 {
            let json = Profiler::new("dump").words("--json").pid(&fixture).succeed()?.stdout;
            let threads = dumped_json(&json)?;
            ensure!(threads.len() == 5, "{} threads", threads.len());
            let holders = threads.iter().filter(|thread| thread.owns_gil).count();
            ensure!(holders <= 1 || interpreter.free_threaded, "{holders} threads hold the GIL");
            held += holders;
        }
        ensure!(held > 0, "nobody ever held the GIL");
        Ok(())
    });
}

#[test]
fn each_process_runs_all_the_time() {
    every_interpreter(|interpreter| {
        let scratch = Scratch::new()?;
        let fixture = Fixture::start(interpreter, PROGRAM, &["--processes", "2"])?;
        let expected = expectation("threads_processes")?;
        for pid in fixture.children() {
            let file = scratch.file("out.txt");
            let run = Profiler::new("record").words(&format!("-f raw -r 500 -d 1 --pid {pid} -o"));
            run.arg(&file).succeed()?;
            let profile = Collapsed::parse(&std::fs::read_to_string(&file)?)?;
            ensure!(profile.total() >= 50, "only {} samples of a child", profile.total());
            for stack in &profile.stacks {
                let leaf = stack.leaf().context("an empty stack")?.plain_name();
                let known = expected["leaf_functions"].as_array().context("leaf_functions")?;
                ensure!(known.iter().any(|name| name == leaf), "a child in {leaf}");
            }
        }
        fixture.finish().map(drop)
    });
}
