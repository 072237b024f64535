//! `doctor`: its report of a process agrees with what the process is, and with whether `record` works.

use std::fs;

use anyhow::{Context, Result, ensure};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use profiler_tests::suite::{Case, On, Test};
use profiler_tests::{
    Fixture, Interpreter, Profiler, Scratch, is_root, missing, one_interpreter, process_state, test,
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

fn every_python_is_described_as_it_is(case: &Case) -> Result<()> {
    let interpreter = case.interpreter;
    let fixture = Fixture::inline(interpreter, BUSY)?;
    let run = Profiler::new("doctor").words("--json").pid(&fixture).succeed()?;
    let report = json(&run.stdout)?;
    let best = if is_root() { "bpf" } else { "pause" };
    let samplers = &report["samplers"];
    ensure!(report["works"] == true && samplers["record"] == best, "{report}");
    ensure!(samplers["pause"] == true && samplers["bpf"] == is_root(), "{report}");
    let process = &report["process"];
    ensure!(process["pid"] == fixture.pid() && process["tracer"].is_null(), "{process}");
    ensure!(process["kernel_threads"] == 3, "{process}");
    let root = process["root"].as_str().context("root")?;
    let expected = interpreter.root().map(fs::canonicalize).transpose()?;
    ensure!(root == expected.map_or("/".to_owned(), |root| root.display().to_string()), "{root}");
    must_be_described(&process["python"], interpreter, fixture.pid())?;
    ensure!(process_state(fixture.pid())? == 'R', "it does not run on");
    Ok(())
}

fn must_be_described(python: &Value, interpreter: &Interpreter, pid: u32) -> Result<()> {
    let minor = format!("3.{}.", interpreter.minor);
    ensure!(python["version"].as_str().is_some_and(|version| version.starts_with(&minor)), "{python}");
    ensure!(python["free_threaded"] == interpreter.free_threaded, "{python}");
    ensure!(python["interpreters"] == 1, "{python}");
    ensure!(python["gils"] == i32::from(!interpreter.free_threaded), "{python}");
    let threads = python["threads"].as_array().context("threads")?;
    let named: Vec<&str> = threads.iter().filter_map(|thread| thread["name"].as_str()).collect();
    ensure!(named == ["MainThread", "first", "second"], "{named:?}");
    ensure!(threads[0]["thread_id"] == pid, "{python}");
    // A distribution strips its builds; those of pyenv are libraries with symbols.
    let is_stripped = python["stripped"] == true;
    ensure!(is_stripped == interpreter.id.contains('-'), "{python}");
    ensure!(is_stripped || python["found_by"].as_str().is_some_and(|by| by.starts_with("symbol")));
    let module = python["module"].as_str().context("module")?;
    ensure!((python["shared"] == true) == module.contains("libpython"), "{python}");
    Ok(())
}

/// What the report of a host speaks of.
const HOST_WORDS: [&str; 8] = [
    "kernel ",
    "ptrace_scope ",
    "process_vm_readv",
    "perf_event_paranoid",
    "BTF",
    "pause",
    "peek",
    "--kernel ",
];

fn host_is_described_as_it_is() -> Result<()> {
    let run = Profiler::new("doctor").succeed()?;
    for word in HOST_WORDS {
        ensure!(run.stdout.contains(word), "{word:?} is not in\n{}", run.stdout);
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    ensure!(run.stdout.contains(release.trim()), "{}", run.stdout);
    let report = json(&Profiler::new("doctor").words("--json").succeed()?.stdout)?;
    ensure!(report["host"]["uid"] == nix::unistd::geteuid().as_raw(), "{report}");
    let effective = report["host"]["capabilities"]["effective"].as_array().context("effective")?;
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).context("CapEff")?;
    let set = u64::from_str_radix(line.trim(), 16)?;
    let has_ptrace = set & 1 << 19 != 0;
    ensure!(effective.iter().any(|name| name == "CAP_SYS_PTRACE") == has_ptrace, "{report}");
    Ok(())
}

fn must_have_no_control_characters(text: &str) -> Result<()> {
    ensure!(text.chars().all(|char| char == '\n' || !char.is_control()), "{text:?}");
    Ok(())
}

fn names_reach_the_terminal_as_escapes() -> Result<()> {
    let evil = "thread.current_thread().name = 'evil\\x1b[2J\\u009b\\nGIL forged'\n";
    let source = format!("import threading as thread\n{evil}{BUSY}");
    let fixture = Fixture::inline(one_interpreter(), &source)?;
    let holder = "\"evil\\u{1b}[2J\\u{9b}\\nGIL forged\"";
    let run = Profiler::new("doctor").pid(&fixture).succeed()?;
    must_have_no_control_characters(&run.stdout)?;
    let mut lines = run.stdout.lines();
    let gil = lines.find(|line| line.trim_start().starts_with("GIL ")).context("no line of the GIL")?;
    // It is busy, but the GIL is free for an instant whenever the interpreter looks whether another thread wants it.
    ensure!(gil.contains(holder) || gil.contains("free"), "{gil}");
    let run = Profiler::new("doctor").words("--json").pid(&fixture).succeed()?;
    must_have_no_control_characters(&run.stdout)?;
    let name = &json(&run.stdout)?["process"]["python"]["threads"][0]["name"];
    ensure!(*name == "evil\u{1b}[2J\u{9b}\nGIL forged", "{name}");
    Ok(())
}

/// Runs doctor, which must report that `record` would not work, and why; and `record` must agree.
fn must_be_unfit(fixture: &Fixture, words: &[&str]) -> Result<()> {
    let run = Profiler::new("doctor").pid(fixture).run()?;
    ensure!(run.code() == Some(1), "status {:?}\n{}{}", run.status, run.stdout, run.stderr);
    let (_, verdict) = run.stdout.split_once("does not work:").context("no verdict")?;
    for word in words {
        ensure!(verdict.contains(word), "no word of {word:?} in\n{verdict}");
    }
    let report = json(&Profiler::new("doctor").words("--json").pid(fixture).run()?.stdout)?;
    ensure!(report["works"] == false && !report["obstacles"][0]["what"].is_null(), "{report}");
    let scratch = Scratch::new()?;
    // Which sampler it would take is for doctor to find out, too.
    Profiler::new("record").words("-d 0.1 -o").arg(scratch.file("out.svg")).pid(fixture).fail(&[]).map(drop)
}

fn obstacles_are_reported_with_their_remedies() -> Result<()> {
    let fixture = Fixture::inline(one_interpreter(), IDLE)?;
    let pid = Pid::from_raw(i32::try_from(fixture.pid())?);
    kill(pid, Signal::SIGSTOP)?;
    must_be_unfit(&fixture, &["stopped by a signal", &format!("kill -CONT {pid}")])?;
    kill(pid, Signal::SIGCONT)?;
    // This thread traces it until it ends.
    ptrace::seize(pid, ptrace::Options::empty())?;
    must_be_unfit(&fixture, &["is traced by process", "--nonblocking"])?;

    let sleep = Fixture::spawn(&["sleep".into(), "60".into()])?;
    must_be_unfit(&sleep, &["not a Python process"])?;
    let run = Profiler::new("doctor").words("--pid 4194304").run()?;
    ensure!(run.code() == Some(1), "status {:?}", run.status);
    ensure!(run.stdout.contains("there is no process 4194304"), "{}", run.stdout);
    Profiler::new("doctor").words("--pid 0").misuse().map(drop)
}

fn process_of_another_user_asks_for_rights() -> Result<()> {
    if !is_root() {
        missing("root, to become another user");
        return Ok(());
    }
    let fixture = Fixture::inline(one_interpreter(), IDLE)?;
    let scratch = Scratch::new()?;
    let run = Profiler::as_nobody("doctor", &scratch)?.pid(&fixture).run()?;
    ensure!(run.code() == Some(1), "{}{}", run.stdout, run.stderr);
    for word in ["belongs to root (uid 0)", "setcap cap_sys_ptrace", "sudo "] {
        ensure!(run.stdout.contains(word), "no word of {word:?} in\n{}", run.stdout);
    }
    let run = Profiler::as_nobody("doctor", &scratch)?.succeed()?;
    ensure!(run.stdout.contains("only processes of your own"), "{}", run.stdout);
    Ok(())
}

fn process_in_other_namespaces_is_described() -> Result<()> {
    if !is_root() {
        missing("root, to make namespaces");
        return Ok(());
    }
    let unshare = ["unshare", "--pid", "--mount", "--fork", "--kill-child"];
    let words: Vec<_> =
        unshare.into_iter().map(Into::into).chain(one_interpreter().inline_words(IDLE)).collect();
    let outer = Fixture::start_words(&words)?;
    let inner = outer.only_child()?.to_string();
    let run = Profiler::new("doctor").words("--json --pid").arg(inner).succeed()?;
    let process = &json(&run.stdout)?["process"];
    ensure!(process["inner_pid"] == 1, "{process}");
    let same = &process["same_namespace"];
    ensure!(same["pid"] == false && same["mount"] == false && same["user"] == true, "{process}");
    ensure!(process["python"]["threads"].as_array().map(Vec::len) == Some(1), "{process}");
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(every_python_is_described_as_it_is).on(On::Every),
        test!(host_is_described_as_it_is),
        test!(names_reach_the_terminal_as_escapes),
        test!(obstacles_are_reported_with_their_remedies),
        test!(process_of_another_user_asks_for_rights),
        test!(process_in_other_namespaces_is_described),
    ]
}
