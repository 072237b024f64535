//! The count of every attempt by outcome, and what the run cost: a sum over [events](crate::Event).
//!
//! Attempts = shown + not asked for + lost by reason, always: `attempts` is that sum, and each attempt is in one event.

mod holds;
mod outcomes;
mod process_counts;

use std::collections::BTreeSet;

use profiler_model::{LossReason, Nanos, OtherPython, Timestamp};

use self::holds::HeldUp;
use self::outcomes::Outcomes;
use crate::{Event, MarkKind, Metric, MetricValue};

pub use self::process_counts::ProcessCounts;

/// What became of every attempt to sample a thread, and what the attempts cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    outcomes: Outcomes,
    held_up: HeldUp,
    without_kernel_frames: u64,
    /// When sampling began and when it ended, by the samples' clock.
    pub period: Option<(Timestamp, Timestamp)>,
    /// How long at the beginning of the period there was no Python yet that could have been sampled.
    pub before_python: Nanos,
    /// The mean gap between two instants that was asked for.
    pub interval: Option<Nanos>,
    /// The CPU time that the profiler used itself.
    pub own_cpu: Nanos,
    /// Whether the profiler gave up its real-time priority, as it used more CPU time than it may.
    pub left_real_time: bool,
    /// The largest resident memory of the profiler, in bytes.
    pub own_memory: u64,
    /// The CPU time that the targets used while they were sampled.
    pub target_cpu: Nanos,
    /// What became of the processes, where a tree of them was sampled.
    pub processes: Option<ProcessCounts>,
    /// Pythons beside those that were sampled: their threads are in no sample, and in no loss.
    pub other_pythons: BTreeSet<OtherPython>,
}

impl Ledger {
    /// Adds what an event says of attempts and costs.
    pub fn add(&mut self, event: &Event) {
        match event {
            Event::Sample(sample) => self.outcomes.shown += sample.count,
            Event::Skip(skip) => self.outcomes.not_asked_for += skip.count,
            Event::Loss(loss) => self.outcomes.add_loss(loss),
            Event::Held(held) => self.held_up.add(held),
            Event::Metric(metric) => self.add_metric(metric),
            Event::Mark(mark) => match &mark.kind {
                MarkKind::RealTimeLeft => self.left_real_time = true,
                MarkKind::NoKernelFrames => self.without_kernel_frames += 1,
                MarkKind::OtherPython(other) => {
                    self.other_pythons.insert(OtherPython::clone(other));
                }
                MarkKind::LooksBegin | MarkKind::Captured(_) => {}
            },
            Event::Look(_) => {}
        }
    }

    fn add_metric(&mut self, metric: &Metric) {
        match metric.value {
            MetricValue::Sampled(since) => {
                let (start, end) = self.period.unwrap_or((since, metric.at));
                self.period = Some((start.min(since), end.max(metric.at)));
            }
            MetricValue::Interval(gap) => self.interval = Some(gap),
            MetricValue::BeforePython(time) => self.before_python += time,
            MetricValue::OwnCpu(cpu) => self.own_cpu += cpu,
            MetricValue::OwnMemory(bytes) => self.own_memory = self.own_memory.max(bytes),
            MetricValue::TargetCpu(cpu) => self.target_cpu += cpu,
            MetricValue::Processes(counts) => self.processes = Some(counts),
        }
    }

    /// All attempts, whatever became of them.
    pub fn attempts(&self) -> u64 {
        self.outcomes.attempts()
    }

    /// How many samples are shown.
    pub fn shown(&self) -> u64 {
        self.outcomes.shown
    }

    /// How many succeeded but were not asked for.
    pub fn not_asked_for(&self) -> u64 {
        self.outcomes.not_asked_for
    }

    /// How many samples are missing.
    pub fn lost(&self) -> u64 {
        self.outcomes.lost()
    }

    /// How many samples are missing for one reason.
    pub fn lost_for(&self, reason: LossReason) -> u64 {
        self.outcomes.lost_for(reason)
    }

