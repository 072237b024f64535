//! When a thread got a CPU and when it lost it: whether it was on one at a given instant.
//!
//! Neither `/proc` nor `schedstat` tells that of the past. A perf event does: the kernel writes a record at each
//! switch, to memory that is shared with this process, whoever asks for it and at no further cost. Only the last
//! ones are kept.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};
use profiler_model::{Tid, Timestamp};

use crate::first_event;
use crate::limits::KeepingRight;
use crate::perf_event::{PERF_COUNT_SW_DUMMY, Wanted};

// <linux/perf_event.h>.
const PERF_SAMPLE_TIME: u64 = 1 << 2;
const PERF_SAMPLE_CPU: u64 = 1 << 7;
const SAMPLE_ID_ALL: u64 = 1 << 18;
const USE_CLOCKID: u64 = 1 << 25;
const CONTEXT_SWITCH: u64 = 1 << 26;
/// The newest record is where the head says, older ones follow; the oldest are overwritten.
const WRITE_BACKWARD: u64 = 1 << 27;
const PERF_RECORD_SWITCH: u64 = 14;
const PERF_RECORD_MISC_SWITCH_OUT: u64 = 1 << 13;
/// It lost the CPU although it would have gone on (Linux 4.17; never said before).
const PERF_RECORD_MISC_SWITCH_OUT_PREEMPT: u64 = 1 << 14;

/// Where the first page says how far the kernel has written.
const HEAD_OFFSET: usize = 1024;

/// A record of this event: its header, the time and the CPU.
const RECORD_BYTES: u64 = 24;

/// Records that are looked through at most: more switches than this between an instant and the look at it is more
/// than a scheduler does.
const MAX_RECORDS: u64 = 64;

/// A thread got a CPU or lost it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    /// When.
    pub at: Timestamp,
    /// Which CPU.
    pub cpu: u32,
    /// What happened.
    pub kind: SwitchKind,
}

/// What a switch did to a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchKind {
    /// It got the CPU.
    In,
    /// It lost the CPU and would have gone on: it is ready to run and waits for its turn.
    Preempted,
    /// It gave the CPU up, or the kernel does not tell these apart.
    Out,
}

/// What is known of a thread's turns on the CPUs, since this was opened.
#[derive(Debug)]
pub struct ContextSwitchLog {
    records: MmapRaw,
    page: usize,
    _event: File,
    _right: KeepingRight,
}

impl ContextSwitchLog {
    /// The turns of thread `tid` from now on.
    ///
    /// # Errors
    /// When the thread is gone, or the operating system refuses (`kernel.perf_event_paranoid` above 2, a system
    /// call filter, too much memory locked for such events), or is still getting ready (`WouldBlock`).
    pub fn open(tid: Tid) -> io::Result<Self> {
        let right = KeepingRight::take().ok_or_else(|| io::Error::from(io::ErrorKind::QuotaExceeded))?;
        let wanted = Wanted {
            config: PERF_COUNT_SW_DUMMY,
            sample_type: PERF_SAMPLE_TIME | PERF_SAMPLE_CPU,
            flags: SAMPLE_ID_ALL | USE_CLOCKID | CONTEXT_SWITCH | WRITE_BACKWARD,
            clock: libc::CLOCK_MONOTONIC,
        };
        let event = first_event::open_another(tid, wanted)?;
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.unwrap_or(4096) as usize;
        // A page that says how far, and one of records.
        let records = MmapOptions::new().len(2 * page).map_raw_read_only(&event)?;
        Ok(ContextSwitchLog { records, page, _event: event, _right: right })
    }

