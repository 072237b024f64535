//! The periods of a CPU's clock: drawn at random, and drawn anew every few ticks, so that no target that does things
//! at even intervals is in step with it.
//!
//! A fixed period, however odd, is close to a simple fraction of some target's own: then its ticks meet the target at a few
//! places of its cycle, again and again. A period that is uniform between half the mean and one and a half times the mean
//! is near any such fraction for a small part of the time only, and what it meets then differs from draw to draw. The
//! tests simulate both.

use profiler_model::Nanos;

use crate::random::Random;

/// The kernel's timer has no shorter period (`perf_swevent_hrtimer`; kernel/events/core.c).
const SHORTEST: f64 = 10_000.0;

/// A period is kept for so many mean periods, but not for less than the time below: each change interrupts its CPU.
const PERIODS_PER_DRAW: f64 = 5.0;
const SHORTEST_DRAW: f64 = 25e6;

/// All CPUs together change their periods no more often than after this time.
const SHORTEST_BETWEEN_CPUS: f64 = 5e6;

/// The periods of the clocks of all CPUs, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomPeriod {
    shortest: f64,
    longest: f64,
    draw: f64,
}

impl RandomPeriod {
    /// PeriodSequence with which ticks come after each `asked` on average, on so many CPUs.
    ///
    /// A change starts the timer anew, which costs half a tick on average; and ticks come with the mean of the reciprocals
    /// of the periods. Both is made up for.
    pub fn of(asked: Nanos, cpus: usize) -> Self {
        let asked = asked.as_nanos().max(1) as f64;
        let draw = (PERIODS_PER_DRAW * asked).max(SHORTEST_DRAW).max(SHORTEST_BETWEEN_CPUS * cpus as f64);
        let rate = 1.0 / asked + 0.5 / draw;
        let mean = 3f64.ln() / rate;
        if mean / 2.0 >= SHORTEST {
            return RandomPeriod { shortest: mean / 2.0, longest: mean * 1.5, draw };
        }
        RandomPeriod { shortest: SHORTEST, longest: longest_for(rate), draw }
    }

    /// For how long a period is kept: at random as well.
    pub fn kept_for(&self, random: &mut Random) -> Nanos {
        Nanos::from_nanos((self.draw * (0.5 + random.uniform())) as u64)
    }
}

/// In how many parts the range of periods is divided, each of which has its turn.
const STRATA: u8 = 8;

/// The periods of one CPU, one after the other: each part of their range once, in random order, and then again, so that their
/// rate hardly differs from one second to the next.
#[derive(Clone, Debug, Default)]
pub struct PeriodSequence {
    left: Vec<u8>,
}

impl PeriodSequence {
    /// The next one.
    pub fn next(&mut self, range: &RandomPeriod, random: &mut Random) -> Nanos {
        if self.left.is_empty() {
            self.left.extend(0..STRATA);
        }
        let place = (random.uniform() * self.left.len() as f64) as usize;
        let stratum = self.left.swap_remove(place.min(self.left.len() - 1));
        let part = (f64::from(stratum) + random.uniform()) / f64::from(STRATA);
        Nanos::from_nanos((range.shortest + part * (range.longest - range.shortest)) as u64)
    }
}

