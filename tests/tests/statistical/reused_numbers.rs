//! A file descriptor that is open on something else each time it is waited for: the times of its waits.

use anyhow::Result;
use profiler_tests::suite::{Sampler, Test};
use profiler_tests::{Stack, one_interpreter, test, waits};

/// How far the time of a function may be off that waits so often for so short: what it takes to begin and end a wait
/// is some ten microseconds.
const BOUND: f64 = 0.05;

fn waits_for_reused_number_have_their_time() -> Result<()> {
    let (profile, waits) = waits::reused_numbers(one_interpreter(), "0")?;
    for wait in waits {
        let within = |stack: &Stack| stack.contains("reads") && stack.contains(&wait.function);
        wait.must_have_time(&profile, within, BOUND)?;
    }
    Ok(())
}

fn short_waits_are_summed_by_file() -> Result<()> {
    let (profile, waits) = waits::reused_numbers(one_interpreter(), "60")?;
    let within =
        |stack: &Stack| stack.thread.as_deref() == Some("MainThread") && stack.contains("<short waits>");
    // It waits for a file as well while it is not asked for anything.
    for wait in waits.into_iter().filter(|wait| wait.function != "reads_pipe") {
        wait.must_have_time(&profile, within, BOUND)?;
    }
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    const BPF: &[Sampler] = &[Sampler::Bpf];
    vec![
        test!(waits_for_reused_number_have_their_time).by(BPF),
        test!(short_waits_are_summed_by_file).by(BPF),
    ]
}
