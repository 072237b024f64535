//! The stretches of time that a thread's samples stand for, counted from the beginning of the recording.
//!
//! What lies between two stretches was not shown: the thread slept while only running ones were asked for,
//! or had not started. Viewers must leave it empty.

use profiler_model::{Nanos, Timestamp};
use profiler_profile::{Profile, Run, ThreadId};

/// A stretch of time in which a thread was seen with one stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    /// From here ...
    pub(crate) start: Nanos,
    /// ... to here.
    pub(crate) end: Nanos,
    /// The samples.
    pub(crate) run: Run,
}

/// Where the recording begins: what the times of all its threads are counted from.
pub(crate) fn beginning(profile: &Profile) -> Timestamp {
    let threads = profile.threads().map(|(thread, _)| thread);
    let starts = threads.filter_map(|thread| Some(profile.timeline(thread)?.next()?.start()));
    let began = profile.ledger().period.map(|(began, _)| began);
    began.into_iter().chain(starts).min().unwrap_or_default()
}

/// How long the recording lasted.
pub(crate) fn duration(profile: &Profile) -> Nanos {
    let ended = profile.ledger().period.map_or(Timestamp::default(), |(_, ended)| ended);
    ended.since(beginning(profile))
}

/// A thread's stretches in order of time. None overlaps the one before it.
pub(crate) fn stretches(
    profile: &Profile,
    thread: ThreadId,
    beginning: Timestamp,
) -> impl Iterator<Item = Stretch> {
    let mut before = Nanos::ZERO;
    profile.timeline(thread).into_iter().flatten().map(move |run| {
        let start = run.start().since(beginning).max(before);
        let end = run.last.since(beginning).max(start);
        before = end;
        Stretch { start, end, run }
    })
}
