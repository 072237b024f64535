//! Naps and work that are shorter than the time between two samples have the wall time that they took.

use anyhow::{Context, Result, ensure};
use profiler_tests::statistics::state;
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Test};
use profiler_tests::{TimedRecording, expectation, test};

const PROGRAM: &str = "naps/naps.py";

/// Samples per second.
const RATE: f64 = 1000.0;

fn short_naps_have_their_wall_time(case: &Case) -> Result<()> {
    let options = format!("{} --idle", case.sampler_words());
    let arguments = ["--seconds", "2.5", "--nap", "0.002", "--work", "0.002"];
    let recording = TimedRecording::of(case.interpreter, PROGRAM, &arguments, RATE, &options)?;
    let expected = expectation("naps")?;
    let names: Vec<String> = serde_json::from_value(expected["wall"].clone())?;
    let lost_at_most = expected["lost_at_most"].as_f64().context("lost_at_most")?;
    for name in &names {
        let counted = recording.counted("wall", name)?;
        let sampled = recording.sampled(|sample| sample.has(name));
        // A sum of gaps at random instants: exponential, or shorter.
        let deviation = (2.0 * counted / RATE).sqrt();
        let finds = format!("{:.0} % of the time", 100.0 * (7.7 * deviation / counted + lost_at_most));
        let about = format!("wall time of {name} on {case}");
        let chance = state(&about, 1, &finds) * deviation;
        ensure!(
            (sampled - counted).abs() <= chance + lost_at_most * counted,
            "{about}: {sampled:.3} s were sampled, {counted:.3} s are true; chance explains {chance:.3} s"
        );
    }
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(short_naps_have_their_wall_time).on(On::One).by(PAUSE_AND_BPF)]
}
