//! The binary under test, with a limit on its time.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::place::NOBODY;
use crate::process::{cpu_nanos, voluntary_switches};
use crate::{Fixture, Ledger, LoweredLimit, Scratch, UsualLimit, cache};

/// A run that takes longer hangs. The longest one of the tests takes some seconds.
const LONGEST_RUN: Duration = Duration::from_secs(90);

/// What a recording writes when its start-up is over. A busy machine may take seconds for that, most of them asleep.
const BEGINNING: &str = "Sampling process ";

/// The sleeps between samples, counted since start-up was over, after which samples were taken for certain.
const SLEEPS_WHEN_SAMPLING: u64 = 20;

/// The same where nothing says when start-up is over, which has far fewer itself on a machine that is not busy.
const SLEEPS_WITH_START: u64 = 60;

/// The file of a recording's ledger, in a folder of its own.
const LEDGER_FILE: &str = "ledger.json";

/// What the binary is called.
const NAME: &str = "profiler";

/// The same where samples are taken in the kernel and read twenty times a second: counted since its clocks are there, too.
const SLEEPS_WHEN_KERNEL_SAMPLES: u64 = 4;

/// The binary: `PROFILER_BIN`, which `cargo xtask test` sets, or the release build.
///
/// # Panics
/// When it is not there.
pub fn profiler_path() -> PathBuf {
    let built = || cache::target_folder().join("release/profiler");
    let path = std::env::var_os("PROFILER_BIN").map_or_else(built, PathBuf::from);
    assert!(path.exists(), "no binary at {}: `cargo build --release` makes it", path.display());
    path
}

/// A run of the binary that is being put together.
#[derive(Debug)]
pub struct Profiler {
    command: Command,
    /// Whether it is to run while the kernel's limit to the rate of samples is lowered.
    lowered: bool,
    /// Whether it writes when its start-up is over.
    is_recording: bool,
    /// Where a recording writes its ledger.
    ledger: Option<Scratch>,
}

/// What records.
const RECORD: &str = "record";

impl Profiler {
    /// `profiler SUBCOMMAND`. A recording may use as much CPU time as it takes: tests ask for rates at which it uses more
    /// than it usually may.
    pub fn new(subcommand: &str) -> Self {
        Profiler::by(Command::new(profiler_path()), subcommand)
    }

    /// `profiler SUBCOMMAND`, which may use no more CPU time than it usually may.
    pub fn with_usual_limit(subcommand: &str) -> Self {
        Profiler::with_ledger(Command::new(profiler_path()), subcommand)
    }

    /// `profiler SUBCOMMAND` as the user nobody, with a copy of the binary that nobody can reach.
    pub fn as_nobody(subcommand: &str, scratch: &Scratch) -> Result<Self> {
        let copy = scratch.file("profiler");
        std::fs::copy(profiler_path(), &copy)?;
        let mut command = Command::new(copy);
        command.uid(NOBODY).gid(NOBODY).current_dir(scratch.path());
        Ok(Profiler::by(command, subcommand))
    }

    /// `profiler SUBCOMMAND` in another place: behind the words that lead there.
    pub fn within(place: &[OsString], subcommand: &str) -> Self {
        let mut command = Command::new(&place[0]);
        command.args(&place[1..]).arg(profiler_path());
        Profiler::by(command, subcommand)
    }

    /// The same with a copy of the binary that is within reach there, where no file of the test may be: it has no ledger.
    pub fn binary_within(place: &[OsString], binary: &Path, subcommand: &str) -> Self {
        let mut command = Command::new(&place[0]);
        command.args(&place[1..]).arg(binary);
        Profiler::of(command, subcommand)
    }

    /// The words so far run the binary; a recording has no limit to its CPU time.
    fn by(command: Command, subcommand: &str) -> Self {
        let profiler = Profiler::with_ledger(command, subcommand);
        if subcommand == RECORD { profiler.words("--max-cpu 100") } else { profiler }
    }

    /// The words so far run the binary; a recording writes its ledger where the test finds it.
    fn with_ledger(command: Command, subcommand: &str) -> Self {
        let mut profiler = Profiler::of(command, subcommand);
        if subcommand == RECORD {
            let scratch = Scratch::new().expect("a folder for the ledger");
            profiler = profiler.words("--ledger-json").arg(scratch.file(LEDGER_FILE));
            profiler.ledger = Some(scratch);
        }
        profiler
    }

    fn of(mut command: Command, subcommand: &str) -> Self {
        command.arg(subcommand).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Profiler { command, lowered: false, is_recording: subcommand == RECORD, ledger: None }
    }

    /// Changes its environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// More words of the command line, separated by white space.
    pub fn words(mut self, words: &str) -> Self {
        self.command.args(words.split_whitespace());
        self
    }

