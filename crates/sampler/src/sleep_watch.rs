//! Whether a thread sleeps on, without asking the system each time.
//!
//! Of hundreds of threads most sleep all the time, and to ask for each at each instant is what sampling them costs.
//! Once a thread has slept for a while its turns on the CPUs are watched: the kernel writes each of them to memory
//! that is shared with this process, and as long as nothing was written the thread has not run. Not for threads
//! that run now and then: each of their turns would cost them a little.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};

use profiler_model::Tid;
use profiler_os::ContextSwitchLog;

/// A thread is watched when it was asleep at so many looks in a row, ...
const LOOKS_ASLEEP: u16 = 32;

/// ... or at up to so many more, so that threads that fell asleep together are not taken up all at once.
const SPREAD: u32 = 64;

/// Each watch takes two pages of memory. What is beyond is asked for as ever.
const MAX_WATCHES: usize = 1024;

static WATCHES: AtomicUsize = AtomicUsize::new(0);

/// Watches one thread for as long as it sleeps.
#[derive(Debug, Default)]
pub struct SleepWatch(State);

#[derive(Debug)]
enum State {
    /// It was asleep at so many looks in a row.
    Unwatched(u16),
    Watched(Watched),
    /// It cannot be watched.
    Refused,
}

#[derive(Debug)]
struct Watched {
    turns: ContextSwitchLog,
    /// How many records there were when it was seen asleep.
    asleep_at: Option<u64>,
    _place: Place,
}

/// How many records of a thread there were before it was looked at.
#[derive(Clone, Copy, Debug)]
pub struct WatchMark(Option<u64>);

impl Default for State {
    fn default() -> Self {
        State::Unwatched(0)
    }
}

impl SleepWatch {
    /// Whether the thread has certainly not been on a CPU since before it was seen asleep.
    pub fn sleeps_on(&self) -> bool {
        match &self.0 {
            State::Watched(watched) => watched.asleep_at.is_some_and(|then| watched.turns.written() == then),
            State::Unwatched(_) | State::Refused => false,
        }
    }

    /// To be taken before the thread is looked at.
    pub fn mark(&self) -> WatchMark {
        WatchMark(match &self.0 {
            State::Watched(watched) => Some(watched.turns.written()),
            State::Unwatched(_) | State::Refused => None,
        })
    }

    /// The thread `tid` was seen asleep after the `mark` was taken.
    pub fn saw_asleep(&mut self, mark: WatchMark, tid: Tid) {
        match &mut self.0 {
            State::Watched(watched) => watched.asleep_at = mark.0,
            State::Unwatched(looks) => {
                *looks += 1;
                if u32::from(*looks) >= u32::from(LOOKS_ASLEEP) + tid.as_u32() % SPREAD {
                    self.watch(tid);
                }
            }
            State::Refused => {}
        }
    }

    /// The thread was seen awake.
    pub fn saw_awake(&mut self) {
        if !matches!(self.0, State::Refused) {
            self.0 = State::default();
        }
    }

    /// Begins to watch. That it has slept until now is for the next look to find.
    fn watch(&mut self, tid: Tid) {
        let Some(place) = Place::take() else {
            self.0 = State::Refused;
            return;
        };
        self.0 = match ContextSwitchLog::open(tid) {
            Ok(turns) => State::Watched(Watched { turns, asleep_at: None, _place: place }),
            // The kernel is getting ready.
            Err(error) if error.kind() == ErrorKind::WouldBlock => State::default(),
            Err(_) => State::Refused,
        };
    }
}

/// One of the watches that there may be.
#[derive(Debug)]
struct Place(());

impl Place {
    fn take() -> Option<Self> {
        let before = WATCHES.fetch_add(1, Ordering::Relaxed);
        let place = Place(());
        (before < MAX_WATCHES).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        WATCHES.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use profiler_model::Pid;
    use profiler_os::{Activity, ThreadFiles};

    use super::*;

    fn own_id() -> Tid {
        let link = std::fs::read_link("/proc/thread-self").unwrap();
        Tid::new(link.file_name().unwrap().to_str().unwrap().parse().unwrap())
    }

    /// A thread that sleeps until it is told something, each time it is.
    fn sleeper(told: Receiver<()>) -> (Tid, Receiver<()>) {
        let (tell, tid) = channel();
        let (answer, answers): (Sender<()>, Receiver<()>) = channel();
        std::thread::spawn(move || {
            tell.send(own_id()).unwrap();
            while told.recv().is_ok() && answer.send(()).is_ok() {}
        });
        (tid.recv().unwrap(), answers)
    }

    /// Looks until the thread is watched and asleep.
    fn look_until_watched(watch: &mut SleepWatch, files: &ThreadFiles, tid: Tid) {
        while !watch.sleeps_on() && !matches!(watch.0, State::Refused) {
            let mark = watch.mark();
            match files.activity().unwrap() {
                Activity::Running => watch.saw_awake(),
                _ => watch.saw_asleep(mark, tid),
            }
        }
    }

    #[test]
    fn a_sleeper_sleeps_on_until_it_has_run() {
        let (tell, told) = channel();
        let (tid, answers) = sleeper(told);
        let files = ThreadFiles::open(Pid::new(std::process::id()), tid).unwrap();
        let mut watch = SleepWatch::default();
        for _ in 0..3 {
            look_until_watched(&mut watch, &files, tid);
            if matches!(watch.0, State::Refused) {
                return;
            }
            assert!(watch.sleeps_on());
            tell.send(()).unwrap();
            answers.recv().unwrap();
            assert!(!watch.sleeps_on(), "it has run");
        }
    }
}
