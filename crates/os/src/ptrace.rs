//! Stopping one thread for a moment.
//!
//! [`Tracer::stop`] seizes a thread and interrupts it; dropping the [`StoppedThread`] lets it run on.
//! Nothing stays behind in the thread: a signal that was just about to be delivered is delivered on
//! release, a thread under a stop signal stays stopped, and if this process dies the kernel releases the
//! thread itself (`PTRACE_O_EXITKILL` is never set).
//!
//! `nix` cannot be used for waiting: it fails on real-time signals, whose number its enum lacks, after the
//! kernel has handed the report over, and the thread would stay stopped.

use std::cell::Cell;
use std::hint;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::time::TimeSpec;
use profiler_model::{Nanos, Registers, SchedStat, Tid, Timestamp};

use crate::clock;
use crate::guardian::note_hold;
use crate::proc::ThreadFiles;
use crate::proc_file::parsed;

/// For so long a stop is waited for by looking again and again: it mostly comes within a few
/// microseconds, sooner than a sleeping waiter could be woken.
const SPIN: Nanos = Nanos::from_nanos(20_000);
/// A thread that has not stopped by then is inside the kernel and will not stop soon. On a busy machine a
/// thread that is ready to run stops only when its turn comes, which takes tens of milliseconds.
const MAX_WAIT: Nanos = Nanos::from_nanos(200_000_000);

/// How long threads that would not stop are waited for, to let them go.
const MAX_LATE_WAIT: Nanos = Nanos::from_nanos(1_000_000_000);

/// The gap between two looks at threads that stop late.
const LATE_LOOK_GAP: Nanos = Nanos::from_nanos(1_000_000);

/// Why a thread could not be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// The thread has ended.
    #[error("the thread has ended")]
    Ended,
    /// The operating system refuses, or another tracer has the thread.
    #[error("tracing the thread is not permitted, or another tracer has it")]
    NotPermitted,
    /// It did not stop in time; it is let go as soon as it does.
    #[error("the thread did not stop in time")]
    TimedOut,
    /// It is stopped by a signal (`SIGSTOP`) already.
    #[error("the thread is stopped by a signal")]
    StoppedBySignal,
}

/// Stops threads, one at a time, and remembers those that did not stop in time.
///
/// The thread that makes a tracer has `SIGCHLD` blocked from then on, which is how it is woken when a thread
/// stops; it must be the thread that stops others.
#[derive(Debug)]
pub struct Tracer {
    /// Asked to stop, and inside an uninterruptible wait of the kernel ever since.
    late: Vec<Tid>,
}

impl Default for Tracer {
    fn default() -> Self {
        // Cannot fail: the signal exists. Unblocked, it would be ignored and wake nobody.
        let _ = only_sigchld().thread_block();
        Tracer { late: Vec::new() }
    }
}

fn only_sigchld() -> SigSet {
    SigSet::from(Signal::SIGCHLD)
}

impl Tracer {
    /// A tracer that has not stopped anything.
    pub fn new() -> Self {
        Tracer::default()
    }

    /// Stops `tid` and returns once it stands still.
    ///
    /// # Errors
    /// See [`StopError`]; the thread then runs on.
    pub fn stop(&mut self, tid: Tid) -> Result<StoppedThread, StopError> {
        if self.late.contains(&tid) {
            return Err(StopError::TimedOut);
        }
        // Before it is asked to stop: it may do so when this process does not run any more.
        note_hold(true);
        let stopped = self.try_to_stop(tid);
        note_hold(is_holding() || stopped.is_ok());
        stopped
    }

    fn try_to_stop(&mut self, tid: Tid) -> Result<StoppedThread, StopError> {
        seize(tid)?;
        // One that has ended since it was seized would stay a zombie until its tracer has taken note.
        if let Err(error) = interrupt(tid) {
            let _ = poll(tid);
            return Err(error);
        }
        match wait_until_stopped(tid) {
            Ok(Waited { stop: Stop::Group, .. }) => {
                detach(tid, 0);
                Err(StopError::StoppedBySignal)
            }
            Ok(waited) => {
                HELD.set(HELD.get() + 1);
                Ok(StoppedThread { tid, waited, released: false })
            }
            Err(StopError::TimedOut) => {
                self.late.push(tid);
                Err(StopError::TimedOut)
            }
            Err(error) => Err(error),
        }
    }

