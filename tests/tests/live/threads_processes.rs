//! Threads share the GIL, processes do not, on every interpreter.

use std::time::Duration;

use anyhow::{Context, ensure};
use profiler_tests::statistics::{bound, deviations, effective_number};
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    Collapsed, Fixture, Profiler, Scratch, dumped_json, every_interpreter, every_interpreter_side_by_side,
    expectation, interpreters, uninterrupted,
};
use serde_json::Value;

const PROGRAM: &str = "threads_processes/threads_processes.py";

/// How certain it is that chance alone does not break the comparison, on all interpreters together.
const CONFIDENCE: f64 = 0.999_999;

fn each_thread_holds_the_gil_for_its_share_of_the_work() {
    every_interpreter(|interpreter| {
        let scratch = Scratch::new()?;
        let file = scratch.file("out.json");
        // Launched, so that what is recorded is what the program counts.
        let command = interpreter.fixture_words(PROGRAM, &["--threads", "4", "--seconds", "2"]);
        let record = Profiler::new("record").words("-f speedscope -r 500 -g -t -o").arg(&file);
        let run = record.command(&command).succeed()?;
        if interpreter.free_threaded {
            return Ok(());
        }
        let told: Value = serde_json::from_str(run.stdout.lines().last().context("no output")?)?;
        let batches: Vec<f64> =
            told["batches"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        ensure!(batches.len() == 4, "{told}");
        let named = expectation("threads_processes")?["threads_named"].clone();
        let named = named.as_str().context("threads_named")?;
        let turns = uninterrupted(&std::fs::read_to_string(&file)?)?;
        let turns: Vec<_> = turns.iter().filter(|(thread, _)| thread.contains(named)).collect();
        let all: Vec<f64> = turns.iter().map(|(_, weight)| *weight).collect();
        let (total, number) = (all.iter().sum::<f64>(), effective_number(&all));
        ensure!(number >= 30.0, "only {number:.0} effective turns with the GIL");
        let deviations = deviations(CONFIDENCE, batches.len() * interpreters().len());
        for (index, done) in batches.iter().enumerate() {
            let name = format!("{named}{index}");
            let of_it = turns.iter().filter(|(thread, _)| thread.contains(&name));
            let held = of_it.map(|(_, weight)| weight).sum::<f64>() / total;
            let worked = done / batches.iter().sum::<f64>();
            let bound = bound(worked, number, deviations);
            ensure!(
                (held - worked).abs() <= bound,
                "{name}: held the GIL {held:.3}, did {worked:.3} of the work, bound {bound:.3}, {number:.0} turns"
            );
        }
        Ok(())
    });
}

fn at_most_one_thread_holds_the_gil() {
    every_interpreter_side_by_side(|interpreter| {
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

/// CPU time in which there are three times as many samples as are asked for.
const RECORDED: Duration = Duration::from_millis(300);

fn each_process_runs_all_the_time() {
    every_interpreter_side_by_side(|interpreter| {
        let scratch = Scratch::new()?;
        let fixture = Fixture::start(interpreter, PROGRAM, &["--processes", "2"])?;
        let expected = expectation("threads_processes")?;
        for pid in fixture.children() {
            let file = scratch.file("out.txt");
            let run = Profiler::new("record").words(&format!("-f raw -r 500 --pid {pid} -o"));
            run.arg(&file).spawn()?.end_after_cpu_time(*pid, RECORDED)?;
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

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(each_thread_holds_the_gil_for_its_share_of_the_work),
        test!(at_most_one_thread_holds_the_gil),
        test!(each_process_runs_all_the_time),
    ]
}
