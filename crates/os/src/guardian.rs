//! A helper process that keeps a traced thread from staying stopped because the profiler itself is stopped: `SIGSTOP` cannot
//! be handled, and a stopped tracer releases no thread.
//!
//! If the profiler is stopped while it holds a thread, the guardian continues it until it has released the thread, which
//! takes some microseconds, and stops it again. The guardian has a session of its own, so that signals to the process group do
//! not reach it, and the kernel ends it with the thread that started it. It cannot help where both are suspended at once, as
//! in a frozen control group.
//!
//! It is forked from a process that may have threads, so it must not allocate: it reads and parses `stat` here, without
//! the crate `procfs`.

use std::ffi::CString;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid as UnixPid, fork};

/// The guardian looks this often; a thread that is held at two looks is held for too long.
const LOOK_GAP_NANOS: libc::c_long = 20_000_000;

/// Time between two checks whether the continued profiler has released its thread.
const GLANCE_NANOS: libc::c_long = 200_000;

/// After this many checks without a release, the profiler has not got a CPU yet. It is stopped, and continued again at the next
/// look.
const MAX_GLANCES: u32 = 5000;

/// Odd while a thread is held or asked to stop. It lies in memory that the guardian shares.
static HOLDS: OnceLock<&'static AtomicU64> = OnceLock::new();

/// Notes that a thread is going to be held, or is not held any more. Of no use before there is a guardian.
pub(crate) fn note_hold(is_held: bool) {
    if let Some(holds) = HOLDS.get() {
        let now = holds.load(Ordering::Relaxed);
        if (now % 2 == 1) != is_held {
            holds.store(now + 1, Ordering::Release);
        }
    }
}

/// The guardian; it ends when this is dropped.
#[derive(Debug)]
pub struct Guardian {
    child: UnixPid,
}

impl Guardian {
    /// Starts it, for threads that the calling thread will hold.
    ///
    /// # Errors
    /// When there can be no other process.
    pub fn start() -> io::Result<Self> {
        let holds = match HOLDS.get() {
            Some(holds) => *holds,
            None => {
                let shared = shared_counter()?;
                *HOLDS.get_or_init(|| shared)
            }
        };
        let parent = std::process::id().cast_signed();
        let stat = CString::new(format!("/proc/{parent}/stat"))?;
        // SAFETY: the child calls nothing but `guard`, which does nothing that is unsafe between `fork` and `exec` whatever
        // other threads held when it was made.
        match unsafe { fork() }? {
            ForkResult::Child => guard(parent, &stat, holds),
            ForkResult::Parent { child } => Ok(Guardian { child }),
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = kill(self.child, Signal::SIGKILL);
        let _ = waitpid(self.child, None);
    }
}

/// A counter in a page that children share.
fn shared_counter() -> io::Result<&'static AtomicU64> {
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping anywhere, of nothing, touches no memory that is in use.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<AtomicU64>(), access, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is never removed; it is aligned to a page, and all zeroes are a valid counter.
    Ok(unsafe { &*page.cast::<AtomicU64>() })
}

/// What the guardian does, until the kernel ends it. Nothing here allocates or takes a lock.
fn guard(parent: libc::pid_t, stat: &CString, holds: &AtomicU64) -> ! {
    // SAFETY: the calls take plain numbers, and are safe between `fork` and `exec`.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::setsid();
    }
    let mut before = 0;
    loop {
        // SAFETY: the call takes nothing. Without this look, a parent that died before `prctl` would be missed.
        if unsafe { libc::getppid() } != parent {
            // SAFETY: the call takes a plain number and does not return.
            unsafe { libc::_exit(0) };
        }
        sleep(LOOK_GAP_NANOS);
        let now = holds.load(Ordering::Acquire);
        if now % 2 == 1 && now == before && is_stopped(stat) {
            let_go(parent, now, holds);
        }
        before = now;
    }
}

