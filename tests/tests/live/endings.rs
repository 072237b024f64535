//! How a recording ends: at its time, at the first Ctrl-C and at a second one; and what it says if it has seen nothing.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Sampler, Test};
use profiler_tests::{
    Collapsed, Fixture, Profiler, Running, Scratch, process_state, read_speedscope, test, wait_until_still,
};

const LABYRINTH: &str = "labyrinth/labyrinth.py";

/// No test waits longer for a process to do what it was asked for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Between two looks at a process.
const NAP: Duration = Duration::from_millis(1);

fn record(case: &Case, fixture: &Fixture, words: &str, output: &Path) -> Profiler {
    Profiler::new("record").words(&case.sampler_words()).words(words).arg("-o").arg(output).pid(fixture)
}

/// What may be read after the end, and its priority, are judged by unit tests: this is what they promise together.
fn highest_rate_ends_in_time(case: &Case) -> Result<()> {
    const DURATION: f64 = 0.5;
    const LATEST: f64 = DURATION + 0.5;
    let fixture = Fixture::start(case.interpreter, LABYRINTH, &[])?;
    let scratch = Scratch::new()?;
    let words = format!("-r 100000 -d {DURATION} -f raw");
    let run = record(case, &fixture, &words, &scratch.file("out.txt")).succeed()?;
    let ledger = run.ledger()?;
    ensure!((DURATION..=LATEST).contains(&ledger.duration), "{} s: {}", ledger.duration, run.stderr);
    ensure!(ledger.shown > 0, "{}", run.stderr);
    fixture.finish().map(drop)
}

/// Calls and returns all the time, on a CPU that the profiler does not use, so that a stack can hardly be proved.
const RESTLESS: &str = "\
import time
def leaf(n): return n
def call(n): return leaf(n) + leaf(n + 1)
def nap(): time.sleep(0.0002)
print('ready', flush=True)
while True:
    for n in range(2000): call(n)
    nap()
";

/// The words that keep a command on one CPU.
fn on_cpu(cpu: u32) -> Vec<OsString> {
    ["taskset", "-c"].map(OsString::from).into_iter().chain([cpu.to_string().into()]).collect()
}

fn time_of_lost_samples_is_in_ledger_alone(case: &Case) -> Result<()> {
    const NEAR: f64 = 0.1;
    let words: Vec<OsString> = on_cpu(0).into_iter().chain(case.interpreter.inline_words(RESTLESS)).collect();
    let fixture = Fixture::start_words(&words)?;
    let scratch = Scratch::new()?;
    let file = scratch.file("out.json");
    let record = Profiler::within(&on_cpu(1), "record").words(&case.sampler_words());
    let record = record.words("-r 1000 -f speedscope -o").arg(&file).pid(&fixture);
    let run = record.spawn()?.end_after_cpu_time(fixture.pid(), Duration::from_millis(500))?;
    let ledger = run.ledger()?;
    let samples = read_speedscope(&std::fs::read_to_string(&file)?)?;
    let shown: f64 = samples.iter().map(|sample| sample.weight).sum();
    let moved = ledger.lost_for("thread ran while it was read") as f64;
    let share_lost = moved / (moved + ledger.shown as f64);
    ensure!(moved > 0.0, "all could be proved: {ledger:?}");
    ensure!(ledger.lost_cpu > ledger.target_cpu * share_lost / 2.0, "{share_lost} lost: {ledger:?}");
    let accounted = shown + ledger.lost_cpu;
    ensure!((accounted / ledger.target_cpu - 1.0).abs() < NEAR, "{shown} s shown: {ledger:?}");
    Ok(())
}

/// A named pipe.
fn pipe(scratch: &Scratch) -> Result<PathBuf> {
    let path = scratch.file("pipe");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU)?;
    Ok(path)
}

/// Waits for a line that says so.
fn wait_for_line(running: &Running, text: &str) -> Result<()> {
    wait_for(text, || Ok(running.stderr_so_far().contains(text)))
}

fn wait_for(what: &str, is_there: impl Fn() -> Result<bool>) -> Result<()> {
    let limit = Instant::now() + LONGEST_WAIT;
    while !is_there()? {
        ensure!(Instant::now() < limit, "no {what}");
        std::thread::sleep(NAP);
    }
    Ok(())
}

