//! `dump --core`: what a live process shows, its core file shows too; and core files that are cut short, are
//! none, or whose files are gone.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use profiler_tests::core_file::{crash, has_gdb, kernel_writes_cores, make_core, words_of_dumpable};
use profiler_tests::labyrinth::{Place, judge};
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    DumpedThread, Fixture, Profiler, Scratch, dumped_json, dumped_text, every_interpreter, one_interpreter,
    wait_until_still,
};
use serde_json::Value;

/// Threads that sleep, wait for a lock, and read stdin below nested functions, with a method among them.
const STILL: &str = "\
import os, sys, threading, time
os.fchdir(3)
lock = threading.Lock()
lock.acquire()
class Reader:
    def read(self, depth):
        if depth:
            return self.read(depth - 1)
        print('ready', os.getpid(), flush=True)
        sys.stdin.readline()
def locked():
    lock.acquire()
def asleep():
    time.sleep(1000)
for name, target in [('locked', locked), ('asl\u{e9}ep', asleep)]:
    thread = threading.Thread(target=target, name=name)
    thread.daemon = True
    thread.start()
Reader().read(30)
";

fn dump_core(core: &Path) -> Profiler {
    Profiler::new("dump").arg("--core").arg(core)
}

/// The threads of a JSON dump without what a core file does not tell: the whole command line, and what a file
/// descriptor or a child is that a thread waits on.
fn comparable(json: &str) -> Result<Vec<Value>> {
    let mut threads: Vec<Value> = serde_json::from_str(json)?;
    for thread in &mut threads {
        let process = thread["process_info"].as_object_mut().context("no process")?;
        process.retain(|name, _| name == "python_version" || name == "pid");
        thread.as_object_mut().context("no thread")?.remove("waits_on");
    }
    Ok(threads)
}

fn a_core_file_shows_what_the_live_process_showed() {
    if !kernel_writes_cores() {
        return;
    }
    every_interpreter(|interpreter| {
        let scratch = Scratch::new()?;
        let core = scratch.file("core");
        let words = words_of_dumpable(&interpreter.inline_words(STILL), scratch.path());
        let fixture = Fixture::command(&words)?;
        wait_until_still(fixture.pid())?;
        let live = Profiler::new("dump").words("--json --locals").pid(&fixture).succeed()?.stdout;
        crash(fixture, scratch.path(), &core)?;
        let root = interpreter.root().unwrap_or(Path::new("/"));
        let dead = dump_core(&core).words("--json --locals --sysroot").arg(root).succeed()?;
        let (live, dead) = (comparable(&live)?, comparable(&dead.stdout)?);
        ensure!(live.len() == 3, "{} threads", live.len());
        for (live, dead) in live.iter().zip(&dead) {
            ensure!(live == dead, "live: {live:#}\ncore: {dead:#}");
        }
        ensure!(live.len() == dead.len(), "{} threads instead of {}", dead.len(), live.len());
        Ok(())
    });
}

/// The frames of each thread and of each task, as text, with what the task awaits. What the threads waited for is
/// another test's business.
fn shown_beside_stacks(json: &str) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for thread in serde_json::from_str::<Vec<Value>>(json)? {
        all.push(format!("{} {}", thread["thread_name"], thread["frames"]));
        all.extend(thread["tasks"].as_array().into_iter().flatten().map(Value::to_string));
    }
    Ok(all)
}