/// Lets the process run on until it has let go of what it holds, and stops it again.
fn let_go(parent: libc::pid_t, held: u64, holds: &AtomicU64) {
    // SAFETY: the call takes plain numbers; the parent is there as long as this process is.
    unsafe { libc::kill(parent, libc::SIGCONT) };
    for _ in 0..MAX_GLANCES {
        if holds.load(Ordering::Acquire) != held {
            break;
        }
        sleep(GLANCE_NANOS);
    }
    // SAFETY: as above.
    unsafe { libc::kill(parent, libc::SIGSTOP) };
}

fn sleep(nanos: libc::c_long) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: nanos };
    // SAFETY: the structure is valid and only read; the null pointer says that the rest is not wanted.
    unsafe { libc::nanosleep(&time, std::ptr::null_mut()) };
}

/// Whether a stop signal has stopped the process whose `stat` file this is.
fn is_stopped(stat: &CString) -> bool {
    let mut text = [0u8; 256];
    // SAFETY: the path is valid and ends with a zero byte.
    let file = unsafe { libc::open(stat.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if file < 0 {
        return false;
    }
    // SAFETY: at most as many bytes are written as the buffer has.
    let length = unsafe { libc::read(file, text.as_mut_ptr().cast(), text.len()) };
    // SAFETY: the descriptor was opened above and is used no more.
    unsafe { libc::close(file) };
    state_of(text.get(..usize::try_from(length).unwrap_or(0)).unwrap_or_default()) == Some(b'T')
}

/// The state in a line of `stat`: behind the name, which may hold anything.
fn state_of(text: &[u8]) -> Option<u8> {
    let name_end = text.iter().rposition(|byte| *byte == b')')?;
    text.get(name_end + 2).copied()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use profiler_model::{Pid, Tid};

    use super::*;
    use crate::{Process, Tracer};

    /// In the environment of the process that the test starts from its own program.
    const HOLDER: &str = "PROFILER_TEST_HOLDER";

    /// Longer than any machine takes.
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn state_is_read_behind_any_name() {
        assert_eq!(state_of(b"12 (a) T b) S 1 12"), Some(b'S'));
        assert_eq!(state_of(b"12 (profiler) T 1 12"), Some(b'T'));
        assert_eq!(state_of(b""), None);
    }

    /// Runs in a process of its own: stops a thread of another one, and is itself stopped while it holds that.
    #[test]
    fn holder() {
        if std::env::var_os(HOLDER).is_none() {
            return;
        }
        let mut held = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let guardian = Guardian::start().unwrap();
        let stopped = Tracer::new().stop(Tid::new(held.id())).unwrap();
        println!("holds {}", held.id());
        nix::sys::signal::raise(Signal::SIGSTOP).unwrap();
        drop(stopped);
        // Stopped again from here on, until the test continues it.
        while Process::new(Pid::new(held.id())).is_alive() {
            std::thread::sleep(Duration::from_millis(1));
        }
        held.wait().unwrap();
        drop(guardian);
    }

    fn wait_for_state(pid: u32, is_wanted: impl Fn(u8) -> bool) {
        let limit = Instant::now() + LONG;
        while !Process::new(Pid::new(pid)).state().is_some_and(&is_wanted) {
            assert!(Instant::now() < limit, "process {pid}: {:?}", Process::new(Pid::new(pid)).state());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn thread_is_let_go_when_its_tracer_is_stopped() {
        let mut holder = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "guardian::tests::holder", "--nocapture"])
            .env(HOLDER, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Kept to the end: a process whose stdout is closed would fail.
        let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines().map_while(Result::ok);
        let held = lines.find_map(|line| line.split_once("holds ")?.1.trim().parse::<u32>().ok()).unwrap();
        wait_for_state(held, |state| state != b't');
        wait_for_state(holder.id(), |state| state == b'T');
        kill(UnixPid::from_raw(held.cast_signed()), Signal::SIGKILL).unwrap();
        kill(UnixPid::from_raw(holder.id().cast_signed()), Signal::SIGCONT).unwrap();
        assert!(holder.wait().unwrap().success());
    }
}
