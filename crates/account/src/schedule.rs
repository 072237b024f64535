//! When samples are taken: at random instants, some four in a stretch of some four mean gaps.
//!
//! Evenly spaced instants would be in step with a program that does things at even intervals, and show one of them too often.
//! Within a stretch each instant is anywhere, so that gaps are nearly exponential, and the stretches are of random length, so
//! that no program is in step with them either. Their number in a second hardly differs from what was asked: if all gaps
//! were exponential, a recording of one second at 100 Hz would have 80 to 120 samples.

use profiler_model::{Nanos, Timestamp};

use crate::random::Random;

/// Hardly a gap is longer than so many mean gaps.
const MAX_GAPS: f64 = 16.0;

/// The instants in a stretch, from the first number on and less than the second.
const STRETCH: (f64, f64) = (2.0, 6.0);

/// A sampler that is so far behind gives up the instants that have passed. Until then it catches up.
const MAX_BACKLOG: Nanos = Nanos::from_nanos(20_000_000);

/// The instants at which to sample.
#[derive(Clone, Debug)]
pub struct Schedule {
    mean_gap: f64,
    next: Timestamp,
    /// What is left of the stretch after `next`, in nanoseconds, and how many instants are to lie there.
    room: f64,
    left: u32,
    /// The part of an instant that the stretches so far were too long for what they have.
    owed: f64,
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
            room: 0.0,
            left: 0,
            owed: 0.0,
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

    /// Changes the rate at `now`, in instants per second: the next stretch begins there. Instants before it stay due.
    pub fn set_rate(&mut self, rate_hz: f64, now: Timestamp) {
        self.mean_gap = 1e9 / rate_hz;
        if self.next > now {
            self.next = now;
            (self.room, self.left) = (0.0, 0);
            self.left_out.retain(|at| *at < now);
            self.advance();
        }
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

    /// The instants up to `until` that are left out for that, in order, each of them once. Those that are left out before the
    /// next instant are known in advance.
    pub fn take_left_out_until(&mut self, until: Timestamp) -> Vec<Timestamp> {
        let count = self.left_out.partition_point(|at| *at <= until);
        self.left_out.drain(..count).collect()
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
            (self.room, self.left) = (0.0, 0);
            self.advance();
        }
        self.left_out.retain(|at| *at >= now);
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
        let mut gap = 0.0;
        if self.left == 0 {
            gap = self.room;
            self.begin_stretch();
        }
        // The first of so many points that are anywhere in the room.
        let until = self.room * (1.0 - self.random.uniform().powf(1.0 / f64::from(self.left)));
        self.room -= until;
        self.left -= 1;
        self.next = self.next + Nanos::from_nanos((gap + until) as u64);
    }

    /// Begins a stretch: of random length, with as many instants as belong into it, at least one.
    fn begin_stretch(&mut self) {
        let (least, most) = STRETCH;
        let length = least + (most - least) * self.random.uniform();
        self.room = length * self.mean_gap;
        let count = (length + self.owed).round();
        self.owed += length - count;
        self.left = count as u32;
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
    fn gaps_are_nearly_exponential_and_seconds_have_as_many_instants() {
        let gaps = gaps(100.0, 100_000);
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean / 0.01 - 1.0).abs() < 1e-3, "{mean}");
        // Of an exponential the deviation equals the mean.
        assert!((0.75..0.9).contains(&(variance.sqrt() / 0.01)), "{}", variance.sqrt());
        let (mut instant, mut seconds) = (0.0, vec![0u32; 1002]);
        for gap in &gaps {
            instant += gap;
            seconds[instant as usize] += 1;
        }
        let seconds = &seconds[..990];
        assert!(seconds.iter().all(|count| (94..=106).contains(count)), "{seconds:?}");
    }

    /// What samples that stand for the gap before them make of the first tenth, the next two and the other seven of a cycle.
    fn shares(rate: f64, cycle: f64) -> [f64; 3] {
        let (mut schedule, mut sums, mut last) =
            (Schedule::new(rate, Timestamp::from_nanos(0), 42), [0.0; 3], Timestamp::from_nanos(0));
        for _ in 0..200_000 {
            let next = schedule.next();
            let phase = (next.since(Timestamp::from_nanos(0)).as_secs_f64() / cycle).fract();
            sums[usize::from(phase >= 0.1) + usize::from(phase >= 0.3)] += next.since(last).as_secs_f64();
            last = next;
            schedule.go_on(next);
        }
        sums.map(|sum| sum / last.since(Timestamp::from_nanos(0)).as_secs_f64())
    }

    #[test]
    fn no_cycle_is_in_step_with_the_instants() {
        for rate in [100.0, 1000.0] {
            for gaps_per_cycle in [0.1, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0] {
                let shares = shares(rate, gaps_per_cycle / rate);
                for (share, truth) in shares.into_iter().zip([0.1, 0.2, 0.7]) {
                    // Five standard errors of 100,000 equal samples: those that stand for gaps say half as much.
                    assert!(
                        (share - truth).abs() < 5.0 * (truth * (1.0 - truth) / 100_000.0_f64).sqrt(),
                        "{gaps_per_cycle} gaps, {rate} Hz: {shares:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn instants_of_a_lowered_rate_are_as_random_and_the_others_are_counted() {
        let mut schedule = Schedule::new(1000.0, Timestamp::from_nanos(0), 42);
        schedule.sample_part(0.1);
        let (mut left_out, mut gaps, mut last) = (0, Vec::new(), schedule.next());
        for _ in 0..20_000 {
            schedule.go_on(last);
            left_out += schedule.take_left_out_until(schedule.next()).len();
            gaps.push(schedule.next().since(last).as_secs_f64());
            last = schedule.next();
        }
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean / 0.01 - 1.0).abs() < 5.0 / (gaps.len() as f64).sqrt(), "{mean}");
        assert!((variance.sqrt() / 0.01 - 1.0).abs() < 0.1);
        let kept = gaps.len() as f64 / (gaps.len() + left_out) as f64;
        assert!((kept - 0.1).abs() < 0.005, "{kept}");
    }

    #[test]
    fn instants_left_out_are_handed_over_once_they_have_passed() {
        let mut schedule = Schedule::new(1000.0, Timestamp::from_nanos(0), 42);
        schedule.sample_part(0.01);
        schedule.go_on(schedule.next());
        let first = schedule.left_out[0];
        assert_eq!(schedule.take_left_out_until(Timestamp::from_nanos(0)), []);
        assert_eq!(schedule.take_left_out_until(first), [first]);
        let rest = schedule.take_left_out_until(schedule.next());
        assert!(rest[0] > first && rest.is_sorted() && schedule.left_out.is_empty());
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
        schedule.sample_part(0.01);
        schedule.go_on(schedule.next());
        let between = schedule.left_out[schedule.left_out.len() / 2];
        schedule.go_on_from(between);
        assert_eq!(
            schedule.take_left_out_until(schedule.next())[0],
            between,
            "earlier ones were not asked for"
        );
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
