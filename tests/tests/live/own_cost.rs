//! What the profiler uses itself: no more CPU time than it may, whatever the target is like, and what it leaves out for that
//! is counted.

use std::time::Duration;

use anyhow::{Result, ensure};
use profiler_tests::hostile::{ManyThreads, must_be_free};
use profiler_tests::suite::{Case, On, Sampler, Test};
use profiler_tests::{Profiler, test};

/// The reason of samples that are left out.
const LIMIT: &str = "profiler at its CPU limit (--max-cpu)";

/// More threads than can be watched, so that some have to be asked about.
const THREADS: u64 = 2000;

/// CPU time of the target in a recording, most of which comes after the first looks at all threads.
const WORK: Duration = Duration::from_secs(1);

fn sleeping_threads_cost_a_part_of_a_core(case: &Case) -> Result<()> {
    let Some(target) = ManyThreads::start(case.interpreter, THREADS)? else { return Ok(()) };
    for options in ["", "-i"] {
        let words = format!("-f raw -r 200 -o - {options} {}", case.sampler_words());
        let record = Profiler::with_usual_limit("record").words(&words).pid(target.fixture());
        let run = record.spawn()?.end_after_cpu_time(target.fixture().pid(), WORK)?;
        let ledger = run.ledger()?;
        ensure!(ledger.shown > 0, "{}", run.stderr);
        // To ask about each of them at each instant takes all of a core.
        ensure!(ledger.own_cpu < 0.35 * ledger.duration, "{words}: {}", run.stderr);
    }
    must_be_free(target.fixture().pid())
}

fn lowered_rate_is_counted_and_samples_stand_for_more_time(case: &Case) -> Result<()> {
    let Some(target) = ManyThreads::start(case.interpreter, 100)? else { return Ok(()) };
    let words = format!("-f speedscope -r 10000 --max-cpu 1 -o - {}", case.sampler_words());
    let record = Profiler::with_usual_limit("record").words(&words).pid(target.fixture());
    let run = record.spawn()?.end_after_cpu_time(target.fixture().pid(), WORK)?;
    let ledger = run.ledger()?;
    ensure!(ledger.lost_for(LIMIT) > 1_000, "{}", run.stderr);
    ensure!(ledger.own_cpu < 0.3 * ledger.duration, "{}", run.stderr);
    let file: serde_json::Value = serde_json::from_str(&run.stdout)?;
    let profiles = file["profiles"].as_array().into_iter().flatten();
    let weights = profiles.filter_map(|profile| profile["weights"].as_array()).flatten();
    let seconds: f64 = weights.filter_map(serde_json::Value::as_f64).sum();
    ensure!(seconds > 0.8 * ledger.target_cpu, "{seconds} s of {}", run.stderr);
    must_be_free(target.fixture().pid())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(sleeping_threads_cost_a_part_of_a_core).on(On::One).by(&[Sampler::Pause, Sampler::Bpf]),
        test!(lowered_rate_is_counted_and_samples_stand_for_more_time).on(On::One).by(&[Sampler::Pause]),
    ]
}
