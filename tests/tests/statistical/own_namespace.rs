//! The in-kernel sampler in a PID namespace: the times of threads there add up. What is seen of them is for the live tests.

use anyhow::{Context, Result, ensure};
use profiler_tests::inside::{Inside, Twins, end_profiler, profile_of};
use profiler_tests::suite::{Case, On, Sampler, Test};
use profiler_tests::times::{is_wait, must_add_up, seconds};
use profiler_tests::{
    Interpreter, Scratch, Stack, one_interpreter, test, wait_until_others_are_still, wait_until_still, waits,
};

/// Nothing of the time of threads that wait is missing.
fn waits_must_add_up(
    start: impl Fn(Vec<std::ffi::OsString>) -> Result<Inside>,
    interpreter: &Interpreter,
) -> Result<()> {
    let target = start(interpreter.fixture_words("waiting/waiting.py", &[]))?;
    wait_until_still(target.outside)?;
    let scratch = Scratch::new()?;
    let run = target.record("-t --sampler bpf --mode wall -d 0.4", &scratch).succeed()?;
    let (profile, elapsed) = (profile_of(&scratch)?, run.sampled_for()?);
    must_add_up(&profile, elapsed, 5)?;
    waits::must_wait_all_the_time(&profile, elapsed)
}

fn waits_in_namespace_add_up(case: &Case) -> Result<()> {
    waits_must_add_up(Inside::start, case.interpreter)
}

fn waits_in_nested_namespace_add_up() -> Result<()> {
    waits_must_add_up(Inside::start_nested, one_interpreter())
}

/// Switches of a process with the same number would be taken for its own.
fn time_of_twins_is_not_mixed_up() -> Result<()> {
    for twins in [Twins::with_id_outside, Twins::with_id_within] {
        let twins = twins(one_interpreter())?;
        let scratch = Scratch::new()?;
        let run = twins.busy.record("-t --sampler bpf --mode wall -r 2000 -d 0.5", &scratch).succeed()?;
        let profile = profile_of(&scratch)?;
        twins.must_be_alone(&profile, &run)?;
        must_add_up(&profile, run.sampled_for()?, 1)?;
    }
    Ok(())
}

/// Threads that use less CPU time than passes between two ticks, one after the other, and end: what they did after their last
/// tick is known only as the kernel reports their end. They begin on a line of stdin, and the last line is what they used in
/// all. That is by a clock that stands still while a virtual machine's CPU is not run, as what is shown does not: so they are
/// many, for that to be a small part.
const SHORT_WORK: &str = "\
import os, sys, threading, time
COUNT = 200
turns, used = [threading.Semaphore(0) for _ in range(COUNT + 1)], []
def short_work(turn):
    turns[turn].acquire()
    began = time.thread_time()
    while time.thread_time() < began + 0.004: pass
    used.append(time.thread_time())
    turns[turn + 1].release()
threads = [threading.Thread(target=short_work, args=(turn,)) for turn in range(COUNT)]
for thread in threads: thread.start()
print('ready', os.getpid(), flush=True)
sys.stdin.readline()
turns[0].release()
for thread in threads: thread.join()
print(sum(used), flush=True)
sys.stdin.readline()
";

fn time_of_threads_that_end_is_kept() -> Result<()> {
    /// What they used before they were watched is not in what is shown.
    const BOUND: f64 = 0.1;
    let mut target = Inside::start(one_interpreter().inline_words(SHORT_WORK))?;
    wait_until_still(target.outside)?;
    let scratch = Scratch::new()?;
    let mut running = target.record("-t --sampler bpf --mode wall -r 100", &scratch).spawn()?;
    running.wait_until_sampling()?;
    let used: f64 = target.fixture.ask("go")?.parse().context("no time")?;
    wait_until_others_are_still(target.outside)?;
    let run = end_profiler(running)?;
    let is_its = |stack: &Stack| {
        stack.thread.as_deref().is_some_and(|name| !name.contains("MainThread")) && !is_wait(stack)
    };
    let shown = seconds(&profile_of(&scratch)?, is_its);
    ensure!((shown / used - 1.0).abs() <= BOUND, "{shown} s of {used} s: {:?}", run.ledger());
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    const BPF: &[Sampler] = &[Sampler::Bpf];
    vec![
        test!(waits_in_namespace_add_up).on(On::Layouts).by(BPF),
        test!(waits_in_nested_namespace_add_up).by(BPF),
        test!(time_of_twins_is_not_mixed_up).by(BPF),
        test!(time_of_threads_that_end_is_kept).by(BPF),
    ]
}
