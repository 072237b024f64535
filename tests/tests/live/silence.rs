//! Memory that does not answer: the profiler ends in time with what it has, and other processes are sampled on.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Sampler, Test};
use profiler_tests::tree::{profile_of, record};
use profiler_tests::{Collapsed, Fixture, Profiler, Scratch, test};

const PROGRAM: &str = "silent_page/silent_page.py";

/// CPU time in which there are far more samples than are needed.
const ENOUGH_WORK: Duration = Duration::from_millis(200);

/// A profiler that hangs would hang for ever.
const NO_HANG: Duration = Duration::from_secs(60);

/// The loss of samples of a process that was dropped.
const REASON: &str = "memory did not answer";

fn recording_ends_with_what_it_has(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.txt");
    let mut fixture = Fixture::start(case.interpreter, PROGRAM, &["later"])?;
    let words = format!("-f raw -r 1000 {} -o", case.sampler_words());
    let mut running = Profiler::new("record").words(&words).arg(&file).pid(&fixture).spawn()?;
    running.wait_until_sampling()?;
    fixture.work_for(ENOUGH_WORK)?;
    ensure!(fixture.ask("fall silent")? == "silent");
    let began = Instant::now();
    // It ends by itself: nothing is left to be sampled.
    let run = running.wait()?;
    ensure!(run.code() == Some(0) && began.elapsed() < NO_HANG, "{run:?}");
    run.must_say(&["does not answer"])?;
    let profile = Collapsed::parse(&std::fs::read_to_string(&file)?)?;
    ensure!(profile.count(|stack| stack.contains("before_silence")) >= 50, "{}", run.stderr);
    ensure!(profile.count(|stack| stack.contains("after_silence")) == 0, "{}", run.stderr);
    // The program goes on.
    fixture.work_for(ENOUGH_WORK)
}

/// The page is one that was read a moment ago, so that the main thread itself waits for it.
fn recording_that_hangs_is_written_at_the_end(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.txt");
    let mut fixture = Fixture::start(case.interpreter, PROGRAM, &["frame"])?;
    // It compiles a large function first.
    fixture.work_for(5 * ENOUGH_WORK)?;
    let words = format!("-f raw -r 1000 {} -o", case.sampler_words());
    let mut running = Profiler::new("record").words(&words).arg(&file).pid(&fixture).spawn()?;
    running.wait_until_sampling()?;
    fixture.work_for(3 * ENOUGH_WORK)?;
    ensure!(fixture.ask("fall silent")? == "silent");
    running.signal(Signal::SIGINT)?;
    let began = Instant::now();
    let run = running.wait()?;
    ensure!(run.code() == Some(0) && began.elapsed() < NO_HANG, "{run:?}");
    let profile = Collapsed::parse(&std::fs::read_to_string(&file)?)?;
    ensure!(profile.count(|stack| stack.contains("below")) >= 50, "{}", run.stderr);
    ensure!(run.ledger()?.lost_for(REASON) > 0, "{}", run.stderr);
    fixture.work_for(ENOUGH_WORK)
}

fn tree_goes_on_without_the_silent_process(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let fixture = Fixture::start(case.interpreter, PROGRAM, &["child"])?;
    let mut running = record(&scratch, &case.sampler_words()).pid(&fixture).spawn()?;
    running.wait_until_sampling()?;
    // Longer than the silent one is waited for.
    fixture.work_for(5 * ENOUGH_WORK)?;
    running.signal(Signal::SIGINT)?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    let profile = profile_of(&scratch)?;
    let is_of_root = |function: &str| {
        profile.count(|stack| stack.processes.last() == Some(&fixture.pid()) && stack.contains(function))
    };
    ensure!(is_of_root("before_silence") >= 100, "{}", run.stderr);
    ensure!(run.ledger()?.lost_for(REASON) > 0, "{}", run.stderr);
    Ok(())
}

fn dump_says_that_memory_does_not_answer(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, PROGRAM, &["at-once"])?;
    let began = Instant::now();
    Profiler::new("dump").pid(&fixture).fail(&["did not answer"])?;
    ensure!(began.elapsed() < NO_HANG);
    fixture.work_for(ENOUGH_WORK)
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(recording_ends_with_what_it_has).on(On::Layouts).by(PAUSE_AND_BPF),
        test!(recording_that_hangs_is_written_at_the_end)
            .on(On::Minors(&[8]))
            .by(&[Sampler::Pause, Sampler::Peek]),
        test!(tree_goes_on_without_the_silent_process).by(PAUSE_AND_BPF),
        test!(dump_says_that_memory_does_not_answer).on(On::Layouts),
    ]
}
