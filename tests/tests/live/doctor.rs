//! `doctor`: what it says of processes agrees with what they are, and with whether `record` works.

use std::fs;

use anyhow::{Context, Result, ensure};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    Fixture, Profiler, Scratch, every_interpreter, is_root, missing, one_interpreter, process_state,
};
use serde_json::Value;

/// Three threads, the main one busy.
const BUSY: &str = "\
import os, sys, threading
def wait():
    stop.wait()
stop = threading.Event()
for name in ('first', 'second'):
    thread = threading.Thread(target=wait, name=name)
    thread.daemon = True
    thread.start()
print('ready', os.getpid(), flush=True)
while True: pass
";

/// Sleeps.
const IDLE: &str = "import os, sys\nprint('ready', os.getpid(), flush=True)\nsys.stdin.readline()\n";

fn json(run: &str) -> Result<Value> {
    serde_json::from_str(run).context("doctor --json")
}

fn every_python_is_described_as_it_is() {
    every_interpreter(|interpreter| {
        let fixture = Fixture::inline(interpreter, BUSY)?;
        let run = Profiler::new("doctor").words("--json").pid(&fixture).succeed()?;
        let report = json(&run.stdout)?;
        let best = if is_root() { "bpf" } else { "pause" };
        let samplers = &report["samplers"];
        ensure!(report["works"] == true && samplers["record"] == best, "{report}");
        ensure!(samplers["pause"] == true && samplers["bpf"] == is_root(), "{report}");
        let process = &report["process"];
        ensure!(process["pid"] == fixture.pid() && process["tracer"].is_null(), "{process}");
        let python = &process["python"];
        let minor = format!("3.{}.", interpreter.minor);
        ensure!(python["version"].as_str().is_some_and(|version| version.starts_with(&minor)), "{python}");
        ensure!(python["free_threaded"] == interpreter.free_threaded, "{python}");
        ensure!(python["interpreters"] == 1 && process["kernel_threads"] == 3, "{process}");
        ensure!(python["gils"] == i32::from(!interpreter.free_threaded), "{python}");
        let threads = python["threads"].as_array().context("threads")?;
        let named: Vec<&str> = threads.iter().filter_map(|thread| thread["name"].as_str()).collect();
        ensure!(named == ["MainThread", "first", "second"], "{named:?}");
        ensure!(threads[0]["thread_id"] == fixture.pid(), "{python}");
        // A distribution strips its builds; those of pyenv are libraries with symbols.
        let is_stripped = python["stripped"] == true;
        ensure!(is_stripped == interpreter.id.contains('-'), "{python}");
        ensure!(is_stripped || python["found_by"].as_str().is_some_and(|by| by.starts_with("symbol")));
        let module = python["module"].as_str().context("module")?;
        ensure!((python["shared"] == true) == module.contains("libpython"), "{python}");
        let root = process["root"].as_str().context("root")?;
        let expected = interpreter.root().map(fs::canonicalize).transpose()?;
        ensure!(root == expected.map_or("/".to_owned(), |root| root.display().to_string()), "{root}");
        ensure!(process_state(fixture.pid())? == 'R', "it runs on");
        Ok(())
    });
}