/// What is shown beside stacks: lines of source and asyncio's tasks. The tree of tasks needs 3.11 to run.
fn source_and_tasks_are_those_of_the_live_process() {
    if !kernel_writes_cores() {
        return;
    }
    every_interpreter(|interpreter| {
        if interpreter.minor < 11 {
            return Ok(());
        }
        let scratch = Scratch::new()?;
        let core = scratch.file("core");
        let program = interpreter.fixture_words("asyncio_tree/asyncio_tree.py", &[]);
        let program = program.last().context("no program")?.to_string_lossy().into_owned();
        let source =
            format!("import os, runpy\nos.fchdir(3)\nrunpy.run_path({program:?}, run_name='__main__')\n");
        let words = words_of_dumpable(&interpreter.inline_words(&source), scratch.path());
        let fixture = Fixture::start_words(&words)?;
        wait_until_still(fixture.pid())?;
        let options = "--json --source=always --async=always";
        let live = Profiler::new("dump").words(options).pid(&fixture).succeed()?.stdout;
        crash(fixture, scratch.path(), &core)?;
        let root = interpreter.root().unwrap_or(Path::new("/"));
        let dead = dump_core(&core).words(options).arg("--sysroot").arg(root).succeed()?;
        let (live, after) = (shown_beside_stacks(&live)?, shown_beside_stacks(&dead.stdout)?);
        for (live, after) in live.iter().zip(&after) {
            ensure!(live == after, "live: {live}\ncore: {after}");
        }
        ensure!(live.len() == after.len(), "{} threads and tasks instead of {}", after.len(), live.len());
        let all = live.join("\n");
        ensure!(all.contains("await asyncio.sleep") || all.contains("run(main"), "no source: {all}");
        match interpreter.minor {
            14.. => ensure!(all.contains("\"awaited_by\""), "no tasks: {all}"),
            _ => dead.must_say(&["from CPython 3.14 on"])?,
        }
        // A file that was written after the core file is not what the process ran.
        let elsewhere = dump_core(&core).words("--source=always --sysroot").arg(scratch.path()).run()?;
        elsewhere.must_say(&["No source is shown"])
    });
}

fn a_thread_that_ran_and_held_the_gil() {
    if !has_gdb() {
        return;
    }
    every_interpreter(|interpreter| {
        let scratch = Scratch::new()?;
        let core = scratch.file("core");
        // Without a time limit the walker asks now and then whether stdin is closed, and lets go of the GIL for that.
        let fixture = Fixture::start(interpreter, "labyrinth/labyrinth.py", &["--seconds", "600"])?;
        make_core(&fixture, &core)?;
        let text = dump_core(&core).succeed()?.stdout;
        let threads = dumped_text(&text, fixture.pid())?;
        ensure!(threads.len() == 1 && threads[0].active && threads[0].owns_gil, "{text}");
        ensure!(threads[0].name.as_deref() == Some("MainThread"), "{text}");
        ensure!(matches!(judge(&threads[0].root_first())?, Place::Maze { .. } | Place::Around), "{text}");
        Ok(())
    });
}

/// The core file of a program that calls itself and starts threads, and waits below them.
fn crashed(scratch: &Scratch) -> Result<PathBuf> {
    let core = scratch.file("crashed");
    let words = words_of_dumpable(&one_interpreter().inline_words(STILL), scratch.path());
    let fixture = Fixture::command(&words)?;
    wait_until_still(fixture.pid())?;
    crash(fixture, scratch.path(), &core)?;
    Ok(core)
}

/// The functions and lines of a thread that are not lost.
fn frames(thread: &DumpedThread) -> Vec<String> {
    thread.frames.iter().map(|frame| format!("{frame:?}")).collect()
}

fn a_core_file_cut_short_shows_what_is_there_and_says_so() {
    if !kernel_writes_cores() {
        return;
    }
    let scratch = Scratch::new().unwrap();
    let core = crashed(&scratch).unwrap();
    let whole = dumped_json(&dump_core(&core).words("--json").succeed().unwrap().stdout).unwrap();
    let whole: Vec<_> = whole.iter().map(frames).collect();
    let length = fs::metadata(&core).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(&core).unwrap();
    // From nearly whole to nothing: the end, then in even steps, then inside the headers.
    let steps = (0..40).rev().map(|step| length * step / 40);
    let cuts = [length - 1, length - 5000].into_iter().chain(steps.filter(|cut| *cut > 8192));
    let (mut shown, mut refused) = (0, 0);
    for cut in cuts.chain([8192, 5000, 4096, 2000, 1000, 500, 100, 64, 63, 20, 5, 4, 1, 0]) {
        file.set_len(cut).unwrap();
        let run = dump_core(&core).words("--json").run().unwrap();
        run.must_say(if cut >= 5 { &["cut short"] } else { &["core"] }).unwrap();
        match run.code() {
            Some(0) => shown += 1,
            Some(1) => refused += 1,
            _ => panic!("cut to {cut}: {:?}\n{}", run.status, run.stderr),
        }
        if !run.stdout.is_empty() {
            for thread in dumped_json(&run.stdout).unwrap() {
                assert!(
                    thread.frames.is_empty() || whole.contains(&frames(&thread)),
                    "cut to {cut}: {thread:?}"
                );
            }
        }
    }
    assert!(shown > 0 && refused > 0, "{shown} shown, {refused} refused");
}

