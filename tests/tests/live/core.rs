//! `dump --core`: what a live process shows, its core file shows too; and core files that are cut short, are
//! none, or whose files are gone.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use profiler_tests::core_file::{crash, has_gdb, kernel_writes_cores, make_core, words_of_dumpable};
use profiler_tests::labyrinth::{Place, judge};
use profiler_tests::suite::{Case, On, Test};
use profiler_tests::test;
use profiler_tests::{
    DumpedThread, Fixture, Interpreter, Profiler, Scratch, dumped_json, dumped_text, one_interpreter,
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

/// In how many even steps a core file is cut.
const CUTS: u64 = 12;

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

fn a_core_file_shows_what_the_live_process_showed(case: &Case) -> Result<()> {
    if !kernel_writes_cores() {
        return Ok(());
    }
    let (scratch, interpreter) = (Scratch::new()?, case.interpreter);
    let core = scratch.file("core");
    let words = words_of_dumpable(&interpreter.inline_words(STILL), scratch.path());
    let fixture = Fixture::command(&words)?;
    wait_until_still(fixture.pid())?;
    let live = Profiler::new("dump").words("--json --locals").pid(&fixture).succeed()?.stdout;
    crash(fixture, scratch.path(), &core)?;
    let dead = dump_core(&core).words("--json --locals --sysroot").arg(root_of(interpreter)).succeed()?;
    let (live, dead) = (comparable(&live)?, comparable(&dead.stdout)?);
    ensure!(live.len() == 3, "{} threads", live.len());
    ensure_same(&live, &dead)
}

fn root_of(interpreter: &Interpreter) -> &Path {
    interpreter.root().unwrap_or(Path::new("/"))
}

fn ensure_same<T: PartialEq + Debug>(live: &[T], dead: &[T]) -> Result<()> {
    for (live, dead) in live.iter().zip(dead) {
        ensure!(live == dead, "live: {live:#?}\ncore: {dead:#?}");
    }
    ensure!(live.len() == dead.len(), "{} instead of {}", dead.len(), live.len());
    Ok(())
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
fn source_and_tasks_are_those_of_the_live_process(case: &Case) -> Result<()> {
    if !kernel_writes_cores() {
        return Ok(());
    }
    let (scratch, interpreter) = (Scratch::new()?, case.interpreter);
    let core = scratch.file("core");
    let fixture = Fixture::start_words(&tree_words(interpreter, &scratch)?)?;
    wait_until_still(fixture.pid())?;
    let options = "--json --source=always --async=always";
    let live = Profiler::new("dump").words(options).pid(&fixture).succeed()?.stdout;
    crash(fixture, scratch.path(), &core)?;
    let dead = dump_core(&core).words(options).arg("--sysroot").arg(root_of(interpreter)).succeed()?;
    let live = shown_beside_stacks(&live)?;
    ensure_same(&live, &shown_beside_stacks(&dead.stdout)?)?;
    let all = live.join("\n");
    ensure!(all.contains("await asyncio.sleep") || all.contains("run(main"), "no source: {all}");
    match interpreter.minor {
        14.. => ensure!(all.contains("\"awaited_by\""), "no tasks: {all}"),
        _ => dead.must_say(&["from CPython 3.14 on"])?,
    }
    // A file that was written after the core file is not what the process ran.
    let elsewhere = dump_core(&core).words("--source=always --sysroot").arg(scratch.path()).run()?;
    elsewhere.must_say(&["No source is shown"])
}

/// The command line of a tree of tasks whose core file lands in the scratch folder.
fn tree_words(interpreter: &Interpreter, scratch: &Scratch) -> Result<Vec<OsString>> {
    let program = interpreter.fixture_words("asyncio_tree/asyncio_tree.py", &[]);
    let program = program.last().context("no program")?.to_string_lossy().into_owned();
    let source =
        format!("import os, runpy\nos.fchdir(3)\nrunpy.run_path({program:?}, run_name='__main__')\n");
    Ok(words_of_dumpable(&interpreter.inline_words(&source), scratch.path()))
}

fn a_core_file_of_a_thread_that_ran_and_held_the_gil(case: &Case) -> Result<()> {
    if !has_gdb() {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let core = scratch.file("core");
    // Without a time limit the walker asks now and then whether stdin is closed, and lets go of the GIL for that.
    let fixture = Fixture::start(case.interpreter, "labyrinth/labyrinth.py", &["--seconds", "600"])?;
    make_core(&fixture, &core)?;
    let text = dump_core(&core).succeed()?.stdout;
    let threads = dumped_text(&text, fixture.pid())?;
    ensure!(threads.len() == 1 && threads[0].active && threads[0].owns_gil, "{text}");
    ensure!(threads[0].name.as_deref() == Some("MainThread"), "{text}");
    ensure!(matches!(judge(&threads[0].root_first())?, Place::Maze { .. } | Place::Around), "{text}");
    Ok(())
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

fn a_core_file_cut_short_shows_what_is_there() -> Result<()> {
    if !kernel_writes_cores() {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let core = crashed(&scratch)?;
    let whole = dumped_json(&dump_core(&core).words("--json").succeed()?.stdout)?;
    let whole: Vec<_> = whole.iter().map(frames).collect();
    let length = fs::metadata(&core)?.len();
    let file = fs::OpenOptions::new().write(true).open(&core)?;
    // From nearly whole to nothing: the end, then in even steps, then inside the headers.
    let steps = (0..CUTS).rev().map(|step| length * step / CUTS);
    let cuts = [length - 1, length - 5000].into_iter().chain(steps.filter(|cut| *cut > 8192));
    let (mut shown, mut refused) = (0, 0);
    for cut in cuts.chain([8192, 5000, 4096, 2000, 1000, 500, 100, 64, 63, 20, 5, 4, 1, 0]) {
        file.set_len(cut)?;
        let run = dump_core(&core).words("--json").run()?;
        run.must_say(if cut >= 5 { &["cut short"] } else { &["core"] })?;
        match run.code() {
            Some(0) => shown += 1,
            Some(1) => refused += 1,
            _ => bail!("cut to {cut}: {:?}\n{}", run.status, run.stderr),
        }
        if !run.stdout.is_empty() {
            for thread in dumped_json(&run.stdout)? {
                let is_whole = thread.frames.is_empty() || whole.contains(&frames(&thread));
                ensure!(is_whole, "cut to {cut}: {thread:?}");
            }
        }
    }
    ensure!(shown > 0 && refused > 0, "{shown} shown, {refused} refused");
    Ok(())
}

fn what_is_no_core_file_is_refused_by_name() -> Result<()> {
    let scratch = Scratch::new()?;
    let fails = |path: &Path, hint: &str| -> Result<()> {
        let run = dump_core(path).fail(&[hint])?;
        ensure!(run.stdout.is_empty(), "{}", run.stdout);
        Ok(())
    };
    fails(&scratch.file("nowhere"), "No such file")?;
    fails(scratch.path(), "directory")?;
    let files: [(&str, &[u8], &str); 3] = [
        ("empty", b"", "empty"),
        ("text", b"text\n", "no core file"),
        ("zst", b"\x28\xb5\x2f\xfd\0\0\0\0", "zstd -d"),
    ];
    for (name, content, hint) in files {
        fs::write(scratch.file(name), content)?;
        fails(&scratch.file(name), hint)?;
    }
    fails(Path::new("/proc/self/exe"), "a program")?;
    let pipe = scratch.file("pipe");
    ensure!(Command::new("mkfifo").arg(&pipe).status()?.success(), "mkfifo");
    fails(&pipe, "no regular file")?;
    Profiler::new("dump").words("--pid 1 --core x").misuse()?;
    Profiler::new("dump").words("--pid 1 --sysroot x").misuse()?;
    Ok(())
}

fn a_core_file_of_a_program_without_python() -> Result<()> {
    if !has_gdb() {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let core = scratch.file("core");
    make_core(&Fixture::spawn(&[OsString::from("cat")])?, &core)?;
    dump_core(&core).fail(&["it is not a Python process"])?;
    Ok(())
}

fn a_core_file_whose_files_are_gone_or_changed() -> Result<()> {
    if !has_gdb() {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let (core, python) = (scratch.file("core"), scratch.file("python3"));
    // The system's interpreter is one file that may lie anywhere.
    let original = fs::canonicalize("/usr/bin/python3")?;
    fs::copy(&original, &python)?;
    let source = "import os, sys\ndef reading():\n    print('ready', os.getpid(), flush=True); \
                  sys.stdin.readline()\nreading()\n";
    let words = [python.clone().into(), "-c".into(), source.into()];
    let fixture = Fixture::command(&words)?;
    wait_until_still(fixture.pid())?;
    make_core(&fixture, &core)?;
    drop(fixture);
    let shows = |profiler: Profiler| -> Result<()> {
        let threads = dumped_json(&profiler.words("--json").succeed()?.stdout)?;
        ensure!((threads.len(), threads[0].leaf()) == (1, "reading"), "{threads:?}");
        Ok(())
    };
    shows(dump_core(&core))?;
    fs::remove_file(&python)?;
    let gone = dump_core(&core).fail(&["cannot be read"])?;
    gone.must_say(&["--sysroot"])?;
    fs::copy("/usr/bin/env", &python)?;
    dump_core(&core).fail(&["is not the file that was mapped"])?;
    // Where it is now, with the path that it had below that folder.
    let root = scratch.file("root");
    let moved = root.join(python.strip_prefix("/")?);
    fs::create_dir_all(moved.parent().context("no folder")?)?;
    fs::copy(&original, &moved)?;
    shows(dump_core(&core).arg("--sysroot").arg(&root))
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(a_core_file_shows_what_the_live_process_showed).on(On::Layouts),
        test!(source_and_tasks_are_those_of_the_live_process).on(On::Minors(&[11, 15])),
        test!(a_core_file_of_a_thread_that_ran_and_held_the_gil).on(On::Layouts),
        test!(a_core_file_cut_short_shows_what_is_there),
        test!(what_is_no_core_file_is_refused_by_name),
        test!(a_core_file_of_a_program_without_python),
        test!(a_core_file_whose_files_are_gone_or_changed),
    ]
}