    /// The reasons for which samples are missing, with their number, the most frequent first.
    pub fn losses(&self) -> Vec<(LossReason, u64)> {
        let mut losses: Vec<_> = LossReason::ALL
            .into_iter()
            .map(|reason| (reason, self.lost_for(reason)))
            .filter(|(_, times)| *times > 0)
            .collect();
        losses.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
        losses
    }

    /// The CPU time that lost samples stand for, where it is known: a sample of which nobody knows when it was due, such as
    /// one that the kernel had no room for, has none.
    pub fn lost_cpu(&self) -> Nanos {
        self.outcomes.lost_cpu
    }

    /// How often a target's thread was stopped.
    pub fn stops(&self) -> u64 {
        self.held_up.stops.count
    }

    /// How many instants needed no stop.
    pub fn without_stop(&self) -> u64 {
        self.held_up.without_stop
    }

    /// How long all stops lasted together.
    pub fn stopped_total(&self) -> Nanos {
        self.held_up.stops.total
    }

    /// How long the longest stop lasted.
    pub fn stopped_longest(&self) -> Nanos {
        self.held_up.stops.longest
    }

    /// How often a target's thread was held up without being stopped.
    pub fn interruptions(&self) -> u64 {
        self.held_up.interruptions.count
    }

    /// How long that lasted in all.
    pub fn interrupted_total(&self) -> Nanos {
        self.held_up.interruptions.total
    }

    /// How long the longest lasted.
    pub fn interrupted_longest(&self) -> Nanos {
        self.held_up.interruptions.longest
    }

    /// How many stacks lack what their threads did in the kernel, though that was asked for. They are shown all the same.
    pub fn without_kernel_frames(&self) -> u64 {
        self.without_kernel_frames
    }

    /// How long was sampled.
    pub fn duration(&self) -> Nanos {
        self.period.map_or(Nanos::ZERO, |(start, end)| end.since(start))
    }

    /// What was counted since this ledger was as `earlier`. The longest stop and interruption and the
    /// processes are those of the whole run.
    pub fn since(&self, earlier: &Ledger) -> Ledger {
        let begun = earlier.period.map(|(_, end)| end);
        Ledger {
            outcomes: self.outcomes.since(&earlier.outcomes),
            held_up: self.held_up.since(&earlier.held_up),
            without_kernel_frames: self.without_kernel_frames.saturating_sub(earlier.without_kernel_frames),
            period: self.period.map(|(start, end)| (begun.unwrap_or(start), end)),
            before_python: if begun.is_some() { Nanos::ZERO } else { self.before_python },
            interval: self.interval,
            own_cpu: self.own_cpu.saturating_sub(earlier.own_cpu),
            left_real_time: self.left_real_time,
            own_memory: self.own_memory,
            target_cpu: self.target_cpu.saturating_sub(earlier.target_cpu),
            processes: self.processes,
            other_pythons: self.other_pythons.clone(),
        }
    }

    /// Counts this many of the shown samples as not asked for: a view leaves them out.
    pub fn leave_out(&mut self, samples: u64) {
        self.outcomes.leave_out(samples);
    }

