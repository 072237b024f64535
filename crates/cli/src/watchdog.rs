//! What is done when the main thread hangs inside the kernel, where no signal reaches it: another thread ends the program,
//! with what was recorded up to then. A process that takes its pages or files from something that does not answer may
//! bring that about.

use std::process::exit;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use profiler_model::{LossReason, Nanos, Timestamp};
use profiler_os::hang::{self, HangLook, HangWatch};
use profiler_os::{clock, quiet_thread};
use profiler_profile::{Event, Profile};

/// The thread is looked at so often.
const LOOK_GAP: Duration = Duration::from_millis(200);

/// A wait of this length is a hang, if the end is asked for or due.
const LONGEST_WAIT_AT_END: Nanos = Nanos::from_nanos(500_000_000);

/// A wait of this length is one in any case while samples are taken.
const LONGEST_WAIT: Nanos = Nanos::from_nanos(3_000_000_000);

/// The same where the kernel is known to take its time.
const LONGEST_EXCUSED_WAIT: Nanos = Nanos::from_nanos(10_000_000_000);

/// What was recorded is copied no more often than this, and so seldom that copying takes at most the given share of the time:
/// the in-kernel sampler itself takes a hundredth.
const COPY_GAP: Nanos = Nanos::from_nanos(200_000_000);
const COPY_SHARE: u64 = 2000;

/// Ends the program if the main thread hangs, until it is dropped.
pub struct Watchdog(Arc<State>);

struct State {
    inner: Mutex<Inner>,
    ended: Condvar,
}

#[derive(Default)]
struct Inner {
    is_over: bool,
    saved: Option<Saved>,
    next_copy: Timestamp,
    /// When the recording is to end.
    deadline: Option<Timestamp>,
}

/// What was recorded up to an instant.
struct Saved {
    at: Timestamp,
    profile: Profile,
}

impl Watchdog {
    /// Watches the calling thread. If it hangs, `finish` is handed what was recorded, if anything was, and returns the
    /// exit status. Where no thread can be started, nothing ends a hang.
    pub fn start(finish: impl FnOnce(Option<Profile>) -> u8 + Send + 'static) -> Self {
        let state = Arc::new(State { inner: Mutex::default(), ended: Condvar::new() });
        let (watched, mut watch) = (Arc::clone(&state), HangWatch::of_this_thread());
        hang::excuse(false);
        let _ = quiet_thread::spawn("watchdog", move || {
            if let Some(saved) = watched.await_hang(&mut watch) {
                exit(i32::from(finish(saved)));
            }
        });
        Watchdog(state)
    }

    /// Says when the recording is to end.
    pub fn end_at(&self, deadline: Option<Timestamp>) {
        self.0.lock().deadline = deadline;
    }

    /// Keeps a copy of what was recorded, if it is time to.
    pub fn keep(&self, profile: &Profile) {
        let began = clock::now();
        let mut inner = self.0.lock();
        if began < inner.next_copy {
            return;
        }
        inner.saved = Some(Saved { at: began, profile: profile.clone() });
        let now = clock::now();
        let rest = Nanos::from_nanos(now.since(began).as_nanos() * COPY_SHARE);
        inner.next_copy = now + rest.max(COPY_GAP);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.ended.notify_all();
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what was saved when the thread hangs, or `None` when it is not watched any more.
    fn await_hang(&self, watch: &mut HangWatch) -> Option<Option<Profile>> {
        let mut inner = self.lock();
        while !inner.is_over {
            let woken = self.ended.wait_timeout(inner, LOOK_GAP);
            inner = woken.unwrap_or_else(PoisonError::into_inner).0;
            let now = clock::now();
            if !inner.is_over && inner.is_hang(watch.look(now), now) {
                return Some(inner.saved.take().map(|saved| saved.count_rest(now)));
            }
        }
        None
    }
}

impl Inner {
    fn is_hang(&self, look: HangLook, now: Timestamp) -> bool {
        let is_end_due = look.is_end_asked || self.deadline.is_some_and(|deadline| now >= deadline);
        if hang::is_excused() {
            return is_end_due && look.waits >= LONGEST_EXCUSED_WAIT;
        }
        let is_sampling = self.saved.is_some();
        (is_end_due && look.waits >= LONGEST_WAIT_AT_END) || (is_sampling && look.waits >= LONGEST_WAIT)
    }
}

impl Saved {
    /// With the instants since then as lost: what became of them is known to the thread that hangs.
    fn count_rest(mut self, now: Timestamp) -> Profile {
        let interval = self.profile.ledger().interval.filter(|interval| *interval > Nanos::ZERO);
        let instants = interval.map_or(0, |interval| now.since(self.at).as_nanos() / interval.as_nanos());
        self.profile.add(&Event::loss(LossReason::NoAnswer, now, instants.max(1)));
        self.profile
    }
}

#[cfg(test)]
mod tests {
    use profiler_profile::MetricValue;

    use super::*;

    fn millis(millis: u64) -> Nanos {
        Nanos::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn wait_is_a_hang_sooner_when_the_end_is_due() {
        let at = |at: u64| Timestamp::from_nanos(millis(at).as_nanos());
        let mut inner = Inner { deadline: Some(at(9000)), ..Inner::default() };
        let look = |waits: u64, is_end_asked| HangLook { waits: millis(waits), is_end_asked };
        assert!(!inner.is_hang(look(60_000, false), at(8000)), "a slow disk, before the first sample");
        assert!(inner.is_hang(look(500, true), at(8000)));
        assert!(!inner.is_hang(look(400, true), at(8000)));
        assert!(inner.is_hang(look(500, false), at(9000)));
        inner.saved = Some(Saved { at: at(1), profile: Profile::new() });
        assert!(inner.is_hang(look(3000, false), at(8000)));
        assert!(!inner.is_hang(look(2000, false), at(8000)));
    }

    #[test]
    fn instants_since_the_last_copy_are_lost() {
        let mut profile = Profile::new();
        let value = MetricValue::Interval(millis(10));
        profile.add(&Event::metric(Timestamp::default(), value));
        let saved = Saved { at: Timestamp::from_nanos(0), profile };
        let ledger = saved.count_rest(Timestamp::from_nanos(millis(305).as_nanos())).ledger().clone();
        assert_eq!(ledger.losses(), [(LossReason::NoAnswer, 30)]);
    }
}
