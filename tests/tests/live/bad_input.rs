//! Bad input gets a clear error that says what to try, exit status 1 (usage: 2), and leaves nothing behind.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use profiler_tests::labyrinth::judge;
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    Collapsed, Fixture, Profiler, Run, Scratch, is_root, missing, one_interpreter, process_state,
    profiler_path,
};

const LABYRINTH: &str = "labyrinth/labyrinth.py";

fn labyrinth() -> Fixture {
    Fixture::start(one_interpreter(), LABYRINTH, &[]).expect("the labyrinth starts")
}

fn record(scratch: &Scratch) -> Profiler {
    Profiler::new("record").words("-f raw -r 500 -o").arg(scratch.file("out.txt"))
}

fn must_have_written_nothing(scratch: &Scratch) {
    assert!(!scratch.file("out.txt").exists(), "an output file was left behind");
}

/// A pid that surely belongs to nobody: that of a child that has been waited for.
fn nobodys_pid() -> String {
    let mut child = Command::new("true").spawn().expect("a child starts");
    child.wait().expect("and ends");
    child.id().to_string()
}

fn no_such_process() {
    let scratch = Scratch::new().unwrap();
    let pid = nobodys_pid();
    record(&scratch).arg("--pid").arg(&pid).fail(&[&pid]).unwrap();
    must_have_written_nothing(&scratch);
    Profiler::new("dump").arg("--pid").arg(&pid).fail(&["no such process", "no process"]).unwrap();
}

fn a_process_that_has_ended_but_is_not_gone() {
    let scratch = Scratch::new().unwrap();
    let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    // Its stdout is closed when it exits; it stays a zombie until we wait for it.
    let mut stdout = child.stdout.take().unwrap();
    std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
    let pid = child.id().to_string();
    record(&scratch).arg("--pid").arg(&pid).fail(&[&pid]).unwrap();
    must_have_written_nothing(&scratch);
    child.wait().unwrap();
}

fn a_process_of_somebody_else() {
    if !is_root() {
        return missing("a process of another user: becoming somebody else needs root");
    }
    let hints = ["CAP_SYS_PTRACE", "sudo"];
    let scratch = Scratch::new().unwrap();
    let fixture = labyrinth();
    let run = Profiler::as_nobody("dump", &scratch).unwrap().pid(&fixture).fail(&hints).unwrap();
    run.must_say(&["ptrace_scope", "cap-add", "sudo"]).unwrap();
    let run =
        Profiler::as_nobody("record", &scratch).unwrap().words("-f raw -o").arg(scratch.file("out.txt"));
    run.pid(&fixture).fail(&hints).unwrap();
    must_have_written_nothing(&scratch);
}

fn without_rights_a_launched_command_can_still_be_recorded() {
    if !is_root() {
        return missing("running as another user: becoming somebody else needs root");
    }
    let scratch = Scratch::new().unwrap();
    let run = Profiler::as_nobody("record", &scratch).unwrap();
    let run = run.words("-f raw -r 500 -o").arg(scratch.file("out.txt"));
    // The system's interpreter: other users cannot reach those in somebody's home.
    let source = "def work():\n    for _ in range(5000000): pass\nwork()";
    run.command(&["/usr/bin/python3", "-c", source]).succeed().unwrap();
    let text = std::fs::read_to_string(scratch.file("out.txt")).unwrap();
    assert!(Collapsed::parse(&text).unwrap().count(|stack| stack.contains("work")) > 0);
}

fn a_process_without_python() {
    let scratch = Scratch::new().unwrap();
    let cat = Fixture::spawn(&[OsString::from("cat")]).unwrap();
    Profiler::new("dump").pid(&cat).fail(&["python"]).unwrap();
    record(&scratch).pid(&cat).fail(&["python"]).unwrap();
    must_have_written_nothing(&scratch);
}

fn a_command_that_never_becomes_python() {
    let scratch = Scratch::new().unwrap();
    record(&scratch).command(&["true"]).fail(&["python"]).unwrap();
    must_have_written_nothing(&scratch);
}