/// The longest period with which periods from [`SHORTEST`] on, uniform, have this rate of ticks: the mean of their
/// reciprocals, `ln(longest / shortest) / (longest - shortest)`.
fn longest_for(rate: f64) -> f64 {
    let rate_of = |longest: f64| (longest / SHORTEST).ln() / (longest - SHORTEST);
    let (mut low, mut high) = (SHORTEST * 1.000_1, SHORTEST * 100.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if rate_of(middle) > rate { low = middle } else { high = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts of a cycle, one function each.
    const PARTS: [f64; 5] = [0.5, 0.25, 0.15, 0.068, 0.032];

    /// Cycles in milliseconds, and rates in hertz.
    const CYCLES: [f64; 8] = [0.25, 0.5, 1.0, 2.0, 2.03, 4.0, 10.0, 20.0];
    const RATES: [f64; 6] = [100.0, 200.0, 500.0, 1000.0, 2000.0, 10_000.0];

    /// The instants of ticks in so many nanoseconds, as the kernel's timer has them: a change starts it anew.
    fn ticks(range: &RandomPeriod, time: f64, random: &mut Random) -> Vec<f64> {
        let (mut ticks, mut now, mut periods) = (Vec::new(), 0.0, PeriodSequence::default());
        while now < time {
            let period = periods.next(range, random).as_nanos() as f64;
            let end = now + range.kept_for(random).as_nanos() as f64;
            let mut tick = now + period;
            while tick <= end {
                ticks.push(tick);
                tick += period;
            }
            now = end;
        }
        ticks
    }

    /// The share of each part of a cycle, each tick weighted by the time since the one before.
    fn shares(ticks: &[f64], cycle: f64) -> [f64; PARTS.len()] {
        let (mut shares, mut all) = ([0.0; PARTS.len()], 0.0);
        for pair in ticks.windows(2) {
            let (mut phase, weight) = (pair[1] / cycle % 1.0, pair[1] - pair[0]);
            let part = PARTS.iter().position(|part| {
                phase -= part;
                phase < 0.0
            });
            shares[part.unwrap_or(PARTS.len() - 1)] += weight;
            all += weight;
        }
        shares.map(|share| share / all)
    }

    /// The largest error of a share, in standard deviations of as many independent ticks.
    fn worst(ticks: &[f64], cycle: f64) -> f64 {
        let number = ticks.len() as f64;
        let errors = shares(ticks, cycle).into_iter().zip(PARTS);
        errors
            .map(|(share, part)| (share - part).abs() / (part * (1.0 - part) / number).sqrt())
            .fold(0.0, f64::max)
    }

    #[test]
    fn no_cycle_is_in_step_with_random_periods() {
        let mut random = Random::new(16);
        for rate in RATES {
            let range = RandomPeriod::of(Nanos::from_nanos((1e9 / rate) as u64), 2);
            let ticks = ticks(&range, 20_000.0 * 1e9 / rate, &mut random);
            for cycle in CYCLES {
                let worst = worst(&ticks, cycle * 1e6);
                assert!(worst < 6.0, "{rate} Hz, {cycle} ms: {worst:.1} deviations");
            }
        }
    }

    #[test]
    fn fixed_period_is_in_step_with_some_cycle() {
        let fixed: Vec<f64> = (1..20_000).map(|tick| f64::from(tick) * 1e6 * (1.0 + 1.0 / 64.0)).collect();
        let worst = CYCLES.map(|cycle| worst(&fixed, cycle * 1e6)).into_iter().fold(0.0, f64::max);
        assert!(worst > 10.0, "{worst}");
    }

    #[test]
    fn ticks_come_at_the_rate_that_was_asked_for() {
        let mut random = Random::new(1);
        for rate in [100.0, 1000.0, 10_000.0, 60_000.0] {
            let range = RandomPeriod::of(Nanos::from_nanos((1e9 / rate) as u64), 2);
            // Each draw has its own number of ticks.
            let time = 4000.0 * range.draw;
            let ticks = ticks(&range, time, &mut random).len() as f64;
            let expected = rate * time / 1e9;
            assert!((ticks / expected - 1.0).abs() < 0.02, "{rate} Hz: {ticks} of {expected}");
        }
    }

    #[test]
    fn periods_are_none_that_the_kernel_does_not_have() {
        let mut random = Random::new(2);
        for asked in [1, 10_000, 12_000, 1_000_000] {
            let range = RandomPeriod::of(Nanos::from_nanos(asked), 2);
            let mut periods = PeriodSequence::default();
            let mut is_had = || periods.next(&range, &mut random) >= Nanos::from_nanos(SHORTEST as u64);
            assert!((0..100).all(|_| is_had()), "{range:?}");
        }
    }
}