    /// Lets go of the threads that stopped too late; to be called between samples.
    pub fn release_late(&mut self) {
        self.late.retain(|tid| match poll(*tid) {
            Ok(None) => true,
            Ok(Some(stop)) => {
                detach(*tid, stop.to_deliver());
                false
            }
            Err(_) => false,
        });
    }

    /// The same, waiting for them for at most a second.
    pub fn release_all(&mut self) {
        let deadline = clock::now() + MAX_LATE_WAIT;
        while self.has_late() && clock::now() < deadline {
            self.release_late();
            clock::sleep_until(clock::now() + LATE_LOOK_GAP);
        }
    }

    /// Whether some thread is still to be let go.
    pub fn has_late(&self) -> bool {
        !self.late.is_empty()
    }
}

thread_local! {
    /// How many threads the calling thread holds stopped.
    static HELD: Cell<u32> = const { Cell::new(0) };
}

/// Whether the calling thread holds another one stopped.
pub(crate) fn is_holding() -> bool {
    HELD.get() > 0
}

/// A thread that stands still; it runs on when this is dropped.
#[derive(Debug)]
pub struct StoppedThread {
    tid: Tid,
    waited: Waited,
    released: bool,
}

impl StoppedThread {
    /// Whether it did not stop at once: it was ready to run, but other threads had the CPUs.
    pub fn had_to_be_waited_for(&self) -> bool {
        self.waited.slept
    }

    /// The registers that the thread has in user space: if it is in a system call, those of the call.
    ///
    /// # Errors
    /// [`StopError::Ended`] when it was killed meanwhile.
    pub fn registers(&self) -> Result<Registers, StopError> {
        let raw = nix::unistd::Pid::from_raw(self.tid.as_u32() as i32);
        let registers = nix::sys::ptrace::getregs(raw).map_err(refusal)?;
        Ok(user_registers(&registers))
    }

    /// Lets the thread run on; returns how long it stood still at most. `files` are those of the thread, and
    /// `before` what its scheduler had counted before the stop: a thread that had to wait for a CPU first did
    /// not stand still on our account while it waited.
    pub fn release(mut self, files: &ThreadFiles, before: &SchedStat) -> Nanos {
        self.let_go();
        let now = clock::now();
        let mut since = self.waited.not_before;
        if self.waited.slept
            && let Ok(after) = files.schedule()
        {
            since = (since + after.queued.saturating_sub(before.queued)).min(self.waited.seen);
        }
        now.since(since)
    }

    fn let_go(&mut self) {
        if !self.released {
            self.released = true;
            HELD.set(HELD.get() - 1);
            detach(self.tid, self.waited.stop.to_deliver());
            note_hold(is_holding());
        }
    }
}

impl Drop for StoppedThread {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// The registers in the numbering of DWARF.
fn user_registers(registers: &libc::user_regs_struct) -> Registers {
    Registers {
        general: [
            registers.rax,
            registers.rdx,
            registers.rcx,
            registers.rbx,
            registers.rsi,
            registers.rdi,
            registers.rbp,
            registers.rsp,
            registers.r8,
            registers.r9,
            registers.r10,
            registers.r11,
            registers.r12,
            registers.r13,
            registers.r14,
            registers.r15,
        ],
        instruction_pointer: registers.rip,
    }
}

/// How a traced thread stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// It was interrupted.
    Interrupted,
    /// Just before the signal of this number is delivered to it.
    BeforeSignal(i32),
    /// Under a stop signal.
    Group,
}

impl Stop {
    /// From the kernel's report: the signal number, and above it the ptrace event.
    fn from_status(status: i32) -> Stop {
        let signal = status & 0x7f;
        match status >> 8 {
            0 => Stop::BeforeSignal(signal),
            _ if signal == libc::SIGTRAP => Stop::Interrupted,
            _ => Stop::Group,
        }
    }

    fn to_deliver(self) -> i32 {
        match self {
            Stop::BeforeSignal(signal) => signal,
            Stop::Interrupted | Stop::Group => 0,
        }
    }
}

/// A thread that stands still, and what is known of when it began to.
#[derive(Clone, Copy, Debug)]
struct Waited {
    stop: Stop,
    /// The last instant at which it was not known to stand still yet.
    not_before: Timestamp,
    /// The instant at which it was seen.
    seen: Timestamp,
    /// Whether this process slept in between.
    slept: bool,
}

