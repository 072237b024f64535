//! Rough surroundings: a target that changes its memory map all the time, standard streams that are closed.

use std::fs;
use std::io::pipe;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Test};
use profiler_tests::test;
use profiler_tests::{Collapsed, Fixture, Profiler, Scratch, WORK, dumped_json, profiler_path};

/// Maps and unmaps memory, starts threads and loads and unloads libraries, and recurses in between; each
/// function may be called by one other only. A line on stdin is answered by the number of rounds so far.
const STORM: &str = "\
import _ctypes, mmap, os, select, sys, threading, _posixsubprocess, _json, _bisect
FILES = [sys.modules[name].__file__ for name in ('_posixsubprocess', '_json', '_bisect')
         if hasattr(sys.modules[name], '__file__')]
rounds = 0
def round_from_storm():
    maps_from_round()
    libraries_from_round()
    threads_from_round()
    deep_from_round(40)
def maps_from_round():
    held = [mmap.mmap(-1, 4096 * size) for size in range(1, 30)]
    for one in held[::2]: one.close()
    for one in held[1::2]: one.close()
def libraries_from_round():
    for file in FILES:
        _ctypes.dlclose(_ctypes.dlopen(file, 0))
def threads_from_round():
    short = [threading.Thread(target=thread_body) for _ in range(3)]
    for one in short: one.start()
    for one in short: one.join()
def thread_body():
    deep_from_thread(10)
def deep_from_thread(left):
    if left: deep_from_thread(left - 1)
def deep_from_round(left):
    block = bytearray(300000)
    if left: deep_from_round(left - 1)
def storm():
    global rounds
    print('ready', os.getpid(), flush=True)
    while True:
        round_from_storm()
        rounds += 1
        if select.select([0], [], [], 0)[0]:
            if not sys.stdin.readline(): return
            print(rounds, flush=True)
storm()
";

/// The only legal caller of each function of the storm.
fn caller(function: &str) -> Option<&'static [&'static str]> {
    Some(match function {
        "storm" => &["<module>"],
        "round_from_storm" => &["storm"],
        "maps_from_round" | "libraries_from_round" | "threads_from_round" => &["round_from_storm"],
        "deep_from_round" => &["round_from_storm", "deep_from_round"],
        "deep_from_thread" => &["thread_body", "deep_from_thread"],
        "thread_body" => &["run", "Thread.run"],
        _ => return None,
    })
}

fn must_be_legal(names: &[&str]) -> Result<()> {
    for pair in names.windows(2) {
        let legal = caller(pair[1]).is_none_or(|callers| callers.contains(&pair[0]));
        ensure!(legal, "{} called by {} in {names:?}", pair[1], pair[0]);
    }
    Ok(())
}

/// CPU time of the target in a recording.
const ENOUGH_WORK: Duration = Duration::from_millis(300);

fn record(case: &Case, record: Profiler, scratch: &Scratch) -> Profiler {
    record.words(&case.sampler_words()).words("-f raw -r 500 -o").arg(scratch.file("out.txt"))
}

fn profile_of(scratch: &Scratch) -> Result<Collapsed> {
    Collapsed::parse(&fs::read_to_string(scratch.file("out.txt")).context("no data was written")?)
}

fn changing_memory_map_tears_no_dump(case: &Case) -> Result<()> {
    let fixture = Fixture::inline(case.interpreter, STORM)?;
    for _ in 0..5 {
        let run = Profiler::new("dump").words("--json").pid(&fixture).run()?;
        ensure!(!run.stderr.contains("panicked"), "{run:?}");
        ensure!(matches!(run.code(), Some(0 | 1)), "{run:?}");
        for thread in dumped_json(&run.stdout).unwrap_or_default() {
            let names: Vec<&str> = thread.frames.iter().rev().map(|frame| frame.plain_name()).collect();
            must_be_legal(&names)?;
        }
    }
    Ok(())
}

fn changing_memory_map_tears_no_recording(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let mut fixture = Fixture::inline(case.interpreter, STORM)?;
    let before: u64 = fixture.ask("")?.parse()?;
    let record = record(case, Profiler::new("record"), &scratch);
    record.pid(&fixture).spawn()?.end_after_cpu_time(fixture.pid(), ENOUGH_WORK)?;
    let after: u64 = fixture.ask("")?.parse()?;
    ensure!(after > before, "the target makes no progress");
    let profile = profile_of(&scratch)?;
    for stack in &profile.stacks {
        let names: Vec<&str> = stack.frames.iter().map(|frame| frame.plain_name()).collect();
        must_be_legal(&names)?;
    }
    ensure!(profile.count(|stack| stack.contains("storm")) >= 20, "{profile:?}");
    Ok(())
}

/// Works until a line arrives.
const WORKER: &str = "\
import os, select
def work():
    print('ready', os.getpid(), flush=True)
    while not select.select([0], [], [], 0)[0]:
        for _ in range(10000): pass
