//! Targets that cannot be recorded, or no longer: a clear error that says what to try, exit status 1, and nothing left
//! behind. What is found without a live target is in the deterministic tests.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use profiler_tests::labyrinth::judge;
use profiler_tests::place::can_put_elsewhere;
use profiler_tests::suite::{Case, PAUSE_AND_BPF, Sampler, Test};
use profiler_tests::test;
use profiler_tests::{Collapsed, Fixture, Profiler, Run, Scratch, WORK, process_state};

const LABYRINTH: &str = "labyrinth/labyrinth.py";

/// No test waits longer for a process to reach a state.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

fn labyrinth(case: &Case) -> Result<Fixture> {
    Fixture::start(case.interpreter, LABYRINTH, &[])
}

fn options(record: Profiler, case: &Case, scratch: &Scratch) -> Profiler {
    record.words(&case.sampler_words()).words("-f raw -r 500 -o").arg(scratch.file("out.txt"))
}

fn record(case: &Case, scratch: &Scratch) -> Profiler {
    options(Profiler::new("record"), case, scratch)
}

fn profile_of(scratch: &Scratch) -> Result<Collapsed> {
    Collapsed::parse(&std::fs::read_to_string(scratch.file("out.txt")).context("no data was written")?)
}

fn must_have_written_nothing(scratch: &Scratch) -> Result<()> {
    ensure!(!scratch.file("out.txt").exists(), "an output file was left behind");
    Ok(())
}

fn process_of_another_user_is_refused(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    let hints = ["CAP_SYS_PTRACE", "sudo"];
    let scratch = Scratch::new()?;
    let fixture = labyrinth(case)?;
    let run = Profiler::as_nobody("dump", &scratch)?.pid(&fixture).fail(&hints)?;
    run.must_say(&["ptrace_scope", "cap-add", "sudo"])?;
    options(Profiler::as_nobody("record", &scratch)?, case, &scratch).pid(&fixture).fail(&hints)?;
    must_have_written_nothing(&scratch)
}

fn ordinary_user_records_a_launched_command(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let record = options(Profiler::as_nobody("record", &scratch)?, case, &scratch);
    // The system's interpreter: other users cannot reach those in somebody's home.
    record.command(&["/usr/bin/python3", "-c", WORK]).succeed()?;
    ensure!(profile_of(&scratch)?.count(|stack| stack.contains("work")) > 0, "no work seen");
    Ok(())
}

fn sleeping_process_without_python_is_an_error(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let cat = Fixture::spawn(&[OsString::from("cat")])?;
    Profiler::new("dump").pid(&cat).fail(&["python"])?;
    // It sleeps all the time, and the in-kernel sampler does not unwind native code.
    record(case, &scratch).words("-d 0.5").pid(&cat).fail(&["no samples", "native code"])?;

    must_have_written_nothing(&scratch)
}

fn short_command_without_python_is_an_error(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    // It may be met before it ends.
    record(case, &scratch).command(&["true"]).fail(&["python", "no samples", "native code"])?;

    must_have_written_nothing(&scratch)
}

fn killed_target_leaves_its_data(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let mut fixture = labyrinth(case)?;
    let mut running = record(case, &scratch).pid(&fixture).spawn()?;
    running.wait_until_sampling()?;
    fixture.kill()?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    ensure!(profile_of(&scratch)?.total() > 0, "no samples");
    Ok(())
}

/// Works until a line arrives, then becomes another program. `cat` answers the line that comes after, so its coming up is
/// announced, too.
const BECOMES_CAT: &str = "\
import os, select
def before():
    while not select.select([0], [], [], 0)[0]:
        for _ in range(1000): pass
print('ready', os.getpid(), flush=True)
before()
os.read(0, 100)
os.execvp('sh', ['sh', '-c', 'echo up; exec cat'])
";

fn target_that_becomes_another_program_ends_recording(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let mut fixture = Fixture::inline(case.interpreter, BECOMES_CAT)?;
    let mut running = record(case, &scratch).pid(&fixture).spawn()?;
    running.wait_until_sampling()?;
    ensure!(fixture.ask("go")? == "up");
    fixture.close_stdin();
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    ensure!(profile_of(&scratch)?.count(|stack| stack.contains("before")) > 0, "nothing seen");
    Ok(())
}

