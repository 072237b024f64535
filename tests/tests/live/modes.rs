//! `record --mode`: which time of a thread is shown, and what it waited for. For how long it did is for the statistical tests.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Sampler, Test};
use profiler_tests::times::{GIL, is_wait, leaf, seconds};
use profiler_tests::{
    Collapsed, Fixture, Interpreter, Profiler, Scratch, Stack, one_interpreter, test, waits,
};

fn each_wait_has_its_reason(case: &Case) -> Result<()> {
    let (profile, waits) = waits::timed_waits(case.interpreter, "states")?;
    for wait in waits {
        wait.must_have_reason(&profile, |stack| stack.contains("timed") && stack.contains(&wait.function))?;
    }
    Ok(())
}

/// What four threads that count look like, and for how long they were looked at, in seconds.
fn of_counters(interpreter: &Interpreter, words: &str) -> Result<(Collapsed, f64)> {
    let program = "threads_processes/threads_processes.py";
    let fixture = Fixture::start(interpreter, program, &["--threads", "4"])?;
    let scratch = Scratch::new()?;
    let file = scratch.file("out.txt");
    let record = Profiler::new("record").words("-t -r 1000 -f raw --min-wait 0").words(words);
    let running = record.arg("-o").arg(&file).pid(&fixture).spawn()?;
    let run = running.end_after_cpu_time(fixture.pid(), Duration::from_millis(100))?;
    fixture.finish()?;
    Ok((Collapsed::parse(&fs::read_to_string(&file)?)?, run.sampled_for()?))
}

/// The innermost frames, with what they weigh.
fn leaves(profile: &Collapsed) -> Vec<(&str, u64)> {
    profile.stacks.iter().map(|stack| (leaf(stack), stack.count)).collect()
}

fn counts(stack: &Stack) -> bool {
    stack.contains("count")
}

fn cpu_mode_shows_no_waits(case: &Case) -> Result<()> {
    let words = format!("--mode cpu {}", case.sampler_words());
    let (running, _) = of_counters(case.interpreter, &words)?;
    ensure!(running.count(counts) > 0 && running.count(is_wait) == 0, "{:?}", leaves(&running));
    Ok(())
}

fn off_cpu_mode_shows_waits_alone() -> Result<()> {
    let (away, elapsed) = of_counters(one_interpreter(), "--mode off-cpu --sampler bpf")?;
    ensure!(away.stacks.iter().filter(|stack| counts(stack)).all(is_wait), "{:?}", leaves(&away));
    let waited = seconds(&away, counts);
    ensure!(waited > 0.0 && waited <= elapsed * 4.0, "four threads waited {waited} s in {elapsed} s");
    Ok(())
}

fn wall_mode_shows_work_and_waits_for_gil(case: &Case) -> Result<()> {
    let (all, _) = of_counters(case.interpreter, "--mode wall --sampler bpf")?;
    ensure!(all.count(|stack| counts(stack) && leaf(stack) == GIL) > 0, "none waits: {:?}", leaves(&all));
    ensure!(all.count(|stack| counts(stack) && !is_wait(stack)) > 0, "none runs: {:?}", leaves(&all));
    Ok(())
}

fn gil_mode_shows_the_holder_alone(case: &Case) -> Result<()> {
    let (holders, _) = of_counters(case.interpreter, "--mode gil --sampler bpf")?;
    ensure!(holders.count(|stack| leaf(stack) == GIL) == 0, "{:?}", leaves(&holders));
    ensure!(holders.count(|stack| counts(stack) && !is_wait(stack)) > 0, "{:?}", leaves(&holders));
    Ok(())
}

fn options_that_contradict_the_mode_are_refused() -> Result<()> {
    Profiler::new("record").words("--mode wall --gil -- true").misuse()?;
    Profiler::new("record").words("--mode off-cpu --min-wait never -- true").misuse()?;
    Profiler::new("record").words("--mode off-cpu --sampler pause -- true").fail(&["--sampler bpf"])?;
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    const BPF: &[Sampler] = &[Sampler::Bpf];
    vec![
        test!(each_wait_has_its_reason).on(On::Every).by(BPF),
        test!(cpu_mode_shows_no_waits).by(PAUSE_AND_BPF),
        test!(off_cpu_mode_shows_waits_alone).by(BPF),
        test!(wall_mode_shows_work_and_waits_for_gil).on(On::Every).by(BPF).needs_gil(),
        test!(gil_mode_shows_the_holder_alone).on(On::Every).by(BPF).needs_gil(),
        test!(options_that_contradict_the_mode_are_refused),
    ]
}
