//! A file descriptor that is open on something else each time it is waited for: each wait has the name of what it was for,
//! though that number is another file's long before it is looked up.

use anyhow::{Result, ensure};
use profiler_tests::suite::{Sampler, Test};
use profiler_tests::times::leaf;
use profiler_tests::{one_interpreter, test, waits};

fn each_wait_has_the_name_of_its_file() -> Result<()> {
    let (profile, waits) = waits::reused_numbers(one_interpreter(), "0")?;
    for wait in waits {
        wait.must_have_reason(&profile, |stack| stack.contains("reads") && stack.contains(&wait.function))?;
    }
    Ok(())
}

fn short_waits_keep_the_names_of_their_files() -> Result<()> {
    let (profile, waits) = waits::reused_numbers(one_interpreter(), "60")?;
    let of_main = profile.stacks.iter().filter(|stack| stack.thread.as_deref() == Some("MainThread"));
    let short = || of_main.clone().filter(|stack| stack.contains("<short waits>"));
    ensure!(short().all(|stack| leaf(stack) != "<waiting>"), "not named: {profile:?}");
    for wait in waits {
        ensure!(short().any(|stack| leaf(stack) == wait.state), "no {}: {profile:?}", wait.state);
    }
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    const BPF: &[Sampler] = &[Sampler::Bpf];
    vec![
        test!(each_wait_has_the_name_of_its_file).by(BPF),
        test!(short_waits_keep_the_names_of_their_files).by(BPF),
    ]
}