fn the_host_is_described_and_record_works_on_it() {
    let run = Profiler::new("doctor").succeed().unwrap();
    for line in [
        "kernel ",
        "ptrace_scope ",
        "process_vm_readv",
        "perf_event_paranoid",
        "BTF",
        "pause",
        "peek",
        "--kernel ",
    ] {
        assert!(run.stdout.contains(line), "{line:?} is not in\n{}", run.stdout);
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(run.stdout.contains(release.trim()), "{}", run.stdout);
    let report = json(&Profiler::new("doctor").words("--json").succeed().unwrap().stdout).unwrap();
    assert_eq!(report["host"]["uid"], nix::unistd::geteuid().as_raw());
    let effective = report["host"]["capabilities"]["effective"].as_array().unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let set = u64::from_str_radix(line.trim(), 16).unwrap();
    assert_eq!(effective.iter().any(|name| name == "CAP_SYS_PTRACE"), set & 1 << 19 != 0);
}

fn names_reach_the_terminal_as_escapes() {
    let evil = "thread.current_thread().name = 'evil\\x1b[2J\\u009b\\nGIL forged'\n";
    let source = format!("import threading as thread\n{evil}{BUSY}");
    let fixture = Fixture::inline(one_interpreter(), &source).unwrap();
    let holder = "\"evil\\u{1b}[2J\\u{9b}\\nGIL forged\"";
    let run = Profiler::new("doctor").pid(&fixture).succeed().unwrap();
    assert!(run.stdout.chars().all(|char| char == '\n' || !char.is_control()), "{}", run.stdout);
    let gil = run.stdout.lines().find(|line| line.trim_start().starts_with("GIL ")).unwrap();
    // It is busy, but the GIL is free for an instant whenever the interpreter looks whether another wants it.
    assert!(gil.contains(holder) || gil.contains("free"), "{gil}");
    let run = Profiler::new("doctor").words("--json").pid(&fixture).succeed().unwrap();
    assert!(run.stdout.chars().all(|char| char == '\n' || !char.is_control()), "{}", run.stdout);
    let report = json(&run.stdout).unwrap();
    assert_eq!(report["process"]["python"]["threads"][0]["name"], "evil\u{1b}[2J\u{9b}\nGIL forged");
}

/// Runs doctor, which must say that `record` would not work, and why; and `record` must agree.
fn unfit(fixture: &Fixture, words: &[&str]) -> Result<()> {
    let run = Profiler::new("doctor").pid(fixture).run()?;
    ensure!(run.code() == Some(1), "status {:?}\n{}{}", run.status, run.stdout, run.stderr);
    let (_, verdict) = run.stdout.split_once("does not work:").context("no verdict")?;
    for word in words {
        ensure!(verdict.contains(word), "no word of {word:?} in\n{verdict}");
    }
    let report = json(&Profiler::new("doctor").words("--json").pid(fixture).run()?.stdout)?;
    ensure!(report["works"] == false && !report["obstacles"][0]["what"].is_null(), "{report}");
    let scratch = Scratch::new()?;
    Profiler::new("record").words("-d 0.1 -o").arg(scratch.file("out.svg")).pid(fixture).fail(&[]).map(drop)
}

fn what_stands_in_the_way_is_said_with_its_remedy() {
    let fixture = Fixture::inline(one_interpreter(), IDLE).unwrap();
    let pid = Pid::from_raw(fixture.pid() as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    unfit(&fixture, &["stopped by a signal", &format!("kill -CONT {pid}")]).unwrap();
    kill(pid, Signal::SIGCONT).unwrap();
    // This thread traces it until it ends.
    ptrace::seize(pid, ptrace::Options::empty()).unwrap();
    unfit(&fixture, &["is traced by process", "--nonblocking"]).unwrap();

    let sleep = Fixture::spawn(&["sleep".into(), "60".into()]).unwrap();
    unfit(&sleep, &["not a Python process"]).unwrap();
    let run = Profiler::new("doctor").words("--pid 4194304").run().unwrap();
    assert_eq!(run.code(), Some(1));
    assert!(run.stdout.contains("there is no process 4194304"), "{}", run.stdout);
    Profiler::new("doctor").words("--pid 0").misuse().unwrap();
}

fn a_process_of_somebody_else_asks_for_rights() {
    if !is_root() {
        missing("root, to become somebody else");
        return;
    }
    let fixture = Fixture::inline(one_interpreter(), IDLE).unwrap();
    let scratch = Scratch::new().unwrap();
    let run = Profiler::as_nobody("doctor", &scratch).unwrap().pid(&fixture).run().unwrap();
    assert_eq!(run.code(), Some(1), "{}{}", run.stdout, run.stderr);
    for word in ["belongs to root (uid 0)", "setcap cap_sys_ptrace", "sudo "] {
        assert!(run.stdout.contains(word), "no word of {word:?} in\n{}", run.stdout);
    }
    let run = Profiler::as_nobody("doctor", &scratch).unwrap().succeed().unwrap();
    assert!(run.stdout.contains("only processes of your own"), "{}", run.stdout);
}

fn a_process_in_other_namespaces_is_seen_to_be_there() {
    if !is_root() {
        missing("root, to make namespaces");
        return;
    }
    let unshare = ["unshare", "--pid", "--mount", "--fork", "--kill-child"];
    let words: Vec<_> =
        unshare.into_iter().map(Into::into).chain(one_interpreter().inline_words(IDLE)).collect();
    let outer = Fixture::start_words(&words).unwrap();
    let children = format!("/proc/{0}/task/{0}/children", outer.pid());
    let inner = fs::read_to_string(children).unwrap().trim().to_owned();
    let run = Profiler::new("doctor").words("--json --pid").arg(inner).succeed().unwrap();
    let process = &json(&run.stdout).unwrap()["process"];
    assert_eq!(process["inner_pid"], 1, "{process}");
    assert_eq!(process["same_namespace"]["pid"], false, "{process}");
    assert_eq!(process["same_namespace"]["mount"], false, "{process}");
    assert_eq!(process["same_namespace"]["user"], true, "{process}");
    assert_eq!(process["python"]["threads"].as_array().map(Vec::len), Some(1), "{process}");
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(every_python_is_described_as_it_is),
        test!(the_host_is_described_and_record_works_on_it),
        test!(names_reach_the_terminal_as_escapes),
        test!(what_stands_in_the_way_is_said_with_its_remedy),
        test!(a_process_of_somebody_else_asks_for_rights),
        test!(a_process_in_other_namespaces_is_seen_to_be_there),
    ]
}