fn a_command_that_does_not_exist() {
    let scratch = Scratch::new().unwrap();
    record(&scratch).command(&["no-such-command-anywhere"]).fail(&["no-such-command-anywhere"]).unwrap();
    must_have_written_nothing(&scratch);
}

fn an_output_that_cannot_be_written_is_found_before_anything_starts() {
    let scratch = Scratch::new().unwrap();
    let output = scratch.file("no-such-folder").join("out.svg");
    let marker = scratch.file("marker");
    let source = format!("open({:?}, 'w')", marker.display().to_string());
    let words = one_interpreter().inline_words(&source);
    let run = Profiler::new("record").arg("-o").arg(&output).command(&words);
    run.fail(&["no-such-folder"]).unwrap();
    assert!(!marker.exists(), "the command was started");
    let folder = Profiler::new("record").arg("-o").arg(scratch.path()).pid(&labyrinth());
    folder.fail(&["director", "folder"]).unwrap();
}

fn usage() {
    let fixture = labyrinth();
    let scratch = Scratch::new().unwrap();
    for words in [
        "-r 0",
        "-r -5",
        "-r 1000000000000",
        "-r fast",
        "-r nan",
        "-d -1",
        "-d soon",
        "-f nonsense",
        "--no-such-option",
    ] {
        let run = Profiler::new("record").arg("-o").arg(scratch.file("out.txt")).words(words);
        run.pid(&fixture).misuse().unwrap();
        must_have_written_nothing(&scratch);
    }
    Profiler::new("record").misuse().unwrap();
    Profiler::new("record").words("--pid x").misuse().unwrap();
    Profiler::new("record").words("--pid -1").misuse().unwrap();
    Profiler::new("record").pid(&fixture).command(&["true"]).misuse().unwrap();
    Profiler::new("dump").misuse().unwrap();
    Profiler::new("no-such-subcommand").misuse().unwrap();
    assert!(Command::new(profiler_path()).arg("--version").output().unwrap().status.success());
    assert!(Command::new(profiler_path()).arg("--help").output().unwrap().status.success());
}

fn a_target_that_is_killed_while_it_is_recorded() {
    let scratch = Scratch::new().unwrap();
    let mut fixture = labyrinth();
    let mut running = record(&scratch).pid(&fixture).spawn().unwrap();
    running.wait_until_sampling().unwrap();
    fixture.kill().unwrap();
    let run = running.wait().unwrap();
    assert_eq!(run.code(), Some(0), "{run:?}");
    let text = std::fs::read_to_string(scratch.file("out.txt")).unwrap();
    assert!(Collapsed::parse(&text).unwrap().total() > 0);
}

/// Works until a line arrives, then becomes another program.
fn exec_source(program: &str) -> String {
    format!(
        "import os, select\n\
         def before():\n    while not select.select([0], [], [], 0)[0]:\n        for _ in range(1000): pass\n\
         print('ready', os.getpid(), flush=True)\nbefore()\nos.read(0, 100)\n{program}\n"
    )
}

fn a_target_that_becomes_another_program_while_it_is_recorded() {
    let scratch = Scratch::new().unwrap();
    // `cat` answers the line that comes after, so its coming up is announced too.
    let source = exec_source("os.execvp('sh', ['sh', '-c', 'echo up; exec cat'])");
    let mut fixture = Fixture::inline(one_interpreter(), &source).unwrap();
    let mut running = record(&scratch).pid(&fixture).spawn().unwrap();
    running.wait_until_sampling().unwrap();
    assert_eq!(fixture.ask("go").unwrap(), "up");
    fixture.close_stdin();
    let run = running.wait().unwrap();
    assert_eq!(run.code(), Some(0), "{run:?}");
    let text = std::fs::read_to_string(scratch.file("out.txt")).unwrap();
    assert!(Collapsed::parse(&text).unwrap().count(|stack| stack.contains("before")) > 0);
}

