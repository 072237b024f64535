//! A running fixture: it has said `ready`, listens on stdin, and does not outlive the test.

use std::ffi::OsString;
use std::io::Write;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::{Interpreter, Lines, cpu_nanos};

/// A fixture that does not work for so long does not work at all.
const LONGEST_WORK: Duration = Duration::from_secs(60);

/// A fixture that has announced its readiness.
#[derive(Debug)]
pub struct Fixture {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines,
    children: Vec<u32>,
}

impl Fixture {
    /// Starts a program of `fixtures/` and waits until it says `ready`.
    pub fn start(interpreter: &Interpreter, program: &str, arguments: &[&str]) -> Result<Self> {
        Fixture::spawn(&interpreter.fixture_words(program, arguments))?.wait_until_ready()
    }

    /// Starts a program given as text and waits until it says `ready`.
    pub fn inline(interpreter: &Interpreter, source: &str) -> Result<Self> {
        Fixture::spawn(&interpreter.inline_words(source))?.wait_until_ready()
    }

    /// Starts any command that says `ready`, and waits until it does.
    pub fn start_words(words: &[OsString]) -> Result<Self> {
        Fixture::spawn(words)?.wait_until_ready()
    }

    /// Starts any command that says `ready` in the end, and waits until it does.
    pub fn command(words: &[OsString]) -> Result<Self> {
        Fixture::spawn(words)?.wait_until_ready()
    }

    /// Starts any command, which says nothing about its readiness.
    pub fn spawn(words: &[OsString]) -> Result<Self> {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{words:?}"))?;
        let stdin = child.stdin.take();
        let lines = Lines::of(child.stdout.take().context("no stdout")?);
        Ok(Fixture { child, stdin, lines, children: Vec::new() })
    }

    /// Waits for the line `ready PID CHILD...`.
    fn wait_until_ready(mut self) -> Result<Self> {
        let line = self.lines.next_line().context("waiting for `ready`")?;
        let rest = line.strip_prefix("ready").with_context(|| format!("{line:?} instead of `ready`"))?;
        let pids: Vec<u32> = rest.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        self.children = pids.into_iter().skip(1).collect();
        Ok(self)
    }

    /// Its process id (a root folder is no PID namespace: inside and outside it is the same).
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process id of its only child, as seen from here: of a command that `unshare` has put into a PID
    /// namespace, where it knows itself by another one.
    pub fn only_child(&self) -> Result<u32> {
        let pid = self.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        children.trim().parse().with_context(|| format!("children {children:?} instead of one"))
    }

    /// The process ids of the children it has announced.
    pub fn children(&self) -> &[u32] {
        &self.children
    }

    /// Waits until it has used so much CPU time from now on: it says that it is ready before it does what it is for.
    pub fn work_for(&self, cpu: Duration) -> Result<()> {
        let limit = Instant::now() + LONGEST_WORK;
        let before = cpu_nanos(self.pid())?;
        while u128::from(cpu_nanos(self.pid())? - before) < cpu.as_nanos() {
            ensure!(Instant::now() < limit, "process {} does not work", self.pid());
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Writes a line to its stdin and returns the line that it answers.
    pub fn ask(&mut self, line: &str) -> Result<String> {
        let stdin = self.stdin.as_mut().context("stdin is closed")?;
        writeln!(stdin, "{line}")?;
        self.lines.next_line().context("waiting for an answer")
    }

    /// The progress that it reports on an empty line.
    pub fn progress(&mut self) -> Result<Value> {
        Ok(serde_json::from_str(&self.ask("")?)?)
    }

    /// Closes its stdin, which ends it.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Ends it and returns the account in its last line.
    pub fn finish(mut self) -> Result<Value> {
        self.close_stdin();
        let last = self.lines.last_line()?;
        self.child.wait()?;
        Ok(serde_json::from_str(&last)?)
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    /// Sends it a signal that ends it, and waits until it has.
    pub fn end_by(&mut self, signal: Signal) -> Result<ExitStatus> {
        kill(Pid::from_raw(self.child.id() as i32), signal)?;
        Ok(self.child.wait()?)
    }

    /// Kills it.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
