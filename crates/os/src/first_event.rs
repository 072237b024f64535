//! The machine's first perf event on a thread, opened ahead of time.
//!
//! For the first one the kernel changes its own code and then waits until every CPU has come by: ten milliseconds,
//! and seconds where hundreds of threads want to run. Whoever opens another one meanwhile waits as well, and a sampler
//! must not. So it is opened by a thread of its own, before sampling begins, and stays open: from then on all others
//! are quick. Until then nobody else opens any.

use std::fs::File;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use profiler_model::Tid;

use crate::limits;
use crate::perf_event::{self, PERF_COUNT_SW_DUMMY, Wanted};
use crate::priority;

/// The kernel's, so there is one.
static PREPARATION: Preparation = Preparation::new();

/// Starts to open it; returns at once. To be called before sampling, and as early as possible.
pub fn prepare() {
    if PREPARATION.begin() {
        // A table of files that grows while there are threads waits for all CPUs in the same way.
        limits::make_room_for_files();
        let opener = std::thread::Builder::new().name("first-event".to_owned());
        if opener.spawn(|| PREPARATION.end(open())).is_err() {
            PREPARATION.end(None);
        }
    }
}

/// Opens it on this thread, which ends at once: an event on a thread that is no more costs nobody anything.
fn open() -> Option<File> {
    priority::want_promptness();
    let own = Tid::new(nix::unistd::gettid().as_raw().cast_unsigned());
    perf_event::open(own, Wanted { config: PERF_COUNT_SW_DUMMY, ..Wanted::default() }).ok()
}

/// Opens a software event on thread `tid`, wherever it runs, unless the kernel is at the first one.
///
/// # Errors
/// When the thread is gone, or the operating system refuses (`kernel.perf_event_paranoid` above 2, a system
/// call filter); with `WouldBlock` while the kernel would let it wait for long.
pub(crate) fn open_another(tid: Tid, wanted: Wanted) -> io::Result<File> {
    if PREPARATION.is_underway() {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    perf_event::open(tid, wanted)
}

/// Waits for it, so long at most; returns whether others can be opened now.
pub fn wait(limit: Duration) -> bool {
    PREPARATION.wait(limit)
}

#[derive(Debug)]
struct Preparation {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
enum State {
    /// Nobody has asked for it: the first event takes its time.
    NotAsked,
    /// The kernel is at it.
    Underway,
    /// It is open, or cannot be had.
    Over { _event: Option<File> },
}

impl Preparation {
    const fn new() -> Self {
        Preparation { state: Mutex::new(State::NotAsked), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is half done while it is locked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is to be opened now by the caller.
    fn begin(&self) -> bool {
        let mut state = self.state();
        let is_first = matches!(*state, State::NotAsked);
        if is_first {
            *state = State::Underway;
        }
        is_first
    }

    fn end(&self, event: Option<File>) {
        *self.state() = State::Over { _event: event };
        self.changed.notify_all();
    }

    fn is_underway(&self) -> bool {
        matches!(*self.state(), State::Underway)
    }

    fn wait(&self, limit: Duration) -> bool {
        let underway = |state: &mut State| matches!(state, State::Underway);
        let (state, _) = self
            .changed
            .wait_timeout_while(self.state(), limit, underway)
            .unwrap_or_else(PoisonError::into_inner);
        !matches!(*state, State::Underway)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_for_once_and_waited_for() {
        let preparation = Preparation::new();
        assert!(!preparation.is_underway() && preparation.wait(Duration::ZERO), "nobody has asked");
        assert!(preparation.begin());
        assert!(!preparation.begin());
        assert!(preparation.is_underway() && !preparation.wait(Duration::ZERO));
        std::thread::scope(|scope| {
            scope.spawn(|| preparation.end(None));
            assert!(preparation.wait(Duration::MAX));
        });
        assert!(!preparation.is_underway() && !preparation.begin());
    }

    #[test]
    fn others_are_opened_as_soon_as_it_is_there() {
        let own = Tid::new(nix::unistd::gettid().as_raw().cast_unsigned());
        prepare();
        assert!(wait(Duration::MAX));
        let refusal = crate::ThreadClock::open(own).err().map(|error| error.kind());
        assert_ne!(refusal, Some(std::io::ErrorKind::WouldBlock));
    }
}
