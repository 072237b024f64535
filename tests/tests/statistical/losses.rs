//! What is lost in programs that make it hard, where each has a CPU of its own.

use anyhow::{Context, Result, ensure};
use profiler_tests::statistics::state;
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Test};
use profiler_tests::{Profiler, expectation, test};

/// Why samples are lost whose code object was gone when it was read.
const CHANGED: &str = "code object changed";

fn code_that_is_thrown_away_loses_few_samples(case: &Case) -> Result<()> {
    let expected = expectation("short_code")?;
    let most_lost = expected["most_lost"].as_f64().context("most_lost")?;
    let run = Profiler::new("record")
        .words(&format!("-f raw -r 1000 {} -o -", case.sampler_words()))
        .command(&case.interpreter.fixture_words("short_code/short_code.py", &["--seconds", "2"]))
        .succeed()?;
    let ledger = run.ledger()?;
    let most = most_lost * ledger.attempts as f64;
    // Each is lost or not by chance; of as many as may be lost, the deviation is the root.
    let finds = format!("{:.1} % of the samples", 100.0 * most_lost * (1.0 + 7.7 / most.sqrt()));
    let deviations = state(&format!("losses in code that is thrown away on {case}"), 1, &finds);
    let changed = ledger.lost_for(CHANGED) as f64;
    ensure!(changed <= most + deviations * most.sqrt(), "{changed} lost: {ledger:?}");
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(code_that_is_thrown_away_loses_few_samples).on(On::One).by(PAUSE_AND_BPF)]
}
