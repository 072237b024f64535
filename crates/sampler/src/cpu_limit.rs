//! How much CPU time the profiler may use, and what it gives up to stay within that: first its real-time priority, then
//! instants.
//!
//! It may use more for a moment, as when it meets thousands of threads for the first time. What it has used beyond its
//! share is made good for later.

use profiler_model::{Nanos, Timestamp};
use profiler_os::clock;

/// The clocks are looked at so often.
const WINDOW: Nanos = Nanos::from_nanos(250_000_000);

/// What may be used ahead of its time: the share of so many seconds.
const AHEAD: f64 = 3.0;

/// What was used beyond the share is made good for up to the share of so many seconds: to begin may take longer than
/// anybody wants to wait for the full rate.
const DEBT: f64 = 0.5;

/// Where less than this part of the share is used, more instants are sampled again.
const ROOM: f64 = 0.7;

/// So much more at a time.
const STEP_UP: f64 = 1.5;

/// The rate is not lowered below so many samples a second.
const LOWEST_RATE: f64 = 1.0;

/// Keeps the CPU time of this process within a share of one core.
#[derive(Debug)]
pub struct CpuLimit {
    /// The share.
    most: f64,
    /// The smallest part of the instants.
    least_part: f64,
    /// What was used beyond the share, in seconds of CPU time; negative where there is some left.
    excess: f64,
    /// The last look: when, and what had been used.
    last: (Timestamp, Nanos),
    is_real_time_over: bool,
    part: f64,
}

/// What is to change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Real-time priority is to be given up.
    LeaveRealTime,
    /// Real-time priority may be taken again.
    TakeRealTime,
    /// This part of the instants is to be sampled.
    Sample(f64),
}

impl CpuLimit {
    /// A share of one core (1 is a whole one) for sampling at `rate_hz`, from `now` on, when so much had been `used`.
    pub fn new(most: f64, rate_hz: f64, now: Timestamp, used: Nanos) -> Self {
        CpuLimit {
            most,
            least_part: (LOWEST_RATE / rate_hz).min(1.0),
            excess: -most * AHEAD,
            last: (now, used),
            is_real_time_over: false,
            part: 1.0,
        }
    }

    /// The rate at which is sampled changes, in samples per second.
    pub fn set_rate(&mut self, rate_hz: f64) {
        self.least_part = (LOWEST_RATE / rate_hz).min(1.0);
        self.part = self.part.max(self.least_part);
    }

    /// What is to change at `now`, by the clock of this process, if it is time to look and something is.
    pub fn look(&mut self, now: Timestamp) -> Option<Verdict> {
        (now.since(self.last.0) >= WINDOW).then(|| self.judge(now, clock::own_cpu_time()))?
    }

    /// What is to change at `now`, when so much has been `used`.
    fn judge(&mut self, now: Timestamp, used: Nanos) -> Option<Verdict> {
        let elapsed = now.since(self.last.0).as_secs_f64();
        let spent = used.saturating_sub(self.last.1).as_secs_f64();
        self.last = (now, used);
        let allowed = self.most * elapsed;
        self.excess = (self.excess + spent - allowed).clamp(-self.most * AHEAD, self.most * DEBT);
        if self.excess > 0.0 && spent > allowed {
            self.give_up(allowed / spent)
        } else if self.part < 1.0 && self.excess < 0.0 && spent < ROOM * allowed {
            self.sample(self.part * STEP_UP)
        } else if self.is_real_time_over && self.part == 1.0 && self.excess <= -self.most * AHEAD {
            self.is_real_time_over = false;
            Some(Verdict::TakeRealTime)
        } else {
            None
        }
    }

    fn give_up(&mut self, ratio: f64) -> Option<Verdict> {
        if !std::mem::replace(&mut self.is_real_time_over, true) {
            return Some(Verdict::LeaveRealTime);
        }
        self.sample(self.part * ratio)
    }

    fn sample(&mut self, part: f64) -> Option<Verdict> {
        let part = part.clamp(self.least_part, 1.0);
        (part != std::mem::replace(&mut self.part, part)).then_some(Verdict::Sample(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sampler whose instants cost so much of a core at its full rate, from the second that it begins.
    struct Life {
        limit: CpuLimit,
        now: Timestamp,
        used: f64,
        part: f64,
        left_real_time: bool,
    }

    impl Life {
        fn new(rate_hz: f64) -> Self {
            let now = Timestamp::from_nanos(1_000_000_000);
            let limit = CpuLimit::new(0.1, rate_hz, now, Nanos::ZERO);
            Life { limit, now, used: 0.0, part: 1.0, left_real_time: false }
        }

        /// Lives so many seconds; returns what it used of a core meanwhile.
        fn live(&mut self, seconds: f64, cost: f64) -> f64 {
            let before = self.used;
            for _ in 0..(seconds * 4.0) as u32 {
                self.now = self.now + WINDOW;
                self.used += cost * self.part * WINDOW.as_secs_f64();
                match self.limit.judge(self.now, Nanos::from_nanos((self.used * 1e9) as u64)) {
                    None => {}
                    Some(Verdict::LeaveRealTime) => self.left_real_time = true,
                    Some(Verdict::TakeRealTime) => {
                        assert_eq!(self.part, 1.0, "the rate comes back first");
                        self.left_real_time = false;
                    }
                    Some(Verdict::Sample(part)) => {
                        assert!(self.left_real_time, "real-time priority goes first");
                        self.part = part;
                    }
                }
            }
            (self.used - before) / seconds
        }
    }

    #[test]
    fn sampler_within_its_share_gives_up_nothing() {
        let mut life = Life::new(100.0);
        life.live(60.0, 0.099);
        assert_eq!((life.part, life.left_real_time), (1.0, false));
    }

    #[test]
    fn sampler_that_would_take_a_core_stays_within_its_share() {
        let mut life = Life::new(100.0);
        life.live(1.0, 0.9);
        assert!(life.left_real_time, "within a second");
        let used = life.live(20.0, 0.9);
        assert!(used <= 0.101, "{used}");
        assert!((life.part - 0.1 / 0.9).abs() < 0.03, "{}", life.part);
    }

    #[test]
    fn short_burst_of_work_gives_up_nothing() {
        let mut life = Life::new(100.0);
        life.live(4.0, 0.01);
        life.live(0.25, 1.2);
        life.live(10.0, 0.01);
        assert_eq!((life.part, life.left_real_time), (1.0, false));
    }

    #[test]
    fn full_rate_comes_back_when_sampling_is_cheap_again() {
        let mut life = Life::new(100.0);
        life.live(10.0, 0.9);
        assert!(life.part < 0.2);
        life.live(20.0, 0.01);
        assert_eq!((life.part, life.left_real_time), (1.0, false));
    }

    #[test]
    fn long_beginning_costs_the_full_rate_for_seconds_only() {
        let mut life = Life::new(100.0);
        life.live(2.0, 1.0);
        life.live(5.0, 0.05);
        assert_eq!(life.part, 1.0);
    }

    #[test]
    fn some_samples_are_taken_whatever_they_cost() {
        let mut life = Life::new(100.0);
        life.live(100.0, 100.0);
        assert_eq!(life.part, 0.01);
    }
}
