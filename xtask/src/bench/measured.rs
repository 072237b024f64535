//! Runs a command and measures what it used: CPU and the most memory it held.
//!
//! The kernel tells a parent what its children used, but the largest memory is that of any child, and counts
//! from before the child's `exec`, when its memory was the parent's. So every command gets a small parent of
//! its own: this very program, told to [`stand_by`] it.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::run;

/// The word that makes this program stand by a command.
pub const STAND_BY: &str = "stand-by";

/// How often is looked for what is waited for.
const GLANCE: Duration = Duration::from_millis(5);

/// How long a command may take from the request to end until it has written what it has to.
const LONGEST_FAREWELL: Duration = Duration::from_secs(30);

/// What a command used in its life.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Usage {
    /// Whether it ended with status 0.
    pub success: bool,
    /// Seconds from its start to its end.
    pub wall: f64,
    /// Seconds of CPU, user and system.
    pub cpu: f64,
    /// The largest resident memory, in bytes.
    pub most_memory: u64,
}

/// Runs the command as the small parent: prints its pid, then what it used. What the command says goes to
/// stderr.
pub fn stand_by(words: &[String]) -> Result<()> {
    let (program, arguments) = words.split_first().context("no command")?;
    let start = Instant::now();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(std::io::stderr().as_fd().try_clone_to_owned()?);
    // A group that nobody outside of it is a parent of obeys no Ctrl-Z.
    command.process_group(0);
    let mut child = command.spawn().with_context(|| program.clone())?;
    println!("{}", child.id());
    let status = child.wait()?;
    let wall = start.elapsed().as_secs_f64();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let usage = Usage {
        success: status.success(),
        wall,
        cpu: seconds(usage.user_time()) + seconds(usage.system_time()),
        most_memory: u64::try_from(usage.max_rss())? * 1024,
    };
    println!("{}", serde_json::to_string(&usage)?);
    Ok(())
}

fn seconds(time: TimeVal) -> f64 {
    time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6
}

/// A command that is being measured. It does not outlive this value.
#[derive(Debug)]
pub struct Measured {
    parent: Child,
    pid: u32,
    report: BufReader<ChildStdout>,
    said: Arc<Mutex<Vec<(Instant, String)>>>,
    listener: Option<JoinHandle<()>>,
}

/// A command that has been measured.
#[derive(Clone, Debug)]
pub struct Ended {
    /// What it used.
    pub usage: Usage,
    /// The lines that it said, and when.
    pub said: Vec<(Instant, String)>,
    /// When it was found to have ended.
    pub at: Instant,
}

impl Measured {
    /// Starts a command.
    pub fn start(words: &[OsString]) -> Result<Self> {
        let mut command = Command::new(run::OWN_PROGRAM);
        command.args(["bench", STAND_BY]).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut parent = command.spawn()?;
        let said = Arc::default();
        let listener = listen(BufReader::new(parent.stderr.take().context("no stderr")?), Arc::clone(&said));
        let mut report = BufReader::new(parent.stdout.take().context("no stdout")?);
        let mut line = String::new();
        report.read_line(&mut line)?;
        let Ok(pid) = line.trim().parse() else {
            parent.wait()?;
            bail!("{words:?} does not start");
        };
        Ok(Measured { parent, pid, report, said, listener: Some(listener) })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.parent.try_wait()?.is_none())
    }

    /// Waits until it has said a line that contains these words, for so long at most; whether it has.
    pub fn says_within(&mut self, words: &str, patience: Duration) -> Result<bool> {
        let said = Arc::clone(&self.said);
        let has_said = || lines(&said).iter().any(|(_, line)| line.contains(words));
        comes_true_within(patience, || Ok(has_said() || !self.is_running()?))?;
        Ok(has_said())
    }

    /// Waits so long for its end, then asks it to end, as Ctrl-C does, and waits on.
    pub fn finish(mut self, patience: Duration) -> Result<Ended> {
        if !self.ends_within(patience)? {
            self.signal(Signal::SIGINT)?;
            ensure!(self.ends_within(LONGEST_FAREWELL)?, "it does not end");
        }
        let at = Instant::now();
        let mut line = String::new();
        self.report.read_line(&mut line)?;
        let usage = serde_json::from_str(&line).with_context(|| format!("report {line:?}"))?;
        let listener = self.listener.take().context("nobody has listened")?;
        ensure!(listener.join().is_ok(), "the listening thread panicked");
        let said = std::mem::take(&mut *lines(&self.said));
        Ok(Ended { usage, said, at })
    }

    fn ends_within(&mut self, patience: Duration) -> Result<bool> {
        comes_true_within(patience, || Ok(!self.is_running()?))
    }

    /// Suspends it, as Ctrl-Z does: it may end first what it must not leave half done. Returns once it stands still.
    pub fn suspend(&self) -> Result<()> {
        self.signal(Signal::SIGTSTP)?;
        let stat = format!("/proc/{}/stat", self.pid);
        let stands_still = || Ok(std::fs::read_to_string(&stat)?.contains(") T "));
        ensure!(comes_true_within(LONGEST_FAREWELL, stands_still)?, "it does not let itself be suspended");
        Ok(())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.pid)?), signal)?)
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        // While the small parent lives, the pid is that of its child and of nobody else.
        if let Ok(true) = self.is_running() {
            let _ = self.signal(Signal::SIGKILL);
        }
        let _ = self.parent.wait();
    }
}

impl Ended {
    /// What it said, as one text.
    pub fn text(&self) -> String {
        self.said.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n")
    }

    /// The line of what it said that tells what went wrong.
    pub fn last_words(&self) -> &str {
        error_line(self.said.iter().map(|(_, line)| line.as_str()))
    }
}

/// Of what a command said, the line that tells what went wrong: that of an `Error: ...`, else the last one.
pub fn error_line<'a>(said: impl Iterator<Item = &'a str> + Clone) -> &'a str {
    let full = said.map(str::trim).filter(|line| !line.is_empty());
    full.clone().find(|line| line.starts_with("Error")).or_else(|| full.last()).unwrap_or("no message")
}

/// Looks again and again for so long whether this is so; whether it was.
fn comes_true_within(patience: Duration, mut is_so: impl FnMut() -> Result<bool>) -> Result<bool> {
    let limit = Instant::now() + patience;
    while !is_so()? {
        if Instant::now() > limit {
            return Ok(false);
        }
        thread::sleep(GLANCE);
    }
    Ok(true)
}

/// Keeps each line that comes with the time at which it came.
fn listen(pipe: impl BufRead + Send + 'static, said: Arc<Mutex<Vec<(Instant, String)>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in pipe.lines().map_while(Result::ok) {
            lines(&said).push((Instant::now(), line));
        }
    })
}

/// What was said up to now.
fn lines(said: &Mutex<Vec<(Instant, String)>>) -> MutexGuard<'_, Vec<(Instant, String)>> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}