    /// One more word.
    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.command.arg(word);
        self
    }

    /// `--pid` of a fixture.
    pub fn pid(self, fixture: &Fixture) -> Self {
        self.words(&format!("--pid {}", fixture.pid()))
    }

    /// `-- COMMAND...`
    pub fn command(mut self, words: &[impl AsRef<OsStr>]) -> Self {
        self.command.arg("--").args(words);
        self
    }

    /// Gives it a pipe as stdin.
    pub fn with_stdin(mut self) -> Self {
        self.command.stdin(Stdio::piped());
        self
    }

    /// Runs it under a limit to the rate of samples that its test has lowered; else nobody may lower it meanwhile.
    pub fn under(mut self, _limit: &LoweredLimit) -> Self {
        self.lowered = true;
        self
    }

    /// Starts it.
    pub fn spawn(mut self) -> Result<Running> {
        let limit = if self.lowered { None } else { Some(UsualLimit::hold()?) };
        let mut child = self.command.spawn().with_context(|| format!("{:?}", self.command))?;
        let stdin = child.stdin.take();
        let stdout = Output::of(child.stdout.take().context("no stdout")?);
        let stderr = Output::of(child.stderr.take().context("no stderr")?);
        Ok(Running {
            child,
            stdin,
            outputs: Some((stdout, stderr)),
            is_recording: self.is_recording,
            ledger: self.ledger,
            _limit: limit,
        })
    }

    /// Runs it to its end.
    pub fn run(self) -> Result<Run> {
        self.spawn()?.wait()
    }

    /// Runs it to its end, which must be a success.
    pub fn succeed(self) -> Result<Run> {
        let run = self.run()?;
        ensure!(run.code() == Some(0), "status {:?}\n{}", run.status, run.stderr);
        Ok(run)
    }

    /// Runs it to its end, which must be a failure of ours (status 1) with a message that speaks of any of
    /// `hints`; and nothing may have panicked.
    pub fn fail(self, hints: &[&str]) -> Result<Run> {
        let run = self.run()?;
        ensure!(run.code() == Some(1), "status {:?} instead of 1\n{}", run.status, run.stderr);
        run.must_say(hints)?;
        Ok(run)
    }

    /// Runs it to its end, which must be a complaint about the usage (status 2).
    pub fn misuse(self) -> Result<Run> {
        let what = format!("{:?}", self.command);
        let run = self.run()?;
        ensure!(run.code() == Some(2), "{what}: status {:?} instead of 2\n{}", run.status, run.stderr);
        run.must_say(&[])?;
        Ok(run)
    }
}

/// What comes out of a pipe, read by a thread of its own.
#[derive(Debug)]
struct Output {
    so_far: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Output {
    fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let so_far = Arc::new(Mutex::new(Vec::new()));
        let read = so_far.clone();
        let reader = thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut part) {
                read.lock().expect("no thread panics with it").extend(&part[..length]);
            }
        });
        Output { so_far, reader }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.so_far.lock().expect("no thread panics with it")).into_owned()
    }

    /// All of it, once the pipe is closed.
    fn whole(self) -> Result<String> {
        let Output { so_far, reader } = self;
        reader.join().ok().context("a reading thread panicked")?;
        let bytes = so_far.lock().expect("no thread panics with it");
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Whether a process has the kernel tick for it: events alone are not enough, as looks from outside need some too.
fn has_kernel_clocks(pid: u32) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let open: Vec<PathBuf> =
        descriptors.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect();
    let has = |what: &str| open.iter().any(|path| path.as_os_str() == what);
    has("anon_inode:[perf_event]") && has("anon_inode:bpf-prog")
}

