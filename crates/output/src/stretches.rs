//! The stretches of time that a thread's samples stand for, counted from the beginning of the recording.
//!
//! What lies between two stretches was not shown: the thread slept while only running ones were asked for,
//! or had not started. Viewers must leave it empty.
//!
//! Of a sum of times it is only known between which instants they were: it is laid into what is free there, from the
//! beginning on, and never over what is known to have been elsewhere.

use profiler_model::{Nanos, Timestamp};
use profiler_profile::{Profile, Run, ThreadId, Weights};

/// A stretch of time in which a thread was seen with one stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    /// From here ...
    pub(crate) start: Nanos,
    /// ... to here.
    pub(crate) end: Nanos,
    /// The samples, with what they stand for.
    pub(crate) run: Run,
}

/// What becomes of a sample that stands for time which others have taken as well: a running one stands for all that the
/// thread ran since the one before, with waits in between, or for the time since a tick of another CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overlaps {
    /// It reaches back to the one before it and no further: all that is shown lies where it was. Sums of what is shown are
    /// biased.
    Cut,
    /// It keeps all its wall time, and those before it are moved to earlier times as far as needed.
    Move,
}

impl Stretch {
    fn length(&self) -> Nanos {
        self.end.saturating_sub(self.start)
    }
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
    overlaps: Overlaps,
) -> impl Iterator<Item = Stretch> {
    let runs = profile.timeline(thread).into_iter().flatten();
    let (sums, mut known): (Vec<Run>, Vec<Run>) = runs.partition(|run| run.is_sum);
    known.sort_by_key(|run| run.last);
    let mut laid = match overlaps {
        Overlaps::Cut => lay_cut(known, beginning),
        Overlaps::Move => lay_whole(known, beginning),
    };
    if !sums.is_empty() {
        lay_sums(&mut laid, sums, beginning);
    }
    laid.into_iter()
}

/// Lays each run where it ended, or as much earlier as those after it need.
fn lay_whole(known: Vec<Run>, beginning: Timestamp) -> Vec<Stretch> {
    let mut laid = Vec::with_capacity(known.len());
    let mut limit = Nanos::from_nanos(u64::MAX);
    for run in known.into_iter().rev() {
        let end = run.last.since(beginning).min(limit);
        let start = end.saturating_sub(run.weights.wall);
        laid.push(Stretch { start, end, run });
        limit = start;
    }
    laid.reverse();
    laid
}

/// Lays each run where it ended. What a running sample stands for before a wait is left out: what ran then is not known.
fn lay_cut(known: Vec<Run>, beginning: Timestamp) -> Vec<Stretch> {
    let mut laid = Vec::with_capacity(known.len());
    let mut before = Nanos::ZERO;
    for mut run in known {
        let start = run.start().since(beginning).max(before);
        let end = run.last.since(beginning).max(start);
        run.weights.wall = run.weights.wall.min(end.saturating_sub(start));
        laid.push(Stretch { start, end, run });
        before = end;
    }
    laid
}

/// Lays sums into what the stretches leave free.
fn lay_sums(laid: &mut Vec<Stretch>, mut sums: Vec<Run>, beginning: Timestamp) {
    // Those that have least choice first.
    sums.sort_by_key(|sum| (sum.last, std::cmp::Reverse(sum.first)));
    let latest = sums.last().map_or(Nanos::ZERO, |sum| sum.last.since(beginning));
    let mut gaps = Gaps::between(laid, latest);
    for sum in sums {
        let (from, to) = (sum.first.since(beginning), sum.last.since(beginning));
        let mut parts = gaps.take(from, to, sum.weights.wall);
        if parts.is_empty() {
            // It still counts as a sample.
            parts.push((to, to));
        }
        let Weights { mut samples, mut cpu, .. } = sum.weights;
        for (start, end) in parts {
            let wall = end.saturating_sub(start);
            let weights = Weights { samples: std::mem::take(&mut samples), cpu: cpu.min(wall), wall };
            cpu = cpu.saturating_sub(wall);
            laid.push(Stretch { start, end, run: Run { weights, ..sum } });
        }
    }
    laid.sort_by_key(|stretch| (stretch.start, stretch.end));
}

/// Times of which nothing is known, in order.
struct Gaps(Vec<(Nanos, Nanos)>);

impl Gaps {
    /// Those before, between and after the stretches, up to `latest`.
    fn between(laid: &[Stretch], latest: Nanos) -> Self {
        let mut before = Nanos::ZERO;
        let mut gaps = Vec::new();
        for stretch in laid.iter().filter(|stretch| stretch.length() != Nanos::ZERO) {
            if stretch.start > before {
                gaps.push((before, stretch.start));
            }
            before = stretch.end;
        }
        if latest > before {
            gaps.push((before, latest));
        }
        Gaps(gaps)
    }

    /// Takes `wanted` of what is free between two instants, or all of it if that is less.
    fn take(&mut self, from: Nanos, to: Nanos, mut wanted: Nanos) -> Vec<(Nanos, Nanos)> {
        let first = self.0.partition_point(|(_, end)| *end <= from);
        let after = first + self.0[first..].iter().take_while(|(start, _)| *start < to).count();
        let (mut taken, mut left) = (Vec::new(), Vec::new());
        for &(start, end) in &self.0[first..after] {
            let begin = start.max(from);
            let until = end.min(to).min(begin + wanted);
            if until > begin {
                wanted = wanted.saturating_sub(until.saturating_sub(begin));
                taken.push((begin, until));
                left.extend([(start, begin), (until, end)].into_iter().filter(|(start, end)| start < end));
            } else {
                left.push((start, end));
            }
        }
        self.0.splice(first..after, left);
        taken
    }
}