/// Such a target may be looked at or refused, but neither woken up nor waited for without end.
fn must_look_or_refuse(run: &Run, hints: &[&str]) -> Result<()> {
    match run.code() {
        Some(0) => Ok(()),
        Some(1) => run.must_say(hints),
        _ => anyhow::bail!("{run:?}"),
    }
}

fn send(fixture: &Fixture, signal: Signal) -> Result<()> {
    Ok(kill(Pid::from_raw(i32::try_from(fixture.pid())?), signal)?)
}

/// Stops a target and waits until it is.
fn stop(fixture: &Fixture) -> Result<()> {
    send(fixture, Signal::SIGSTOP)?;
    let limit = Instant::now() + LONGEST_WAIT;
    while process_state(fixture.pid())? != 'T' {
        ensure!(Instant::now() < limit, "the target is not stopped");
        std::thread::yield_now();
    }
    Ok(())
}

fn must_be_stopped(fixture: &Fixture) -> Result<()> {
    let state = process_state(fixture.pid())?;
    ensure!(state == 'T', "woken up: state {state}");
    Ok(())
}

fn stopped_target_stays_stopped(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let mut fixture = labyrinth(case)?;
    stop(&fixture)?;
    must_look_or_refuse(&Profiler::new("dump").pid(&fixture).run()?, &["stopped"])?;
    must_be_stopped(&fixture).context("dump")?;
    must_look_or_refuse(&record(case, &scratch).words("-d 0.3").pid(&fixture).run()?, &["stopped"])?;
    must_be_stopped(&fixture).context("record")?;
    send(&fixture, Signal::SIGCONT)?;
    fixture.progress().map(drop)
}

fn target_stopped_meanwhile_stays_stopped(case: &Case) -> Result<()> {
    /// For so long it is sampled while it is stopped.
    const STAY: Duration = Duration::from_millis(200);
    let scratch = Scratch::new()?;
    let mut fixture = labyrinth(case)?;
    let mut running = record(case, &scratch).pid(&fixture).spawn()?;
    running.wait_until_sampling()?;
    stop(&fixture)?;
    std::thread::sleep(STAY);
    must_be_stopped(&fixture).context("meanwhile")?;
    running.signal(Signal::SIGINT)?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    must_be_stopped(&fixture).context("in the end")?;
    send(&fixture, Signal::SIGCONT)?;
    fixture.progress()?;
    let profile = profile_of(&scratch)?;
    ensure!(profile.total() > 0, "no samples");
    for stack in &profile.stacks {
        judge(&stack.frames)?;
    }
    Ok(())
}

fn target_of_a_debugger_is_left_to_it(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let mut fixture = labyrinth(case)?;
    // This thread is the debugger; a seized process runs on.
    let pid = Pid::from_raw(i32::try_from(fixture.pid())?);
    ptrace::seize(pid, ptrace::Options::empty())?;
    must_look_or_refuse(&Profiler::new("dump").pid(&fixture).run()?, &["traced", "debugger"])?;
    let run = record(case, &scratch).words("-d 0.3").pid(&fixture).run()?;
    must_look_or_refuse(&run, &["traced", "debugger"])?;
    fixture.progress().map(drop)
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(process_of_another_user_is_refused).by(&[Sampler::Pause]),
        test!(ordinary_user_records_a_launched_command).by(&[Sampler::Pause]),
        test!(sleeping_process_without_python_is_an_error).by(PAUSE_AND_BPF),
        test!(short_command_without_python_is_an_error).by(PAUSE_AND_BPF),
        test!(killed_target_leaves_its_data).by(PAUSE_AND_BPF),
        test!(target_that_becomes_another_program_ends_recording).by(PAUSE_AND_BPF),
        test!(stopped_target_stays_stopped).by(PAUSE_AND_BPF),
        test!(target_stopped_meanwhile_stays_stopped).by(PAUSE_AND_BPF),
        test!(target_of_a_debugger_is_left_to_it).by(PAUSE_AND_BPF),
    ]
}
