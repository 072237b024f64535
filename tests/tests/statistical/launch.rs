//! How much a recording counts of time in which it could not look: before the Python of its command was seen, and while
//! the profiler itself was suspended.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use profiler_tests::statistics::{least_instants, most_instants};
use profiler_tests::suite::{Case, PAUSE_AND_BPF, Sampler, Test};
use profiler_tests::test;
use profiler_tests::{Fixture, Ledger, Profiler, Scratch, Terminal, count_before, profiler_path};

/// No test waits longer for a file.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// For how long the profiler does not look while Python works.
const UNSEEN: f64 = 0.5;

/// Works until its second file is there, and then prints for how long. Its first file appears after [`UNSEEN`] seconds.
const TIMED_WORK: &str = "\
import os, sys, time
begun = time.monotonic()
worked = False
while not os.path.exists(sys.argv[2]):
    for _ in range(1000): pass
    if not worked and time.monotonic() - begun > 0.5:
        worked = True
        open(sys.argv[1], 'w').close()
print(time.monotonic() - begun)
";

fn wait_for_file(path: &Path) -> Result<()> {
    let limit = Instant::now() + LONGEST_WAIT;
    while !path.exists() {
        ensure!(Instant::now() < limit, "no file {}", path.display());
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A shell that makes its file `waits`, waits for the file `go`, and becomes a Python with [`TIMED_WORK`].
fn late_worker(case: &Case, scratch: &Scratch) -> Vec<OsString> {
    let wait = ": > \"$0\"; until [ -e \"$1\" ]; do sleep 0.01; done; shift; exec \"$@\"";
    let mut words: Vec<OsString> = ["sh", "-c", wait].map(OsString::from).to_vec();
    words.extend([scratch.file("waits").into(), scratch.file("go").into()]);
    words.extend(case.interpreter.inline_words(TIMED_WORK));
    words.extend([scratch.file("worked").into(), scratch.file("end").into()]);
    words
}

/// What a command did before it was looked at belongs to the recording, as late samples.
fn unseen_start_of_command_is_counted(case: &Case) -> Result<()> {
    const RATE: u32 = 500;
    let scratch = Scratch::new()?;
    let record = Profiler::new("record").words(&format!("-f raw -r {RATE}")).words(&case.sampler_words());
    let record = record.arg("-o").arg(scratch.file("out.txt")).command(&late_worker(case, &scratch));
    let mut running = record.spawn()?;
    wait_for_file(&scratch.file("waits"))?;
    running.signal(Signal::SIGSTOP)?;
    std::fs::write(scratch.file("go"), "")?;
    wait_for_file(&scratch.file("worked"))?;
    running.signal(Signal::SIGCONT)?;
    running.wait_until_sampling()?;
    std::fs::write(scratch.file("end"), "")?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    let (ledger, worked) = (run.ledger()?, run.stdout.trim().parse::<f64>()?);
    let with_python = ledger.duration - ledger.before_python;
    ensure!(with_python >= worked, "{worked} s of {with_python} s\n{}", run.stderr);
    let late = ledger.lost_for("sampler late");
    let least = |seconds: f64| least_instants(RATE, Duration::from_secs_f64(seconds));
    ensure!(late >= least(UNSEEN), "only {late} late in {UNSEEN} s\n{}", run.stderr);
    let attempts = ledger.attempts;
    ensure!(attempts >= least(worked), "{attempts} in {worked} s\n{}", run.stderr);
    let mean = f64::from(RATE) * with_python;
    let most = (mean + 5.0 * mean.sqrt()) as u64;
    ensure!(attempts <= most, "{attempts} in {with_python} s\n{}", run.stderr);
    Ok(())
}

fn suspended_time_is_no_loss(case: &Case) -> Result<()> {
    const RATE: u32 = 1000;
    const SUSPENDED: Duration = Duration::from_secs(2);
    let scratch = Scratch::new()?;
    let fixture = Fixture::start(case.interpreter, "labyrinth/labyrinth.py", &[])?;
    let mut terminal = Terminal::shell()?;
    let ledger = scratch.file("ledger.json");
    let words = format!(
        "{} record {} -f raw -r {RATE} --ledger-json {} -o {} --pid {}\r",
        profiler_path().display(),
        case.sampler_words(),
        ledger.display(),
        scratch.file("out.txt").display(),
        fixture.pid()
    );
    terminal.press(&words)?;
    let has_samples = |screen: &str| count_before(screen, " samples, ").is_some_and(|number| number > 0);
    let screen = terminal.wait_for("samples", has_samples)?;
    let (since, lost) = (Instant::now(), count_before(&screen, " lost").context("no losses")?);
    terminal.press_for("\x1a", "Stopped")?;
    terminal.press(&format!("clear; sleep {}; fg\r", SUSPENDED.as_secs()))?;
    let is_back = |screen: &str| screen.contains(" samples, ") && !screen.contains("Stopped");
    terminal.wait_for("the progress line", is_back)?;
    terminal.press_for("\x03", " MB; ")?;
    let awake = since.elapsed().saturating_sub(SUSPENDED);
    terminal.press("exit\r")?;
    terminal.wait()?;
    let ledger = Ledger::read(&serde_json::from_slice(&std::fs::read(ledger)?)?)?;
    let (late, most) = (ledger.lost_for("sampler late"), lost + most_instants(RATE, awake));
    ensure!(late <= most, "{late} late of at most {most}: {ledger:?}");
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(unseen_start_of_command_is_counted).by(&[Sampler::Pause]),
        test!(suspended_time_is_no_loss).by(PAUSE_AND_BPF),
    ]
}
