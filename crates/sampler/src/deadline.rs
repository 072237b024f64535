//! The end of a session that has a time. The session's own thread may be waiting for a CPU then, or be busy with what was
//! sampled before; on a machine with a hundred busy threads a CPU it would notice the end seconds later. So a thread
//! of its own, which does nothing else, wakes at the deadline ahead of all ordinary work.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use profiler_model::{Nanos, Tid, Timestamp};
use profiler_os::{clock, priority, quiet_thread};

/// What was sampled is looked at for so long after the deadline. What is left is lost.
const LAST_LOOK: Nanos = Nanos::from_nanos(200_000_000);

/// When what was sampled before `deadline` is looked at no longer.
pub fn latest_look(deadline: Timestamp) -> Timestamp {
    deadline + LAST_LOOK
}

/// Waits for the deadline until it is dropped, by the thread that started it.
#[derive(Debug)]
pub struct DeadlineKeeper {
    over: Arc<(Mutex<bool>, Condvar)>,
}

impl DeadlineKeeper {
    /// Runs `stop` at `deadline`. The calling thread goes ahead of ordinary work from then on, as far as is permitted, so
    /// that it ends soon. Where no thread can be started, the caller is on its own.
    pub fn start(deadline: Timestamp, stop: impl FnOnce() + Send + 'static) -> Self {
        let over = Arc::new((Mutex::new(false), Condvar::new()));
        let (its_over, caller) = (over.clone(), priority::this_thread());
        let keep = move || keep_until(&its_over, deadline, caller, stop);
        let _ = quiet_thread::spawn_prompt("deadline", keep);
        DeadlineKeeper { over }
    }
}

impl Drop for DeadlineKeeper {
    fn drop(&mut self) {
        // It is not waited for: where it may not go ahead of others, that takes long.
        *lock(&self.over.0) = true;
        self.over.1.notify_all();
    }
}

fn keep_until(
    over: &(Mutex<bool>, Condvar),
    deadline: Timestamp,
    caller: Tid,
    stop: impl FnOnce() + Send + 'static,
) {
    if is_over_before(over, deadline) {
        return;
    }
    // First, as it may hold what is needed to stop.
    priority::make_prompt(caller);
    stop();
}

/// Waits until it is over, or until `instant`; returns whether it is.
fn is_over_before(over: &(Mutex<bool>, Condvar), instant: Timestamp) -> bool {
    let mut is_over = lock(&over.0);
    loop {
        let left = instant.since(clock::now());
        if *is_over || left == Nanos::ZERO {
            return *is_over;
        }
        let woken = over.1.wait_timeout(is_over, Duration::from(left));
        is_over = woken.unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn lock(over: &Mutex<bool>) -> MutexGuard<'_, bool> {
    over.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn stops_at_its_deadline_without_the_caller() {
        let (sender, stopped) = mpsc::channel();
        let deadline = clock::now() + Nanos::from_nanos(1_000_000);
        let keeper = DeadlineKeeper::start(deadline, move || sender.send(clock::now()).unwrap());
        assert!(stopped.recv().unwrap() >= deadline);
        drop(keeper);
    }

    #[test]
    fn session_that_ends_before_stops_nothing() {
        let (sender, stopped) = mpsc::channel::<()>();
        drop(DeadlineKeeper::start(Timestamp::MAX, move || sender.send(()).unwrap()));
        assert!(stopped.recv().is_err());
    }
}
