//! A thread's CPU clock that is exact at every instant: it stands still as long as the thread is on no CPU, and
//! not a nanosecond less.
//!
//! `schedstat` is brought up to date only at timer ticks while a thread runs, so it cannot tell a thread that is
//! on a CPU from one that only waits for one. A perf event on the thread can: the kernel asks the CPU itself.

use std::fs::File;
use std::io::{self, Read};

use profiler_model::{Nanos, Tid};

use crate::first_event;
use crate::limits::KeepingRight;
use crate::perf_event::Wanted;

// <linux/perf_event.h>.
const PERF_COUNT_SW_TASK_CLOCK: u64 = 1;

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
    /// call filter), or is still getting ready (`WouldBlock`).
    pub fn open(tid: Tid) -> io::Result<Self> {
        let right = KeepingRight::take().ok_or_else(|| io::Error::from(io::ErrorKind::QuotaExceeded))?;
        let wanted = Wanted { config: PERF_COUNT_SW_TASK_CLOCK, ..Wanted::default() };
        Ok(ThreadClock { event: first_event::open_another(tid, wanted)?, _right: right })
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
