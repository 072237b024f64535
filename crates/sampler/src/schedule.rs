//! When samples are taken: at random instants, exponentially spaced.
//!
//! Evenly spaced samples would be in step with a program that does things at even intervals, and show one of
//! them too often. Exponential gaps make every instant equally likely, whatever came before.

use profiler_model::{Nanos, Timestamp};

use crate::random::Random;

/// No gap is longer than so many mean gaps: a progress line should move, and the chance is e^-16.
const MAX_GAPS: f64 = 16.0;

/// A sampler that is so far behind gives up the instants that have passed. Until then it catches up.
const MAX_BACKLOG: Nanos = Nanos::from_nanos(20_000_000);

/// The instants at which to sample.
#[derive(Debug)]
pub struct Schedule {
    mean_gap: f64,
    next: Timestamp,
    random: Random,
    /// The part of the instants that are sampled.
    part: f64,
    /// The instants before the next one that are not.
    left_out: Vec<Timestamp>,
}

impl Schedule {
    /// A schedule of `rate_hz` instants a second on average, beginning at `start`.
    pub fn new(rate_hz: f64, start: Timestamp, seed: u64) -> Self {
        let mut schedule = Schedule {
            mean_gap: 1e9 / rate_hz,
            next: start,
            random: Random::new(seed),
            part: 1.0,
            left_out: Vec::new(),
        };
        schedule.advance();
        schedule
    }

    /// The mean gap between two instants.
    pub fn mean_gap(&self) -> Nanos {
        Nanos::from_nanos(self.mean_gap as u64)
    }

    /// The instant of the next sample.
    pub fn next(&self) -> Timestamp {
        self.next
    }

    /// Has only this part of the instants be sampled from now on, chosen at random: those that are left are as random as
    /// all of them.
    pub fn sample_part(&mut self, part: f64) {
        self.part = part;
    }

    /// The instants that were left out for that before the next one, since this was last asked.
    pub fn take_left_out(&mut self) -> Vec<Timestamp> {
        std::mem::take(&mut self.left_out)
    }

    /// Goes on to the instant after this one. Where that lies too far back because the sampler was held
    /// up, goes on to the first one in the future; returns how many were left out.
    pub fn go_on(&mut self, now: Timestamp) -> u64 {
        let mut left_out = 0;
        self.go_on_telling(now, &mut |_| left_out += 1);
        left_out
    }

    /// The same; tells each instant that was left out.
    pub fn go_on_telling(&mut self, now: Timestamp, left_out: &mut dyn FnMut(Timestamp)) {
        self.advance();
        if now.since(self.next) <= MAX_BACKLOG.max(Nanos::from_nanos((self.mean_gap * MAX_GAPS) as u64)) {
            return;
        }
        self.pass_until(now, left_out);
    }

    /// Goes on to the first instant after `now`: those that have passed were not asked for.
    pub fn go_on_from(&mut self, now: Timestamp) {
        while self.next < now {
            self.next = now;
            self.left_out.clear();
            self.advance();
        }
    }

    /// Goes on to the first instant that is not before `now`; returns how many were.
    pub fn instants_until(&mut self, now: Timestamp) -> u64 {
        let mut passed = 0;
        self.pass_until(now, &mut |_| passed += 1);
        passed
    }

    /// The same; tells each of them.
    pub fn pass_until(&mut self, now: Timestamp, passed: &mut dyn FnMut(Timestamp)) {
        while self.next < now {
            passed(self.next);
            self.advance();
        }
    }

    fn advance(&mut self) {
        self.advance_by_one();
        while self.part < 1.0 && self.random.uniform() > self.part {
            self.left_out.push(self.next);
            self.advance_by_one();
        }
    }

    fn advance_by_one(&mut self) {
        let gap = (-self.random.uniform().ln()).min(MAX_GAPS) * self.mean_gap;
        self.next = self.next + Nanos::from_nanos(gap as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(rate: f64, count: usize) -> Vec<f64> {
        let mut schedule = Schedule::new(rate, Timestamp::from_nanos(0), 42);
        let mut last = schedule.next();
        (0..count)
            .map(|_| {
                schedule.go_on(last);
                let gap = schedule.next().since(last).as_secs_f64();
                last = schedule.next();
                gap
            })
            .collect()
    }

    #[test]
    fn gaps_are_exponential_with_the_mean_that_was_asked() {
        let gaps = gaps(1000.0, 100_000);
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Five standard errors: 1/sqrt(n) for the mean; of an exponential the deviation equals the mean.
        assert!((mean / 0.001 - 1.0).abs() < 5.0 / (gaps.len() as f64).sqrt());
        assert!((variance.sqrt() / 0.001 - 1.0).abs() < 0.03);
    }

    #[test]
    fn instants_of_a_lowered_rate_are_as_random_and_the_others_are_counted() {
        let mut schedule = Schedule::new(1000.0, Timestamp::from_nanos(0), 42);
        schedule.sample_part(0.1);
        let (mut left_out, mut gaps, mut last) = (0, Vec::new(), schedule.next());
        for _ in 0..20_000 {
            schedule.go_on(last);
            left_out += schedule.take_left_out().len();
            gaps.push(schedule.next().since(last).as_secs_f64());
            last = schedule.next();
        }
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean / 0.01 - 1.0).abs() < 5.0 / (gaps.len() as f64).sqrt(), "{mean}");
        assert!((variance.sqrt() / 0.01 - 1.0).abs() < 0.06);
        let kept = gaps.len() as f64 / (gaps.len() + left_out) as f64;
        assert!((kept - 0.1).abs() < 0.005, "{kept}");
    }

    #[test]
    fn what_nobody_asked_for_is_not_late() {
        let mut schedule = Schedule::new(1000.0, Timestamp::from_nanos(0), 1);
        let later = schedule.next() + Nanos::from_nanos(3_600_000_000_000);
        schedule.go_on_from(later);
        assert!(schedule.next() >= later && schedule.next().since(later) <= Nanos::from_nanos(16_000_000));
        let next = schedule.next();
        schedule.go_on_from(later);
        assert_eq!((schedule.next(), schedule.go_on(later)), (next, 0));
    }

    #[test]
    fn a_short_delay_is_caught_up_and_a_long_one_is_counted() {
        let mut schedule = Schedule::new(1000.0, Timestamp::from_nanos(0), 1);
        let late = schedule.next() + Nanos::from_nanos(10_000_000);
        assert_eq!(schedule.go_on(late), 0);
        let very_late = schedule.next() + Nanos::from_nanos(1_000_000_000);
        let left_out = schedule.go_on(very_late);
        assert!((900..1100).contains(&left_out), "{left_out}");
        assert!(schedule.next() >= very_late);
    }
}
