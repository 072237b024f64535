//! Whether a thread of this process hangs inside the kernel, in a wait that no signal ends: for a page or a file that does
//! not come. Another thread looks; the one that is watched does nothing for it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use profiler_model::{Nanos, Tid, Timestamp};

use crate::priority;
use crate::proc_file::parsed;

/// Whether long waits are to be expected: the kernel takes its time to remove programs and events.
static EXCUSED: AtomicBool = AtomicBool::new(false);

/// Notes whether the watched thread does from now on what may wait long without hanging.
pub fn excuse(is_excused: bool) {
    EXCUSED.store(is_excused, Ordering::Relaxed);
}

/// Whether it does.
pub fn is_excused() -> bool {
    EXCUSED.load(Ordering::Relaxed)
}

/// Watches a thread of this process.
#[derive(Debug)]
pub struct HangWatch {
    thread: Tid,
    /// How often it has left its CPU, and since when that stands while it waits uninterruptibly.
    stands: Option<(u64, Timestamp)>,
}

/// What a look has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HangLook {
    /// For how long the thread has been in one uninterruptible wait, as far as was seen.
    pub waits: Nanos,
    /// Whether a signal that asks for an end waits for a thread that takes it.
    pub is_end_asked: bool,
}

impl HangWatch {
    /// Watches the calling thread.
    pub fn of_this_thread() -> Self {
        HangWatch { thread: priority::this_thread(), stands: None }
    }

    /// Looks at it, by another thread.
    pub fn look(&mut self, now: Timestamp) -> HangLook {
        let status = parsed(Path::new(&format!("/proc/self/task/{}/status", self.thread)));
        self.judge(status.ok().and_then(|status| Status::of(&status)), now)
    }

    fn judge(&mut self, status: Option<Status>, now: Timestamp) -> HangLook {
        let Some(status) = status.filter(|status| status.is_uninterruptible) else {
            self.stands = None;
            return HangLook::default();
        };
        let since = match self.stands {
            Some((switches, since)) if switches == status.switches => since,
            _ => now,
        };
        self.stands = Some((status.switches, since));
        HangLook { waits: now.since(since), is_end_asked: status.is_end_asked }
    }
}

/// The scheduling state of a thread, as the kernel reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Status {
    is_uninterruptible: bool,
    switches: u64,
    is_end_asked: bool,
}

impl Status {
    /// `None` if the kernel does not count context switches.
    fn of(status: &procfs::process::Status) -> Option<Status> {
        let pending = status.sigpnd | status.shdpnd;
        let asks = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];
        Some(Status {
            is_uninterruptible: status.state.starts_with('D'),
            switches: status.voluntary_ctxt_switches?.checked_add(status.nonvoluntary_ctxt_switches?)?,
            is_end_asked: asks.iter().any(|signal| pending & 1 << (signal - 1) != 0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc_file::status_with;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn status_tells_state_switches_and_pending_signals() {
        const SWITCHES: [&str; 2] = ["voluntary_ctxt_switches:\t7", "nonvoluntary_ctxt_switches:\t3"];
        let with = |lines: [&str; 2]| Status::of(&status_with(&[&SWITCHES, lines.as_slice()].concat()));
        let expected = Status { is_uninterruptible: true, switches: 10, is_end_asked: true };
        assert_eq!(with(["State:\tD (disk sleep)", "ShdPnd:\t0000000000000002"]), Some(expected));
        let expected = Status { is_uninterruptible: false, switches: 10, is_end_asked: false };
        assert_eq!(with(["State:\tS (sleeping)", "ShdPnd:\t0000000000000000"]), Some(expected));
        let mut uncounted = status_with(&[]);
        uncounted.voluntary_ctxt_switches = None;
        assert_eq!(Status::of(&uncounted), None);
    }

    #[test]
    fn only_one_wait_without_a_break_adds_up() {
        let mut watch = HangWatch::of_this_thread();
        let mut waits = |is_uninterruptible, switches, now| {
            let status = Status { is_uninterruptible, switches, is_end_asked: false };
            watch.judge(Some(status), at(now)).waits.as_nanos() / 1_000_000
        };
        assert_eq!(waits(true, 5, 1000), 0);
        assert_eq!(waits(true, 5, 1250), 250);
        assert_eq!(waits(true, 6, 1500), 0, "it ran in between");
        assert_eq!(waits(true, 6, 2500), 1000);
        assert_eq!(waits(false, 6, 2600), 0, "it runs");
        assert_eq!(waits(true, 6, 2700), 0);
    }

    #[test]
    fn the_calling_thread_does_not_hang() {
        assert_eq!(HangWatch::of_this_thread().look(at(1)), HangLook::default());
    }
}