/// A run that is under way.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Its stdin, if it was asked for.
    pub stdin: Option<ChildStdin>,
    /// Its stdout and stderr, until its end.
    outputs: Option<(Output, Output)>,
    is_recording: bool,
    ledger: Option<Scratch>,
    /// Nobody lowers it while this runs.
    _limit: Option<UsualLimit>,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.pid())?), signal)?)
    }

    /// The process id of the profiler itself: words that lead to another place may have started it as a child.
    pub fn profiler_pid(&self) -> u32 {
        let mut pid = self.pid();
        let name = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let children = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        while name(pid).trim() != NAME
            && let Some(child) =
                children(pid).ok().and_then(|pids| pids.split_whitespace().next()?.parse().ok())
        {
            pid = child;
        }
        pid
    }

    /// Returns when samples have been taken for certain: its start-up is over, and it has slept between samples since. Needs
    /// a rate of 100 Hz or more.
    pub fn wait_until_sampling(&mut self) -> Result<()> {
        let limit = Instant::now() + LONGEST_RUN;
        let mut enough = if self.is_recording { None } else { Some(SLEEPS_WITH_START) };
        let mut has_clocks = false;
        loop {
            if enough.is_none() && self.stderr_so_far().contains(BEGINNING) {
                enough = Some(self.sleeps() + SLEEPS_WHEN_SAMPLING);
            }
            if enough.is_some() && !has_clocks && has_kernel_clocks(self.profiler_pid()) {
                has_clocks = true;
                enough = Some(self.sleeps() + SLEEPS_WHEN_KERNEL_SAMPLES);
            }
            if enough.is_some_and(|enough| self.sleeps() >= enough) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the profiler ended before it sampled: {status:?}\n{}", self.stderr_so_far());
            }
            ensure!(
                Instant::now() < limit,
                "the profiler does not begin to sample: {}",
                self.stderr_so_far()
            );
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Returns when it says that it samples, with the instant.
    ///
    /// # Errors
    /// When it ends before.
    pub fn wait_until_begun(&mut self) -> Result<Instant> {
        let limit = Instant::now() + LONGEST_RUN;
        loop {
            let now = Instant::now();
            if self.stderr_so_far().contains(BEGINNING) {
                return Ok(now);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the profiler ended before it sampled: {status:?}\n{}", self.stderr_so_far());
            }
            ensure!(now < limit, "the profiler does not begin to sample: {}", self.stderr_so_far());
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// How often it has gone to sleep.
    fn sleeps(&self) -> u64 {
        voluntary_switches(self.profiler_pid()).unwrap_or(0)
    }

    /// Returns what it has written to stderr as soon as that contains `text`.
    pub fn wait_for_message(&mut self, text: &str) -> Result<String> {
        let limit = Instant::now() + LONGEST_RUN;
        loop {
            // Before the look: it may write and end in between.
            let status = self.child.try_wait()?;
            let messages = self.stderr_so_far();
            if messages.contains(text) {
                return Ok(messages);
            }
            ensure!(status.is_none(), "it ended ({status:?}) and did not say {text:?}\n{messages}");
            ensure!(Instant::now() < limit, "it does not say {text:?}\n{messages}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// What it has written to stderr.
    pub fn stderr_so_far(&self) -> String {
        self.outputs.as_ref().map(|(_, stderr)| stderr.so_far()).unwrap_or_default()
    }

    /// Ends it as Ctrl-C does when the process `pid` has used so much CPU time since it was being sampled: on a busy
    /// machine that takes longer, and gives as many samples.
    pub fn end_after_cpu_time(mut self, pid: u32, cpu: Duration) -> Result<Run> {
        self.wait_until_sampling()?;
        let limit = Instant::now() + LONGEST_RUN;
        let enough = cpu_nanos(pid)? + u64::try_from(cpu.as_nanos())?;
        while cpu_nanos(pid)? < enough {
            ensure!(Instant::now() < limit, "the target does not work");
            thread::sleep(Duration::from_millis(5));
        }
        self.signal(Signal::SIGINT)?;
        let run = self.wait()?;
        ensure!(run.code() == Some(0), "status {:?}\n{}", run.status, run.stderr);
        Ok(run)
    }

    /// Kills it at once and waits until it is gone.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Result<Run> {
        drop(self.stdin.take());
        let limit = Instant::now() + LONGEST_RUN;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < limit, "the profiler does not end");
            thread::sleep(Duration::from_millis(1));
        };
        let (stdout, stderr) = self.outputs.take().context("waited for twice")?;
        let ledger = self.ledger.take().and_then(|folder| std::fs::read(folder.file(LEDGER_FILE)).ok());
        let ledger = ledger.map(|json| Ledger::read(&serde_json::from_slice(&json)?)).transpose()?;
        Ok(Run { status, stdout: stdout.whole()?, stderr: stderr.whole()?, ledger })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A run that has ended.
#[derive(Clone, Debug)]
pub struct Run {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
    ledger: Option<Ledger>,
}

impl Run {
    /// Its exit status, unless a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The ledger of a recording.
    ///
    /// # Errors
    /// When it was none, or it ended before it wrote its ledger.
    pub fn ledger(&self) -> Result<&Ledger> {
        self.ledger.as_ref().with_context(|| format!("no ledger: {}", self.stderr))
    }

    /// For how long it sampled, in seconds.
    ///
    /// # Errors
    /// As for [`Run::ledger`].
    pub fn sampled_for(&self) -> Result<f64> {
        Ok(self.ledger()?.duration)
    }

    /// The signal that ended it.
    pub fn ending_signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Its message must speak of any of `hints` (of anything, when there are none) and must not be a panic.
    pub fn must_say(&self, hints: &[&str]) -> Result<()> {
        ensure!(!self.stderr.contains("panicked"), "a panic:\n{}", self.stderr);
        ensure!(!self.stderr.trim().is_empty(), "no message");
        let message = self.stderr.to_lowercase();
        let said = hints.is_empty() || hints.iter().any(|hint| message.contains(&hint.to_lowercase()));
        ensure!(said, "the message says none of {hints:?}:\n{}", self.stderr);
        Ok(())
    }
}
