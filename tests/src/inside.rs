//! A process in a PID namespace of its own, with the profiler beside it: in a container, as it were.

use std::ffi::OsString;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use profiler_model::LossReason;

use crate::place::{self, within};
use crate::{Collapsed, Fixture, Interpreter, Profiler, Run, Running, Scratch, cpu_nanos};

/// A process that does not work for this long does not work at all.
const LONGEST_WORK: Duration = Duration::from_secs(60);

/// What was lost for these reasons may have been another's. Not that the thread was not found: its own first tick may come
/// before the program knows its thread, and the only thread of a sibling has the same number.
const MISTAKEN: [LossReason; 4] =
    [LossReason::ThreadEnded, LossReason::Unreadable, LossReason::Invalid, LossReason::CodeChanged];

/// A process as this one and the profiler know it.
#[derive(Debug)]
pub struct Inside {
    /// What the process belongs to.
    pub fixture: Fixture,
    /// Its id outside.
    pub outside: u32,
    /// The words that lead to where the profiler is to run.
    pub place: Vec<OsString>,
    /// Its id there.
    pub inside: String,
}

impl Inside {
    /// The process that these words start in a namespace of its own, and the profiler beside it.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(words: Vec<OsString>) -> Result<Self> {
        let fixture = Fixture::command(&within(place::in_own_namespaces(), words))?;
        let outside = fixture.only_child()?;
        Ok(Inside { fixture, outside, place: namespaces_of(outside), inside: "1".to_owned() })
    }

    /// The same in a second namespace within, with the profiler outside of that one.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_nested(words: Vec<OsString>) -> Result<Self> {
        // A shell stays in the first of them, with its `/proc`.
        let shell = ["sh", "-c", "\"$@\"; true", "sh"].map(Into::into).to_vec();
        let first = within(place::in_own_namespaces(), shell);
        let fixture = Fixture::command(&within(within(first, place::in_own_namespaces()), words))?;
        let first = fixture.only_child()?;
        let outside = only_child_of(only_child_of(first)?)?;
        let ids = ids_of(outside)?;
        ensure!(ids.len() == 3 && ids[2] == "1" && ids[1] != "1", "{ids:?}");
        Ok(Inside { fixture, outside, place: namespaces_of(first), inside: ids[1].clone() })
    }

    /// `profiler record` there, to `out.txt` of a folder.
    pub fn record(&self, words: &str, scratch: &Scratch) -> Profiler {
        self.record_in(&self.place, words, scratch)
    }

    /// The same in a place within that one.
    pub fn record_in(&self, place: &[OsString], words: &str, scratch: &Scratch) -> Profiler {
        let profiler = Profiler::within(place, "record").words(words).words("-f raw -o");
        profiler.arg(scratch.file("out.txt")).words("--pid").arg(&self.inside)
    }
}

/// Ends a recording as Ctrl-C does: the profiler itself, as the end of what leads to it would end all of its namespace.
///
/// # Errors
/// When it does not succeed.
pub fn end_profiler(running: Running) -> Result<Run> {
    kill(Pid::from_raw(i32::try_from(running.profiler_pid())?), Signal::SIGINT)?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    Ok(run)
}

/// Ends a recording when the process `pid` has used this much CPU time since it was being sampled.
///
/// # Errors
/// When it does not succeed.
pub fn end_after_cpu_time(mut running: Running, pid: u32, cpu: Duration) -> Result<Run> {
    running.wait_until_sampling()?;
    let limit = Instant::now() + LONGEST_WORK;
    let enough = cpu_nanos(pid)? + u64::try_from(cpu.as_nanos())?;
    while cpu_nanos(pid)? < enough {
        ensure!(Instant::now() < limit, "process {pid} does not work");
        std::thread::sleep(Duration::from_millis(5));
    }
    end_profiler(running)
}

/// What a recording there has written.
///
/// # Errors
/// When it wrote nothing.
pub fn profile_of(scratch: &Scratch) -> Result<Collapsed> {
    Collapsed::parse(&fs::read_to_string(scratch.file("out.txt")).context("no data was written")?)
}

/// The words that lead into the PID and mount namespaces of a process.
fn namespaces_of(pid: u32) -> Vec<OsString> {
    ["nsenter", "--target", &pid.to_string(), "--pid", "--mount"].map(Into::into).to_vec()
}

