//! Rough surroundings: a target that changes its memory map all the time, standard streams that are closed.

use std::fs;
use std::io::pipe;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    Collapsed, Fixture, Profiler, Scratch, dumped_json, every_interpreter, one_interpreter, profiler_path,
};

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

fn a_target_that_changes_its_memory_map_all_the_time() {
    every_interpreter(|interpreter| {
        let scratch = Scratch::new()?;
        let mut fixture = Fixture::inline(interpreter, STORM)?;
        for _ in 0..5 {
            let run = Profiler::new("dump").words("--json").pid(&fixture).run()?;
            ensure!(!run.stderr.contains("panicked"), "{run:?}");
            ensure!(matches!(run.code(), Some(0 | 1)), "{run:?}");
            for thread in dumped_json(&run.stdout).unwrap_or_default() {
                let names: Vec<&str> = thread.frames.iter().rev().map(|frame| frame.plain_name()).collect();
                must_be_legal(&names)?;
            }
        }
        let before: u64 = fixture.ask("")?.parse()?;
        let run = Profiler::new("record").words("-f raw -r 500 -d 0.4 -o").arg(scratch.file("out.txt"));
        run.pid(&fixture).succeed()?;
        let after: u64 = fixture.ask("")?.parse()?;
        ensure!(after > before, "the target does not get on");
        let profile = Collapsed::parse(&fs::read_to_string(scratch.file("out.txt"))?)?;
        for stack in &profile.stacks {
            let names: Vec<&str> = stack.frames.iter().map(|frame| frame.plain_name()).collect();
            must_be_legal(&names)?;
        }
        ensure!(profile.count(|stack| stack.contains("storm")) >= 20, "{profile:?}");
        Ok(())
    });
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

fn streams_that_are_closed_from_the_start() {
    let scratch = Scratch::new().unwrap();
    let fixture = Fixture::inline(one_interpreter(), WORKER).unwrap();
    for closing in ["<&-", "<&- >&-", "<&- 2>&-", "<&- >&- 2>&-"] {
        let place = without_streams(closing);
        let file = scratch.file("out.txt");
        let record = || Profiler::within(&place, "record").words("-f raw -r 300 -o").arg(&file);
        let shown = || Collapsed::parse(&fs::read_to_string(&file)?).map(|profile| profile.total());
        record().words("-d 0.3").pid(&fixture).succeed().context(closing).unwrap();
        assert!(shown().unwrap() > 0, "{closing}");
        fs::remove_file(&file).unwrap();
        // The command has a stdin all the same, which is at its end.
        let source = "import sys\nassert sys.stdin.read() == ''\nfor _ in range(4000000): pass";
        record().command(&one_interpreter().inline_words(source)).succeed().context(closing).unwrap();
        assert!(shown().unwrap() > 0, "{closing}");
        let dump = Profiler::within(&place, "dump").pid(&fixture).succeed().context(closing).unwrap();
        assert_eq!(dump.stdout.contains("work ("), !closing.contains(" >&-"), "{closing}");
    }
}

/// A pipe that nobody reads any more.
fn broken_pipe() -> Result<Stdio> {
    let (reader, writer) = pipe()?;
    drop(reader);
    Ok(writer.into())
}

fn pipes_that_nobody_reads_any_more() {
    let scratch = Scratch::new().unwrap();
    let fixture = Fixture::inline(one_interpreter(), WORKER).unwrap();
    let pid = fixture.pid().to_string();
    let run = |words: &str, stdout: Stdio, stderr: Stdio| {
        let words = words.split_whitespace();
        let mut command = std::process::Command::new(profiler_path());
        let child =
            command.args(words).arg("--pid").arg(&pid).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        child.spawn().unwrap().wait_with_output().unwrap()
    };
    let file = scratch.file("out.txt");
    let to_file = format!("record -f raw -r 300 -d 0.3 -o {}", file.display());
    // A reader that has enough is no error.
    for words in ["dump", "dump --json", "record -f raw -r 300 -d 0.3 -o -"] {
        let output = run(words, broken_pipe().unwrap(), Stdio::piped());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !said.contains("panicked") && !said.contains("error"), "{said}");
    }
    // Nobody to be told of progress and ledger is no reason to fail either, nor to lose the recording.
    for words in ["dump", "record -f raw -r 300 -d 0.3 -o -", &to_file] {
        let output = run(words, Stdio::piped(), broken_pipe().unwrap());
        assert!(output.status.success(), "{words}: {output:?}");
    }
    assert!(Collapsed::parse(&fs::read_to_string(&file).unwrap()).unwrap().total() > 0);
    // An error keeps its status when nobody hears of it.
    for words in ["dump --core", "record -r 0"] {
        let output = run(words, broken_pipe().unwrap(), broken_pipe().unwrap());
        assert_eq!(output.status.code(), Some(2), "{words}: {output:?}");
    }
}

fn a_full_device_is_an_error_that_says_so() {
    let fixture = Fixture::inline(one_interpreter(), WORKER).unwrap();
    for words in ["dump", "dump --json", "record -f raw -r 300 -d 0.3 -o -"] {
        let place = without_streams(">/dev/full");
        let (subcommand, rest) = words.split_once(' ').unwrap_or((words, ""));
        let run = Profiler::within(&place, subcommand).words(rest).pid(&fixture);
        run.fail(&["No space left on device"]).context(words).unwrap();
    }
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(a_target_that_changes_its_memory_map_all_the_time),
        test!(streams_that_are_closed_from_the_start),
        test!(pipes_that_nobody_reads_any_more),
        test!(a_full_device_is_an_error_that_says_so),
    ]
}
