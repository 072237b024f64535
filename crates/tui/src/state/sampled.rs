//! What was sampled since the start or the last reset. Paused times are left out.

use profiler_model::{Nanos, Timestamp};
use profiler_profile::{Basis, Event, Mark, MarkKind, Profile, Sample, Tally};

use super::activity::Activity;
use super::intervals::Intervals;
use super::reset_ledger::ResetLedger;
use crate::Update;

/// The most runs of equal samples for which the profile keeps when they were taken: some forty megabytes, and hours
/// for most programs.
const MAX_RUNS: usize = 1_000_000;

/// How an interval has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IntervalEnd {
    /// It has become the last interval.
    Whole,
    /// Sampling has ended before it was over, so it was joined to the last interval: alone it may be nothing at all.
    Joined,
}

/// The samples, the ledger, and what threads did.
#[derive(Debug)]
pub(super) struct Sampled {
    /// Everything since the start or the last reset.
    profile: Profile,
    ledger: ResetLedger,
    activity: Activity,
    intervals: Intervals,
    is_paused: bool,
}

impl Sampled {
    /// Nothing yet. Intervals are to be this long.
    pub fn new(interval: Nanos) -> Self {
        Sampled {
            profile: Profile::with_timeline(),
            ledger: ResetLedger::default(),
            activity: Activity::default(),
            intervals: Intervals::new(interval),
            is_paused: false,
        }
    }

    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    pub fn intervals(&self) -> &Intervals {
        &self.intervals
    }

    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// The samples of the last interval.
    pub fn recent(&self) -> impl Iterator<Item = Tally> {
        self.intervals.recent().iter().map(tally_of)
    }

    /// The samples of the present interval.
    pub fn current(&self) -> impl Iterator<Item = Tally> {
        self.intervals.current().iter().map(tally_of)
    }

    /// Takes in what is new, and shows every new sample to `on_sample`. Returns how an interval has ended, if one has.
    pub fn take_in(
        &mut self,
        update: Update,
        mut on_sample: impl FnMut(&Profile, &Tally),
    ) -> Option<IntervalEnd> {
        let Update { at, frames, stacks, processes, threads, events, memory, end } = update;
        frames.iter().for_each(|frame| {
            self.profile.frame(frame);
        });
        stacks.into_iter().for_each(|(parent, frame)| {
            self.profile.push(parent, frame);
        });
        processes.into_iter().for_each(|process| {
            self.profile.process(process);
        });
        threads.into_iter().for_each(|thread| {
            self.profile.thread(thread);
        });
        self.activity.resize(self.profile.threads().len());
        events.iter().for_each(|event| self.take(event, &mut on_sample));
        self.profile.set_ledger(self.ledger.since_reset());
        self.activity.note_memory(memory);
        self.end_interval(at, end.is_some())
    }

    fn take(&mut self, event: &Event, on_sample: &mut impl FnMut(&Profile, &Tally)) {
        self.ledger.add(event);
        match event {
            Event::Sample(event) => {
                // One that stands for several instants is the same at all of them.
                let same = Sample { cpu: Nanos::ZERO, wall: Nanos::ZERO, ..event.sample };
                for sample in std::iter::once(event.sample).chain((1..event.count).map(|_| same)) {
                    self.take_sample(sample, on_sample);
                }
            }
            Event::Look(look) if !self.is_paused => {
                self.activity.count_look(self.profile.thread_of(look.thread).process, look);
            }
            Event::Mark(Mark { kind: MarkKind::LooksBegin, .. }) => self.activity.begin_looks(),
            Event::Look(_)
            | Event::Mark(_)
            | Event::Skip(_)
            | Event::Loss(_)
            | Event::Held(_)
            | Event::Metric(_) => {}
        }
    }

    fn take_sample(&mut self, sample: Sample, on_sample: &mut impl FnMut(&Profile, &Tally)) {
        if self.is_paused {
            self.ledger.leave_out();
            return;
        }
        self.activity.see(self.profile.thread_of(sample.thread).process, &sample);
        self.profile.record(sample);
        on_sample(&self.profile, &tally_of(&sample));
        self.intervals.push(sample);
    }

    /// Ends the present interval if it is over, or if sampling has ended.
    fn end_interval(&mut self, at: Timestamp, has_ended: bool) -> Option<IntervalEnd> {
        let start = self.ledger.whole().period.map_or(at, |(start, _)| start);
        let lasted = at.since(self.intervals.begin(start));
        if self.is_paused {
            return None;
        }
        if !self.intervals.is_over(lasted, self.activity.history().is_empty()) {
            if !has_ended {
                return None;
            }
            if self.intervals.join(at, lasted) {
                self.activity.take_rest(lasted, self.ledger.whole());
                return Some(IntervalEnd::Joined);
            }
        }
        self.intervals.roll(at, lasted);
        self.activity.roll(lasted, self.ledger.whole());
        if self.profile.timeline_len() > MAX_RUNS {
            self.profile.drop_timeline();
        }
        Some(IntervalEnd::Whole)
    }

    /// Takes no samples in, or goes on.
    pub fn switch_pause(&mut self) {
        self.is_paused = !self.is_paused;
        if !self.is_paused {
            // The time in between is no part of any interval.
            self.activity.skip_to(self.ledger.whole());
            self.intervals.begin_anew(self.ledger.whole().period.map(|(_, end)| end));
        }
    }

    /// Forgets the samples and the ledger up to now.
    pub fn reset(&mut self) {
        self.profile = self.profile.without_samples();
        self.ledger.reset();
        self.profile.set_ledger(self.ledger.since_reset());
        self.intervals.clear();
        self.activity.clear_threads();
    }
}

fn tally_of(sample: &Sample) -> Tally {
    Tally::of(sample, Basis::Instant)
}
