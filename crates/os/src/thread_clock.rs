//! A thread's CPU clock that is exact at every instant: it stands still as long as the thread is on no CPU, and
//! not a nanosecond less.
//!
//! `schedstat` is brought up to date only at timer ticks while a thread runs, so it cannot tell a thread that is
//! on a CPU from one that only waits for one. A perf event on the thread can: the kernel asks the CPU itself.

use std::fs::File;
use std::io::{self, Read};
use std::mem::size_of;
use std::os::fd::{FromRawFd, OwnedFd};

use profiler_model::{Nanos, Tid};

use crate::limits::KeepingRight;

// <linux/perf_event.h>.
const PERF_TYPE_SOFTWARE: u32 = 1;
const PERF_COUNT_SW_TASK_CLOCK: u64 = 1;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
/// Ordinary users may count only outside of the kernel; this clock counts everything all the same.
const EXCLUDE_KERNEL_AND_HYPERVISOR: u64 = 1 << 5 | 1 << 6;

/// `struct perf_event_attr`, first version.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    config1: u64,
}

/// The clock of one thread.
#[derive(Debug)]
pub struct ThreadClock {
    event: File,
    _right: KeepingRight,
}

impl ThreadClock {
    /// The clock of thread `tid`.
    ///
    /// # Errors
    /// When the thread is gone, or the operating system refuses (`kernel.perf_event_paranoid` above 2, a system
    /// call filter).
    pub fn open(tid: Tid) -> io::Result<Self> {
        let right = KeepingRight::take().ok_or_else(|| io::Error::from(io::ErrorKind::QuotaExceeded))?;
        let attributes = Attributes {
            kind: PERF_TYPE_SOFTWARE,
            size: size_of::<Attributes>() as u32,
            config: PERF_COUNT_SW_TASK_CLOCK,
            flags: EXCLUDE_KERNEL_AND_HYPERVISOR,
            ..Attributes::default()
        };
        let (any_cpu, no_group) = (-1, -1);
        // SAFETY: `attributes` has the layout that the call reads, says its own size and outlives the call;
        // the other arguments are numbers.
        let raw = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                tid.as_u32() as libc::pid_t,
                any_cpu,
                no_group,
                PERF_FLAG_FD_CLOEXEC,
            )
        };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has just opened this descriptor, and nobody else knows it.
        let event = unsafe { OwnedFd::from_raw_fd(raw as i32) };
        Ok(ThreadClock { event: File::from(event), _right: right })
    }

    /// The CPU time that the thread has used since the clock was opened.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn read(&self) -> io::Result<Nanos> {
        let mut bytes = [0u8; 8];
        (&self.event).read_exact(&mut bytes)?;
        Ok(Nanos::from_nanos(u64::from_ne_bytes(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn it_goes_while_the_thread_runs_and_stands_while_it_sleeps() {
        let own = Tid::new(nix::unistd::gettid().as_raw().cast_unsigned());
        let Ok(clock) = ThreadClock::open(own) else { return };
        let before = clock.read().unwrap();
        assert!(clock.read().unwrap() > before);
        let (tell, told) = channel();
        let (end, ended) = channel::<()>();
        let sleeper = std::thread::spawn(move || {
            tell.send(Tid::new(nix::unistd::gettid().as_raw().cast_unsigned())).unwrap();
            ended.recv()
        });
        let tid = told.recv().unwrap();
        let state = || std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap();
        while !state().contains(") S ") {
            std::thread::yield_now();
        }
        let clock = ThreadClock::open(tid).unwrap();
        let before = clock.read().unwrap();
        std::thread::yield_now();
        assert_eq!(clock.read().unwrap(), before);
        end.send(()).unwrap();
        sleeper.join().unwrap().unwrap();
    }
}
