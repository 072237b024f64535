//! The time of a thread off the CPU that stands in no sample yet: what went by, less what it ran by the scheduler's own
//! account. So however seldom a thread is met off the CPU, its waits add up to the time that it waited.
//!
//! Sleeping and waiting for a CPU are one account. The scheduler reports how long a thread waited for a CPU only when the
//! wait is over: in a separate account, that time would go to the place of the next such wait. A thread that is woken and
//! waits for a CPU is where it slept, and one that is preempted is where it ran.

use profiler_model::{Nanos, SchedStat, Timestamp};

/// What of a thread's time off the CPU was accounted for already.
#[derive(Clone, Copy, Debug)]
pub struct OffCpuClock {
    from: Timestamp,
    /// What it had run by then.
    ran: Nanos,
    /// What it had waited for a CPU by the last look, and how much of that nobody could have seen.
    queued: Nanos,
    unseen: Nanos,
    /// What of its time off the CPU since then was taken.
    taken: Nanos,
    /// When it was looked at last, and the time between that look and the one before.
    looked: Timestamp,
    gap: Nanos,
}

impl OffCpuClock {
    /// Nothing is accounted for that comes after `now`, when the scheduler had counted `schedule`.
    pub fn from(now: Timestamp, schedule: &SchedStat) -> Self {
        OffCpuClock {
            from: now,
            ran: schedule.cpu,
            queued: schedule.queued,
            unseen: Nanos::ZERO,
            taken: Nanos::ZERO,
            looked: now,
            gap: Nanos::ZERO,
        }
    }

    /// The time for which it was off the CPU, up to `now`: it is, so that `schedule` is exact. That may have been asked
    /// for a moment after `now`, by one that lost its CPU in between; the next time makes good for it.
    pub fn take(&mut self, now: Timestamp, schedule: &SchedStat) -> Nanos {
        let ran = schedule.cpu.saturating_sub(self.ran);
        let away = now.since(self.from).saturating_sub(ran).saturating_sub(self.unseen);
        let new = away.saturating_sub(self.taken);
        self.taken += new;
        new
    }

    /// Notes that it is looked at. What it waited for a CPU is not told where that cannot be seen (`sees_queue`), as it
    /// would go to where the thread sleeps.
    pub fn look(&mut self, now: Timestamp, schedule: &SchedStat, sees_queue: bool) {
        self.gap = now.since(self.looked);
        self.looked = now;
        let queued = schedule.queued.saturating_sub(self.queued);
        self.queued += queued;
        if !sees_queue {
            self.unseen += queued;
        }
    }

    /// The time between the last two looks.
    pub fn gap(&self) -> Nanos {
        self.gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn schedule(cpu: u64, queued: u64) -> SchedStat {
        SchedStat { cpu: Nanos::from_nanos(cpu), queued: Nanos::from_nanos(queued), timeslices: 0 }
    }

    #[test]
    fn waits_add_up_to_what_went_by_less_what_it_ran() {
        let at = Timestamp::from_nanos;
        let mut account = OffCpuClock::from(at(100), &schedule(1_000, 50));
        assert_eq!(account.take(at(200), &schedule(1_000, 50)), Nanos::from_nanos(100));
        // Met running at the looks in between.
        assert_eq!(account.take(at(700), &schedule(1_300, 90)), Nanos::from_nanos(200));
        // What it ran between two looks at clocks is no wait, at this time or the next.
        assert_eq!(account.take(at(710), &schedule(1_350, 90)), Nanos::ZERO);
        assert_eq!(account.take(at(810), &schedule(1_350, 90)), Nanos::from_nanos(60));
    }

    #[test]
    fn what_nobody_could_see_is_told_nowhere() {
        let at = Timestamp::from_nanos;
        let mut account = OffCpuClock::from(at(100), &schedule(0, 50));
        account.look(at(710), &schedule(0, 60), false);
        assert_eq!(account.gap(), Nanos::from_nanos(610));
        account.look(at(720), &schedule(0, 80), true);
        assert_eq!(account.gap(), Nanos::from_nanos(10));
        assert_eq!(account.take(at(800), &schedule(0, 80)), Nanos::from_nanos(690));
    }

    /// What a thread does, again and again: for how many microseconds, whether it has a CPU, and in which function.
    type Life = [(u64, bool, usize)];

    /// Sleeps in the first function, waits for a CPU there, and works in the second, preempted in between.
    const WAKES_LATE: &Life =
        &[(30_000, false, 0), (20_000, false, 0), (3_000, true, 1), (7_000, false, 1), (500, true, 1)];
    /// Works in the first, where it is preempted for long, and in the second, where it only waits for short times.
    const LONG_AND_SHORT: &Life = &[
        (2_000, true, 0),
        (9_000, false, 0),
        (1_000, true, 1),
        (200, false, 1),
        (1_000, true, 1),
        (200, false, 1),
    ];

    /// What looks at random instants, a millisecond apart on average, make of ten thousand rounds of a life, and what was
    /// the case: microseconds off the CPU in each function.
    fn shown_and_true(life: &Life) -> ([f64; 2], [f64; 2]) {
        let (mut clock, mut ran, mut queued) = (0, 0, 0);
        let (mut shown, mut truth) = ([0.0; 2], [0.0; 2]);
        let mut random = Random::new(7);
        let mut account = OffCpuClock::from(Timestamp::default(), &SchedStat::default());
        let mut next = 0.0;
        for (micros, has_cpu, function) in life.iter().cycle().take(10_000 * life.len()) {
            let (began, length) = (clock, micros * 1_000);
            clock += length;
            while next < clock as f64 {
                let now = Timestamp::from_nanos((next as u64).max(began));
                let schedule = schedule(ran, queued);
                account.look(now, &schedule, true);
                if !has_cpu {
                    shown[*function] += account.take(now, &schedule).as_nanos() as f64 / 1e3;
                }
                next -= random.uniform().ln() * 1e6;
            }
            match has_cpu {
                true => ran += length,
                false => truth[*function] += *micros as f64,
            }
            // Whatever of it was sleep: it is told when it is over.
            queued += if *has_cpu { 0 } else { length / 2 };
        }
        (shown, truth)
    }

    #[test]
    fn time_is_told_where_it_was_spent() {
        for life in [WAKES_LATE, LONG_AND_SHORT] {
            let (shown, truth) = shown_and_true(life);
            for (shown, truth) in shown.into_iter().zip(truth) {
                // Each round has more than one look on average: five standard errors are at most 5 % of 10,000 rounds.
                assert!((shown / truth - 1.0).abs() < 0.05, "{shown} for {truth} of {life:?}");
            }
            let (all_shown, all): (f64, f64) = (shown.iter().sum(), truth.iter().sum());
            assert!((all_shown / all - 1.0).abs() < 1e-4, "{all_shown} of {all}");
        }
    }
}