fn only_child_of(pid: u32) -> Result<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    children.trim().parse().with_context(|| format!("children {children:?} instead of one"))
}

/// The ids by which the namespaces know the process, the innermost last.
fn ids_of(pid: u32) -> Result<Vec<String>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).context("no NSpid")?;
    Ok(ids.split_whitespace().map(str::to_owned).collect())
}

/// Two programs in one, so that both have the same addresses: one is busy, the other comes and goes.
const TWINS: &str = "\
import os, sys, time
def seldom_away():
    while 1:
        for _ in range(10000): pass
def comes_and_goes():
    while 1:
        for _ in range(10000): pass
        time.sleep(0.0005)
print('ready', os.getpid(), flush=True)
{'a': seldom_away, 'b': comes_and_goes}[sys.argv[1]]()
";

/// Starts a command under this id in its namespace, and waits for it.
const UNDER_ID: &str = "\
import ctypes, os, struct, sys
CLONE3 = 435
id = ctypes.c_int(int(sys.argv[1]))
SIGCHLD = 17
arguments = struct.pack('11Q', 0, 0, 0, 0, SIGCHLD, 0, 0, 0, ctypes.addressof(id), 1, 0)
child = ctypes.CDLL(None, use_errno=True).syscall(CLONE3, arguments, len(arguments))
if child == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
assert child == id.value, os.strerror(ctypes.get_errno())
os.waitpid(child, 0)
";

/// The words of one of the twins.
fn twin(interpreter: &Interpreter, which: &str) -> Vec<OsString> {
    let mut words: Vec<OsString> = ["setarch", "-R", "env", "PYTHONHASHSEED=0"].map(Into::into).to_vec();
    words.extend(interpreter.inline_words(TWINS));
    words.push(which.into());
    words
}

/// A process that never sleeps, and others that have its id in their namespaces and its addresses, which sleep often.
#[derive(Debug)]
pub struct Twins {
    /// The one that never sleeps.
    pub busy: Inside,
    /// Keeps the others alive.
    _siblings: Vec<Fixture>,
}

impl Twins {
    /// The sibling has its id outside.
    ///
    /// # Errors
    /// When they do not start.
    pub fn with_id_outside(interpreter: &Interpreter) -> Result<Self> {
        let sibling = Fixture::command(&twin(interpreter, "b"))?;
        let id = sibling.pid().to_string();
        let mut words = interpreter.inline_words(UNDER_ID);
        words.push((&id).into());
        words.extend(twin(interpreter, "a"));
        let parent = Inside::start(words)?;
        let outside = only_child_of(parent.outside)?;
        ensure!(ids_of(outside)?.last() == Some(&id) && outside != sibling.pid(), "{:?}", ids_of(outside)?);
        Ok(Twins { busy: Inside { outside, inside: id, ..parent }, _siblings: vec![sibling] })
    }

    /// All are number 1: the busy one, its sibling in a namespace beside it, and the one in a namespace within.
    ///
    /// # Errors
    /// When they do not start.
    pub fn with_id_within(interpreter: &Interpreter) -> Result<Self> {
        let busy = Inside::start(twin(interpreter, "a"))?;
        let beside = Inside::start(twin(interpreter, "b"))?;
        let deeper = within(busy.place.clone(), place::in_own_namespaces());
        let deeper = Fixture::command(&within(deeper, twin(interpreter, "b")))?;
        Ok(Twins { busy, _siblings: vec![beside.fixture, deeper] })
    }

    /// Checks that only what the busy twin does is shown, and nothing is lost that may have been another's.
    ///
    /// # Errors
    /// When something is.
    pub fn must_be_alone(&self, profile: &Collapsed, run: &Run) -> Result<()> {
        let others = profile.count(|stack| stack.contains("comes_and_goes"));
        let its = profile.count(|stack| stack.contains("seldom_away"));
        ensure!(others == 0 && its > 0, "{its} of it, {others} of its sibling: {profile:?}");
        let ledger = run.ledger()?;
        for reason in MISTAKEN {
            ensure!(ledger.lost_for(&reason.to_string()) == 0, "{ledger:?}");
        }
        Ok(())
    }
}