/// A stopped target may be looked at or refused, but neither woken up nor waited for without end.
fn must_look_or_say(run: &Run, hints: &[&str]) -> Result<()> {
    match run.code() {
        Some(0) => Ok(()),
        Some(1) => run.must_say(hints),
        _ => anyhow::bail!("{run:?}"),
    }
}

fn send(fixture: &Fixture, signal: Signal) -> Result<()> {
    Ok(kill(Pid::from_raw(i32::try_from(fixture.pid())?), signal)?)
}

fn wait_for_state(fixture: &Fixture, state: char) -> Result<()> {
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while process_state(fixture.pid())? != state {
        ensure!(std::time::Instant::now() < limit, "the target does not reach state {state}");
        std::thread::yield_now();
    }
    Ok(())
}

fn a_target_that_was_stopped_before() {
    let scratch = Scratch::new().unwrap();
    let mut fixture = labyrinth();
    send(&fixture, Signal::SIGSTOP).unwrap();
    wait_for_state(&fixture, 'T').unwrap();
    must_look_or_say(&Profiler::new("dump").pid(&fixture).run().unwrap(), &["stopped"]).unwrap();
    assert_eq!(process_state(fixture.pid()).unwrap(), 'T', "dump has woken it up");
    must_look_or_say(&record(&scratch).words("-d 1").pid(&fixture).run().unwrap(), &["stopped"]).unwrap();
    assert_eq!(process_state(fixture.pid()).unwrap(), 'T', "record has woken it up");
    send(&fixture, Signal::SIGCONT).unwrap();
    fixture.progress().unwrap();
}

fn a_target_that_is_stopped_while_it_is_recorded() {
    let scratch = Scratch::new().unwrap();
    let mut fixture = labyrinth();
    let mut running = record(&scratch).words("-d 2").pid(&fixture).spawn().unwrap();
    running.wait_until_sampling().unwrap();
    send(&fixture, Signal::SIGSTOP).unwrap();
    let run = running.wait().unwrap();
    assert_eq!(run.code(), Some(0), "{run:?}");
    assert_eq!(process_state(fixture.pid()).unwrap(), 'T', "record has woken it up");
    send(&fixture, Signal::SIGCONT).unwrap();
    fixture.progress().unwrap();
    let text = std::fs::read_to_string(scratch.file("out.txt")).unwrap();
    for stack in &Collapsed::parse(&text).unwrap().stacks {
        judge(&stack.frames).unwrap();
    }
}

fn a_target_that_a_debugger_traces() {
    let scratch = Scratch::new().unwrap();
    let mut fixture = labyrinth();
    // This thread is the debugger; a seized process runs on.
    let pid = Pid::from_raw(i32::try_from(fixture.pid()).unwrap());
    ptrace::seize(pid, ptrace::Options::empty()).unwrap();
    must_look_or_say(&Profiler::new("dump").pid(&fixture).run().unwrap(), &["traced", "debugger"]).unwrap();
    let run = record(&scratch).words("-d 1").pid(&fixture).run().unwrap();
    must_look_or_say(&run, &["traced", "debugger"]).unwrap();
    fixture.progress().unwrap();
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(no_such_process),
        test!(a_process_that_has_ended_but_is_not_gone),
        test!(a_process_of_somebody_else),
        test!(without_rights_a_launched_command_can_still_be_recorded),
        test!(a_process_without_python),
        test!(a_command_that_never_becomes_python),
        test!(a_command_that_does_not_exist),
        test!(an_output_that_cannot_be_written_is_found_before_anything_starts),
        test!(usage),
        test!(a_target_that_is_killed_while_it_is_recorded),
        test!(a_target_that_becomes_another_program_while_it_is_recorded),
        test!(a_target_that_was_stopped_before),
        test!(a_target_that_is_stopped_while_it_is_recorded),
        test!(a_target_that_a_debugger_traces),
    ]
}
