//! A loop full of short system calls: the samplers find its thread at them no more often than it is there.

use anyhow::{Context, Result, ensure};
use profiler_tests::statistics::{bound_of_gaps, deviations, effective_number_of_gaps};
use profiler_tests::{
    Interpreter, Profiler, Scratch, WeightedSample, expectation, is_root, missing, one_interpreter,
    read_speedscope, samples_per_second,
};
use serde_json::Value;

/// Samples a second.
const RATE: f64 = 2000.0;

/// Fewer samples than this and the bound would forgive anything.
const LEAST_EFFECTIVE_SAMPLES: f64 = 300.0;

fn compare(interpreter: &Interpreter, sampler: &str) -> Result<()> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.json");
    let run = Profiler::new("record")
        .words(&format!("--sampler {sampler} -f speedscope -r {RATE} -o"))
        .arg(&file)
        .command(&interpreter.fixture_words("short_calls/short_calls.py", &["--seconds", "3"]))
        .succeed()?;
    let account: Value = serde_json::from_str(run.stdout.lines().last().context("no output")?)?;
    let spent = |name: &str| account["spent"][name].as_f64().with_context(|| name.to_owned());
    let text = std::fs::read_to_string(&file)?;
    let samples = read_speedscope(&text)?;
    let in_mixed = |sample: &&WeightedSample| sample.frames.iter().any(|frame| frame.plain_name() == "mixed");
    let cpu_of = |name: &str| -> f64 {
        let is_leaf = |s: &&WeightedSample| s.frames.last().is_some_and(|frame| frame.plain_name() == name);
        samples.iter().filter(in_mixed).filter(is_leaf).map(|s| s.weight).sum()
    };
    let (calls, spins) = (cpu_of("call"), cpu_of("spin"));
    let share = calls / (calls + spins);
    let truth = spent("only_calls")? / (spent("only_calls")? + spent("only_spins")?);
    let number = effective_number_of_gaps(calls + spins, samples_per_second(&text, RATE)?);
    ensure!(number >= LEAST_EFFECTIVE_SAMPLES, "only {number} effective samples");
    let expected = expectation("short_calls")?;
    let number_of = |name: &str| expected[name].as_f64().with_context(|| name.to_owned());
    let chance = bound_of_gaps(truth, number, deviations(number_of("confidence")?, 1));
    ensure!(
        (share - truth).abs() <= number_of("most_off")? + chance,
        "{sampler}: {share:.3} of the CPU time in calls, {truth:.3} by the program's clock, chance {chance:.3}"
    );
    Ok(())
}

#[test]
fn calls_have_the_time_that_they_take() {
    if !is_root() {
        missing("the right to load a program into the kernel, for short calls");
        return;
    }
    for sampler in ["pause", "bpf"] {
        compare(one_interpreter(), sampler).unwrap();
    }
}