work()
";

/// The profiler behind a shell that closes some of its streams.
fn without_streams(closing: &str) -> Vec<std::ffi::OsString> {
    let script = format!("exec \"$@\" {closing}");
    vec!["sh".into(), "-c".into(), script.into(), "sh".into()]
}

const CLOSINGS: [&str; 4] = ["<&-", "<&- >&-", "<&- 2>&-", "<&- >&- 2>&-"];

fn closed_streams_spoil_no_recording(case: &Case) -> Result<()> {
    let fixture = Fixture::inline(case.interpreter, WORKER)?;
    for closing in CLOSINGS {
        let scratch = Scratch::new()?;
        let record = || record(case, Profiler::within(&without_streams(closing), "record"), &scratch);
        let must_have_samples = || -> Result<()> {
            ensure!(profile_of(&scratch)?.total() > 0, "{closing}: no samples");
            Ok(())
        };
        record().words("-d 0.3").pid(&fixture).succeed().context(closing)?;
        must_have_samples()?;
        fs::remove_file(scratch.file("out.txt"))?;
        // The command has a stdin all the same, which is at its end.
        let source = format!("import sys\nassert sys.stdin.read() == ''\n{WORK}");
        record().command(&case.interpreter.inline_words(&source)).succeed().context(closing)?;
        must_have_samples()?;
    }
    Ok(())
}

fn closed_streams_spoil_no_dump(case: &Case) -> Result<()> {
    let fixture = Fixture::inline(case.interpreter, WORKER)?;
    for closing in CLOSINGS {
        let dump = Profiler::within(&without_streams(closing), "dump").pid(&fixture);
        let dump = dump.succeed().context(closing)?;
        ensure!(dump.stdout.contains("work (") != closing.contains(" >&-"), "{closing}: {}", dump.stdout);
    }
    Ok(())
}

/// A pipe that nobody reads any more.
fn broken_pipe() -> Result<Stdio> {
    let (reader, writer) = pipe()?;
    drop(reader);
    Ok(writer.into())
}

/// Runs the profiler on a target with these streams.
fn run(words: &str, fixture: &Fixture, stdout: Stdio, stderr: Stdio) -> Result<Output> {
    let mut command = Command::new(profiler_path());
    command.args(words.split_whitespace()).arg("--pid").arg(fixture.pid().to_string());
    let child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn()?;
    Ok(child.wait_with_output()?)
}

fn broken_pipes_are_no_errors(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let fixture = Fixture::inline(case.interpreter, WORKER)?;
    let to = |place: &str| format!("record {} -f raw -r 300 -d 0.3 -o {place}", case.sampler_words());
    let (to_stdout, to_file) = (to("-"), to(&scratch.file("out.txt").display().to_string()));
    // A reader that has enough is no error.
    for words in ["dump", "dump --json", &to_stdout] {
        let output = run(words, &fixture, broken_pipe()?, Stdio::piped())?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_clean = !errors.contains("panicked") && !errors.contains("error");
        ensure!(output.status.success() && is_clean, "{words}: {errors}");
    }
    // That nobody reads progress and ledger is no reason to fail either, nor to lose the recording.
    for words in ["dump", &to_stdout, &to_file] {
        let output = run(words, &fixture, Stdio::piped(), broken_pipe()?)?;
        ensure!(output.status.success(), "{words}: {output:?}");
    }
    ensure!(profile_of(&scratch)?.total() > 0, "no samples");
    // An error keeps its status if nobody reads it.
    for words in ["dump --core", "record -r 0"] {
        let output = run(words, &fixture, broken_pipe()?, broken_pipe()?)?;
        ensure!(output.status.code() == Some(2), "{words}: {output:?}");
    }
    Ok(())
}

fn full_device_is_reported(case: &Case) -> Result<()> {
    let fixture = Fixture::inline(case.interpreter, WORKER)?;
    let record = format!("{} -f raw -r 300 -d 0.3 -o -", case.sampler_words());
    for (subcommand, words) in [("dump", ""), ("dump", "--json"), ("record", &record)] {
        let run = Profiler::within(&without_streams(">/dev/full"), subcommand).words(words).pid(&fixture);
        run.fail(&["No space left on device"]).with_context(|| format!("{subcommand} {words}"))?;
    }
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(changing_memory_map_tears_no_dump).on(On::Layouts),
        test!(changing_memory_map_tears_no_recording).on(On::Layouts).by(PAUSE_AND_BPF),
        test!(closed_streams_spoil_no_recording).by(PAUSE_AND_BPF),
        test!(closed_streams_spoil_no_dump),
        test!(broken_pipes_are_no_errors).by(PAUSE_AND_BPF),
        test!(full_device_is_reported).by(PAUSE_AND_BPF),
    ]
}