fn what_is_no_core_file() {
    let scratch = Scratch::new().unwrap();
    let file = |name: &str, content: &[u8]| {
        fs::write(scratch.file(name), content).unwrap();
        scratch.file(name)
    };
    let fails = |path: &Path, hint: &str| {
        let run = dump_core(path).fail(&[hint]).unwrap();
        assert!(run.stdout.is_empty(), "{}", run.stdout);
    };
    fails(&scratch.file("nowhere"), "No such file");
    fails(scratch.path(), "directory");
    fails(&file("empty", b""), "empty");
    fails(&file("text", b"text\n"), "no core file");
    fails(&file("zst", b"\x28\xb5\x2f\xfd\0\0\0\0"), "zstd -d");
    fails(Path::new("/proc/self/exe"), "a program");
    let pipe = scratch.file("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fails(&pipe, "no regular file");
    Profiler::new("dump").words("--pid 1 --core x").misuse().unwrap();
    Profiler::new("dump").words("--pid 1 --sysroot x").misuse().unwrap();
}

fn a_core_file_of_a_program_without_python() {
    if !has_gdb() {
        return;
    }
    let scratch = Scratch::new().unwrap();
    let core = scratch.file("core");
    make_core(&Fixture::spawn(&[OsString::from("cat")]).unwrap(), &core).unwrap();
    dump_core(&core).fail(&["it is not a Python process"]).unwrap();
}

fn a_core_file_whose_files_are_gone_or_changed() {
    if !has_gdb() {
        return;
    }
    let scratch = Scratch::new().unwrap();
    let (core, python) = (scratch.file("core"), scratch.file("python3"));
    // The system's interpreter is one file that may lie anywhere.
    let original = fs::canonicalize("/usr/bin/python3").unwrap();
    fs::copy(&original, &python).unwrap();
    let source = "import os, sys\ndef reading():\n    print('ready', os.getpid(), flush=True); \
                  sys.stdin.readline()\nreading()\n";
    let words = [python.clone().into(), "-c".into(), source.into()];
    let fixture = Fixture::command(&words).unwrap();
    wait_until_still(fixture.pid()).unwrap();
    make_core(&fixture, &core).unwrap();
    drop(fixture);
    let shows = |profiler: Profiler| {
        let threads = dumped_json(&profiler.words("--json").succeed().unwrap().stdout).unwrap();
        assert_eq!((threads.len(), threads[0].leaf()), (1, "reading"));
    };
    shows(dump_core(&core));
    fs::remove_file(&python).unwrap();
    let gone = dump_core(&core).fail(&["cannot be read"]).unwrap();
    gone.must_say(&["--sysroot"]).unwrap();
    fs::copy("/usr/bin/env", &python).unwrap();
    dump_core(&core).fail(&["is not the file that was mapped"]).unwrap();
    // Where it is now, with the path that it had below that folder.
    let root = scratch.file("root");
    let moved = root.join(python.strip_prefix("/").unwrap());
    fs::create_dir_all(moved.parent().unwrap()).unwrap();
    fs::copy(&original, &moved).unwrap();
    shows(dump_core(&core).arg("--sysroot").arg(&root));
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(a_core_file_shows_what_the_live_process_showed),
        test!(source_and_tasks_are_those_of_the_live_process),
        test!(a_thread_that_ran_and_held_the_gil),
        test!(a_core_file_cut_short_shows_what_is_there_and_says_so),
        test!(what_is_no_core_file),
        test!(a_core_file_of_a_program_without_python),
        test!(a_core_file_whose_files_are_gone_or_changed),
    ]
}
