//! A loop full of short system calls: the samplers find its thread at them no more often than it is there.

use anyhow::{Context, Result, ensure};
use profiler_tests::statistics::{bound_of_gaps, deviations};
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{Interpreter, TimedRecording, expectation, is_root, missing, one_interpreter};

/// Samples a second.
const RATE: f64 = 2000.0;

/// Fewer samples than this and the bound would forgive anything.
const LEAST_EFFECTIVE_SAMPLES: f64 = 300.0;

fn compare(interpreter: &Interpreter, sampler: &str) -> Result<()> {
    let options = format!("--sampler {sampler}");
    let program = "short_calls/short_calls.py";
    let recording = TimedRecording::of(interpreter, program, &["--seconds", "3"], RATE, &options)?;
    let cpu_of = |name: &str| recording.sampled(|sample| sample.has("mixed") && sample.ends_in(name));
    let (calls, spins) = (cpu_of("call"), cpu_of("spin"));
    let share = calls / (calls + spins);
    let (only_calls, only_spins) = (recording.spent("only_calls")?, recording.spent("only_spins")?);
    let truth = only_calls / (only_calls + only_spins);
    let number = recording.effective_number(calls + spins, LEAST_EFFECTIVE_SAMPLES)?;
    let expected = expectation("short_calls")?;
    let number_of = |name: &str| expected[name].as_f64().with_context(|| name.to_owned());
    let chance = bound_of_gaps(truth, number, deviations(number_of("confidence")?, 1));
    ensure!(
        (share - truth).abs() <= number_of("most_off")? + chance,
        "{sampler}: {share:.3} of the CPU time in calls, {truth:.3} by the program's clock, chance {chance:.3}"
    );
    Ok(())
}

fn calls_have_the_time_that_they_take() {
    if !is_root() {
        missing("the right to load a program into the kernel, for short calls");
        return;
    }
    for sampler in ["pause", "bpf"] {
        compare(one_interpreter(), sampler).unwrap();
    }
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(calls_have_the_time_that_they_take)]
}