    /// Adds what another run counted. The period becomes the one that covers both; the interval is kept only
    /// where both asked for the same; memory is the larger of the two, as they may have been one after the
    /// other.
    pub fn merge(&mut self, other: &Ledger) {
        let was_empty = *self == Ledger::default();
        self.outcomes.merge(&other.outcomes);
        self.held_up.merge(&other.held_up);
        self.without_kernel_frames += other.without_kernel_frames;
        self.period = match (self.period, other.period) {
            (Some((start, end)), Some((others_start, others_end))) => {
                Some((start.min(others_start), end.max(others_end)))
            }
            (own, others) => own.or(others),
        };
        self.before_python += other.before_python;
        if was_empty {
            self.interval = other.interval;
        } else if self.interval != other.interval {
            self.interval = None;
        }
        self.own_cpu += other.own_cpu;
        self.left_real_time |= other.left_real_time;
        self.own_memory = self.own_memory.max(other.own_memory);
        self.target_cpu += other.target_cpu;
        self.other_pythons.extend(other.other_pythons.iter().cloned());
        if let Some(others) = other.processes {
            self.processes.get_or_insert_default().add(others);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Held, HeldBy, Loss, Mark, Sample, SampleCause, SampleEvent, Scope, Skip};

    const NOW: Timestamp = Timestamp::from_nanos(0);

    impl Ledger {
        fn count_shown(&mut self) {
            let sample = Sample {
                at: NOW,
                thread: crate::ThreadId::new(0),
                stack: None,
                state: profiler_model::ThreadState::Running,
                holds_gil: false,
                cpu: Nanos::ZERO,
                wall: Nanos::ZERO,
            };
            self.add(&Event::Sample(SampleEvent::new(sample, SampleCause::Instant)));
        }

        fn count_lost_times(&mut self, reason: LossReason, times: u64) {
            self.add(&Event::Loss(Loss::of(reason, Scope::Session, NOW, times)));
        }

        fn count_lost(&mut self, reason: LossReason) {
            self.count_lost_times(reason, 1);
        }

        fn count_lost_cpu(&mut self, cpu: Nanos) {
            self.add(&Event::Loss(Loss { cpu, ..Loss::of(LossReason::Moved, Scope::Session, NOW, 0) }));
        }

        fn count_not_asked_for(&mut self) {
            self.add(&Event::Skip(Skip::of(Scope::Session, NOW, 1)));
        }

        fn count_stop(&mut self, duration: Nanos) {
            self.add(&Event::Held(Held { at: NOW, scope: Scope::Session, by: HeldBy::Stop, duration }));
        }

        fn count_without_kernel_frames(&mut self) {
            self.add(&Event::Mark(Mark { at: NOW, scope: Scope::Session, kind: MarkKind::NoKernelFrames }));
        }
    }

    #[test]
    fn periods_and_measurements_add_up() {
        let metric = |at: u64, value| {
            Event::Metric(Metric { at: Timestamp::from_nanos(at), scope: Scope::Session, value })
        };
        let (mut whole, mut first, mut second) = (Ledger::default(), Ledger::default(), Ledger::default());
        let begin = Timestamp::from_nanos(10);
        let events = [
            metric(20, MetricValue::Sampled(begin)),
            metric(20, MetricValue::OwnCpu(Nanos::from_nanos(3))),
            metric(30, MetricValue::Sampled(Timestamp::from_nanos(20))),
            metric(30, MetricValue::OwnCpu(Nanos::from_nanos(4))),
            metric(30, MetricValue::TargetCpu(Nanos::from_nanos(5))),
        ];
        events.iter().for_each(|event| whole.add(event));
        events[..2].iter().for_each(|event| first.add(event));
        events[2..].iter().for_each(|event| second.add(event));
        assert_eq!(whole.period, Some((begin, Timestamp::from_nanos(30))));
        assert_eq!((whole.own_cpu, whole.target_cpu), (Nanos::from_nanos(7), Nanos::from_nanos(5)));
        first.merge(&second);
        assert_eq!(first, whole, "two windows are what one ledger of both is");
    }

    #[test]
    fn every_reason_has_its_own_count() {
        let mut ledger = Ledger::default();
        for (index, reason) in LossReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "ALL must list the reasons as they are declared");
            ledger.count_lost_times(reason, index as u64 + 1);
        }
        for (index, reason) in LossReason::ALL.into_iter().enumerate() {
            assert_eq!(ledger.lost_for(reason), index as u64 + 1);
        }
        assert_eq!(ledger.lost(), (1..=LossReason::ALL.len() as u64).sum());
    }

    #[test]
    fn attempts_are_what_became_of_them() {
        let mut ledger = Ledger::default();
        ledger.count_shown();
        ledger.count_not_asked_for();
        ledger.count_lost(LossReason::Moved);
        ledger.count_lost_times(LossReason::Late, 3);
        assert_eq!(ledger.attempts(), 6);
        assert_eq!(ledger.attempts(), ledger.shown() + ledger.not_asked_for() + ledger.lost());
        assert_eq!(ledger.losses(), [(LossReason::Late, 3), (LossReason::Moved, 1)]);
    }

    #[test]
    fn processes_are_added_where_a_tree_was_sampled() {
        let counts = ProcessCounts { sampled: 1, without_python: 2, not_permitted: 3, missed: 4 };
        let tree = Ledger { processes: Some(counts), ..Ledger::default() };
        let mut merged = Ledger::default();
        merged.merge(&Ledger::default());
        assert_eq!(merged.processes, None);
        merged.merge(&tree);
        merged.merge(&tree);
        assert_eq!(merged.processes.map(|counts| counts.found()), Some(20));
    }

    #[test]
    fn stops_are_summed_and_the_longest_is_kept() {
        let mut ledger = Ledger::default();
        for nanos in [20, 85, 30] {
            ledger.count_stop(Nanos::from_nanos(nanos));
        }
        assert_eq!(
            (ledger.stops(), ledger.stopped_total(), ledger.stopped_longest()),
            (3, Nanos::from_nanos(135), Nanos::from_nanos(85))
        );
    }

    #[test]
    fn what_was_counted_since_is_the_difference() {
        let at = Timestamp::from_nanos;
        let mut ledger = Ledger { period: Some((at(10), at(20))), ..Ledger::default() };
        ledger.count_shown();
        ledger.count_lost(LossReason::Late);
        let earlier = ledger.clone();
        ledger.count_shown();
        ledger.count_shown();
        ledger.count_lost(LossReason::Moved);
        ledger.count_stop(Nanos::from_nanos(5));
        ledger.period = Some((at(10), at(50)));
        let mut since = ledger.since(&earlier);
        assert_eq!((since.shown(), since.lost(), since.stops()), (2, 1, 1));
        assert_eq!((since.lost_for(LossReason::Late), since.duration()), (0, Nanos::from_nanos(30)));
        since.leave_out(1);
        assert_eq!((since.shown(), since.not_asked_for(), since.attempts()), (1, 1, 3));
    }

    #[test]
    fn merging_adds_counts_and_spans_both_periods() {
        let at = Timestamp::from_nanos;
        let mut first = Ledger { period: Some((at(10), at(20))), own_memory: 7, ..Ledger::default() };
        first.interval = Some(Nanos::from_nanos(100));
        first.count_lost(LossReason::Moved);
        first.count_lost_cpu(Nanos::from_nanos(3));
        let mut second = Ledger { period: Some((at(15), at(40))), own_memory: 5, ..Ledger::default() };
        second.interval = Some(Nanos::from_nanos(200));
        second.count_lost(LossReason::Moved);
        second.count_lost_cpu(Nanos::from_nanos(4));
        second.count_stop(Nanos::from_nanos(9));
        second.count_without_kernel_frames();

        let mut merged = Ledger::default();
        merged.merge(&first);
        assert_eq!(merged, first, "the empty ledger is neutral");
        merged.merge(&second);
        assert_eq!((merged.lost_for(LossReason::Moved), merged.lost_cpu()), (2, Nanos::from_nanos(7)));
        assert_eq!(merged.since(&first).lost_cpu(), Nanos::from_nanos(4));
        assert_eq!(merged.duration(), Nanos::from_nanos(30));
        assert_eq!((merged.own_memory, merged.interval, merged.stops()), (7, None, 1));
        assert_eq!(
            (merged.without_kernel_frames(), merged.attempts()),
            (1, 2),
            "it is no attempt of its own"
        );
        assert_eq!(merged.since(&second).without_kernel_frames(), 0);
    }
}