fn pipe_is_written_when_it_has_a_reader(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, LABYRINTH, &[])?;
    let scratch = Scratch::new()?;
    let path = pipe(&scratch)?;
    let running = record(case, &fixture, "-d 0.3 -r 500 -f raw", &path).spawn()?;
    wait_for_line(&running, "Waiting for a reader")?;
    let mut text = String::new();
    File::open(&path)?.read_to_string(&mut text)?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    ensure!(Collapsed::parse(&text)?.total() > 0, "no samples: {}", run.stderr);
    Ok(())
}

fn interrupt_ends_the_wait_for_a_reader(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, LABYRINTH, &[])?;
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let scratch = Scratch::new()?;
        let running = record(case, &fixture, "", &pipe(&scratch)?).spawn()?;
        wait_for_line(&running, "Waiting for a reader")?;
        running.signal(signal)?;
        let run = running.wait()?;
        ensure!(run.code() == Some(1), "{signal}: {run:?}");
        run.must_say(&["interrupted"])?;
    }
    Ok(())
}

/// Whether a signal was sent to a process and not delivered yet.
fn is_pending(pid: u32, signal: Signal) -> Result<bool> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).context("no signals")?;
    Ok(u64::from_str_radix(line.trim(), 16)? & (1 << (signal as u32 - 1)) != 0)
}

/// A wrapper that passes on Ctrl-C sends what the terminal has sent already.
fn interrupt_sent_twice_at_once_keeps_data(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, LABYRINTH, &[])?;
    let scratch = Scratch::new()?;
    let file = scratch.file("out.txt");
    let mut running = record(case, &fixture, "-r 500 -f raw", &file).spawn()?;
    running.wait_until_sampling()?;
    let pid = running.pid();
    running.signal(Signal::SIGINT)?;
    wait_for("delivery", || Ok(!is_pending(pid, Signal::SIGINT)?))?;
    running.signal(Signal::SIGINT)?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    ensure!(Collapsed::parse(&std::fs::read_to_string(&file)?)?.total() > 0, "no samples");
    Ok(())
}

/// Opens a pipe for reading, fills it, and returns it: nothing more can be written.
fn full_pipe(path: &Path) -> Result<File> {
    let mut pipe = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path)?;
    loop {
        match pipe.write(&[b'\n'; 4096]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(pipe),
            Err(error) => return Err(error.into()),
        }
    }
}

fn repeated_interrupt_quits_and_says_what_is_lost(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, LABYRINTH, &[])?;
    let scratch = Scratch::new()?;
    let path = pipe(&scratch)?;
    let _reader = full_pipe(&path)?;
    let running = record(case, &fixture, "-d 0.3 -r 500 -f raw", &path).spawn()?;
    wait_for_line(&running, "stopped: ")?;
    wait_for("end", || {
        running.signal(Signal::SIGINT)?;
        Ok(process_state(running.pid())? == 'Z')
    })?;
    let run = running.wait()?;
    ensure!(run.ending_signal() == Some(Signal::SIGINT as i32), "{run:?}");
    ensure!(run.stderr.contains("what was recorded is lost"), "{}", run.stderr);
    Ok(())
}

fn sleepers_alone_are_told_of_idle(case: &Case) -> Result<()> {
    let source = "import threading, time\nfor _ in range(2): threading.Thread(target=time.sleep, \
                  args=(1000,), daemon=True).start()\nprint('ready', flush=True)\ntime.sleep(1000)";
    let fixture = Fixture::inline(case.interpreter, source)?;
    wait_until_still(fixture.pid())?;
    let scratch = Scratch::new()?;
    let record = record(case, &fixture, "-d 0.3 -r 500 -f raw", &scratch.file("out.txt"));
    let run = record.fail(&["--idle"])?;
    ensure!(!run.stderr.contains("--rate"), "{}", run.stderr);
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(highest_rate_ends_in_time).by(PAUSE_AND_BPF),
        test!(time_of_lost_samples_is_in_ledger_alone).on(On::Layouts).by(&[Sampler::Peek]),
        test!(pipe_is_written_when_it_has_a_reader).by(PAUSE_AND_BPF),
        test!(interrupt_ends_the_wait_for_a_reader).by(&[Sampler::Pause]),
        test!(interrupt_sent_twice_at_once_keeps_data).by(PAUSE_AND_BPF),
        test!(repeated_interrupt_quits_and_says_what_is_lost).by(PAUSE_AND_BPF),
        test!(sleepers_alone_are_told_of_idle).by(PAUSE_AND_BPF),
    ]
}