    /// A number in the shared memory.
    fn load(&self, offset: usize) -> u64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= 2 * self.page);
        // SAFETY: by the line above this is inside of the mapping, which lives as long as `self`, and aligned; the
        // kernel writes there at any time, which an atomic load allows for.
        unsafe { &*self.records.as_ptr().add(offset).cast::<AtomicU64>() }.load(Ordering::Relaxed)
    }

    fn head(&self) -> u64 {
        let head = self.load(HEAD_OFFSET);
        fence(Ordering::Acquire);
        head
    }

    /// How much was written so far: as long as this stays, the thread has neither got a CPU nor lost one.
    pub fn written(&self) -> u64 {
        self.head().wrapping_neg()
    }

    /// How often it got a CPU or lost it since this was opened.
    pub fn switches(&self) -> u64 {
        self.written() / RECORD_BYTES
    }

    /// The record `age` places behind the newest, which is at `head`.
    fn record(&self, head: u64, age: u64) -> Option<Switch> {
        let word = |index: u64| {
            let place = head.wrapping_add(age * RECORD_BYTES + index * 8) % self.page as u64;
            self.load(self.page + place as usize)
        };
        let header = word(0);
        // Type (32 bits), misc (16 bits), size (16 bits).
        let (kind, misc, size) = (header & 0xffff_ffff, header >> 32 & 0xffff, header >> 48);
        let kind = match kind == PERF_RECORD_SWITCH && size == RECORD_BYTES {
            false => return None,
            true if misc & PERF_RECORD_MISC_SWITCH_OUT == 0 => SwitchKind::In,
            true if misc & PERF_RECORD_MISC_SWITCH_OUT_PREEMPT != 0 => SwitchKind::Preempted,
            true => SwitchKind::Out,
        };
        // The CPU (32 bits), and as many that are reserved.
        Some(Switch { at: Timestamp::from_nanos(word(1)), cpu: word(2) as u32, kind })
    }

    /// Whether the newest records, as they were when `head` was read, were not overwritten meanwhile.
    fn still_stand(&self, head: u64) -> bool {
        fence(Ordering::Acquire);
        let since = head.wrapping_sub(self.load(HEAD_OFFSET)) / RECORD_BYTES;
        // What was looked at is as far as a whole page from what was written since.
        since < self.page as u64 / RECORD_BYTES - MAX_RECORDS
    }

    /// The last time that the thread got a CPU or lost it; `None` where it did neither since this was opened.
    pub fn last(&self) -> Option<Switch> {
        let head = self.head();
        let last = (head != 0).then(|| self.record(head, 0))?;
        last.filter(|_| self.still_stand(head))
    }

    /// Whether the thread was on a CPU at the instant `at`; `None` where that is not known any more, or was not
    /// yet.
    pub fn was_on_cpu(&self, at: Timestamp) -> Option<bool> {
        let head = self.head();
        let written = head.wrapping_neg() / RECORD_BYTES;
        for age in 0..written.min(MAX_RECORDS) {
            let switch = self.record(head, age)?;
            if switch.at <= at {
                return self.still_stand(head).then_some(switch.kind == SwitchKind::In);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::clock;

    fn state(tid: Tid) -> String {
        std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap()
    }

    fn wait_until_asleep(tid: Tid) {
        while !state(tid).contains(") S ") {
            std::thread::yield_now();
        }
    }

    #[test]
    fn turns_of_a_thread_that_sleeps_works_and_sleeps() {
        let (tell, told) = channel();
        let (wake, woken) = channel::<()>();
        let worker = std::thread::spawn(move || {
            tell.send((nix::unistd::gettid().as_raw().cast_unsigned(), clock::now())).unwrap();
            woken.recv().unwrap();
            tell.send((0, clock::now())).unwrap();
            let _ = woken.recv();
        });
        let worker_tid = Tid::new(told.recv().unwrap().0);
        wait_until_asleep(worker_tid);
        let Ok(turns) = ContextSwitchLog::open(worker_tid) else { return };
        let before = clock::now();
        assert_eq!(turns.was_on_cpu(before), None, "it has not been switched since");
        assert_eq!((turns.written(), turns.switches()), (0, 0));
        wake.send(()).unwrap();
        let working = told.recv().unwrap().1;
        assert!(turns.written() > 0);
        wait_until_asleep(worker_tid);
        let after = clock::now();
        assert_eq!(turns.was_on_cpu(working), Some(true));
        assert_eq!(turns.was_on_cpu(after), Some(false));
        assert_eq!(turns.was_on_cpu(before), None);
        let last = turns.last().unwrap();
        assert_eq!(last.kind, SwitchKind::Out, "it sleeps");
        assert!(last.at > working && last.cpu < clock::cpus());
        assert!(turns.switches() >= 2, "it woke and fell asleep");
        drop(wake);
        worker.join().unwrap();
    }
}