/// Waits for the thread to stand still.
fn wait_until_stopped(tid: Tid) -> Result<Waited, StopError> {
    let asked_at = clock::now();
    let mut not_before = asked_at;
    loop {
        let stop = poll(tid)?;
        let seen = clock::now();
        let waited = seen.since(asked_at);
        match stop {
            Some(stop) => return Ok(Waited { stop, not_before, seen, slept: waited > SPIN }),
            None if waited > MAX_WAIT => return Err(StopError::TimedOut),
            // It does not run, but waits for a CPU: perhaps for ours, so it can only stop while we sleep.
            None if waited > SPIN => sleep_until_child_signal(MAX_WAIT.saturating_sub(waited)),
            None => {
                not_before = seen;
                hint::spin_loop();
            }
        }
    }
}

/// Sleeps until the kernel says that some traced thread or child has something to report, at most so long.
fn sleep_until_child_signal(limit: Nanos) {
    let timeout = TimeSpec::from_duration(Duration::from(limit));
    // SAFETY: both structures are valid and outlive the call, which only reads them; the null pointer says
    // that no details of the signal are wanted.
    unsafe { libc::sigtimedwait(only_sigchld().as_ref(), std::ptr::null_mut(), timeout.as_ref()) };
}

/// Whether the thread stands still, and how. The report is only looked at (`WNOWAIT`): releasing the
/// thread discards it, and the exit of a command that this process launched is left to whoever waits
/// for that command.
fn poll(tid: Tid) -> Result<Option<Stop>, StopError> {
    let flags = libc::WSTOPPED | libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    let report = waitid(tid, flags)?;
    match report {
        None => Ok(None),
        Some((libc::CLD_TRAPPED | libc::CLD_STOPPED, status)) => Ok(Some(Stop::from_status(status))),
        Some(_) => {
            if !is_own_child(tid) {
                // A traced thread that ends stays a zombie until its tracer has taken note.
                let _ = waitid(tid, libc::WEXITED | libc::WNOHANG | libc::__WALL);
            }
            Err(StopError::Ended)
        }
    }
}

/// Whether `tid` is the main thread of a process that this process started.
fn is_own_child(tid: Tid) -> bool {
    let status = parsed::<procfs::process::Status>(Path::new(&format!("/proc/{tid}/status")));
    status.is_ok_and(|status| {
        status.tgid.cast_unsigned() == tid.as_u32() && status.ppid.cast_unsigned() == std::process::id()
    })
}

fn seize(tid: Tid) -> Result<(), StopError> {
    let raw = nix::unistd::Pid::from_raw(tid.as_u32() as i32);
    nix::sys::ptrace::seize(raw, nix::sys::ptrace::Options::empty()).map_err(refusal)
}

fn interrupt(tid: Tid) -> Result<(), StopError> {
    let raw = nix::unistd::Pid::from_raw(tid.as_u32() as i32);
    nix::sys::ptrace::interrupt(raw).map_err(refusal)
}

fn refusal(errno: Errno) -> StopError {
    match errno {
        Errno::ESRCH => StopError::Ended,
        _ => StopError::NotPermitted,
    }
}

/// Lets a stopped thread run on, delivering `signal` to it unless that is 0. Fails only when the thread
/// was killed meanwhile, and then there is nothing to let go.
fn detach(tid: Tid, signal: i32) {
    // SAFETY: PTRACE_DETACH takes two numbers, a thread id and a signal, and touches no memory of ours.
    unsafe { libc::ptrace(libc::PTRACE_DETACH, tid.as_u32() as libc::pid_t, 0usize, signal as usize) };
}

/// The kernel's report on `tid`, as (`si_code`, `si_status`), or `None` where there is none.
fn waitid(tid: Tid, flags: i32) -> Result<Option<(i32, i32)>, StopError> {
    // SAFETY: siginfo_t is plain data for which all zeroes is a valid value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is a valid siginfo_t that outlives the call, which writes nothing else.
    let result = unsafe { libc::waitid(libc::P_PID, tid.as_u32(), &mut info, flags) };
    if result != 0 {
        return match Errno::last() {
            Errno::EINTR => Ok(None),
            _ => Err(StopError::Ended),
        };
    }
    // SAFETY: waitid succeeded, so `info` holds either a report on a child, for which si_pid and
    // si_status are the valid members, or zeroes throughout.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok((pid != 0).then_some((info.si_code, status)))
}
