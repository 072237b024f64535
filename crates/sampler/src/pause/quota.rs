//! Keeps below a quota of CPU time: a profiler that has used it up is suspended by the kernel, for tens of milliseconds, and
//! with it any thread that it holds stopped at that moment.

use profiler_model::{Nanos, Timestamp};
use profiler_os::CpuQuota;

/// The part of the quota, in percent, that is used in a window as long as the kernel's period. Two windows may share a
/// period, since nothing tells when one begins; and each CPU takes its part of the quota in advance.
const USED_PERCENT: u64 = 40;

/// Says when to rest.
#[derive(Debug)]
pub struct QuotaGuard {
    /// How much CPU time may be used in a window.
    allowed: Nanos,
    window: Nanos,
    began: Timestamp,
    /// The CPU time that had been used when the window began.
    cpu_before: Nanos,
}

impl QuotaGuard {
    /// For this quota; the first window begins at `now`, with so much CPU time used.
    pub fn new(quota: CpuQuota, now: Timestamp, cpu: Nanos) -> Self {
        let allowed = Nanos::from_nanos(quota.time.as_nanos() / 100 * USED_PERCENT);
        QuotaGuard { allowed, window: quota.period, began: now, cpu_before: cpu }
    }

    /// Until when to rest, if what was allowed is used up; `cpu` is the time that was used in all.
    pub fn rests_until(&mut self, now: Timestamp, cpu: Nanos) -> Option<Timestamp> {
        if now.since(self.began) >= self.window {
            (self.began, self.cpu_before) = (now, cpu);
        }
        (cpu.saturating_sub(self.cpu_before) >= self.allowed).then(|| self.began + self.window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(micros: u64) -> Nanos {
        Nanos::from_nanos(micros * 1000)
    }

    #[test]
    fn sampler_rests_when_its_part_of_the_quota_is_used() {
        let at = |at: u64| Timestamp::from_nanos(micros(at).as_nanos());
        let quota = CpuQuota { time: micros(5000), period: micros(100_000) };
        let mut guard = QuotaGuard::new(quota, at(0), micros(70_000));
        assert_eq!(guard.rests_until(at(10_000), micros(71_999)), None);
        assert_eq!(guard.rests_until(at(20_000), micros(72_000)), Some(at(100_000)));
        assert_eq!(guard.rests_until(at(99_999), micros(72_000)), Some(at(100_000)));
        assert_eq!(guard.rests_until(at(101_000), micros(72_100)), None, "the next window");
        assert_eq!(guard.rests_until(at(200_999), micros(74_100)), Some(at(201_000)));
    }

    #[test]
    fn use_never_exceeds_the_quota_in_any_period() {
        let quota = CpuQuota { time: micros(5000), period: micros(100_000) };
        let mut guard = QuotaGuard::new(quota, Timestamp::from_nanos(0), Nanos::ZERO);
        let (mut cpu, mut used) = (Nanos::ZERO, Vec::new());
        // Each sample takes 100 us of CPU time; there is one in each millisecond.
        for milli in 0..2000 {
            let now = Timestamp::from_nanos(milli * 1_000_000);
            if guard.rests_until(now, cpu).is_none() {
                cpu += micros(100);
            }
            used.push(cpu);
        }
        let most = used.windows(100).map(|period| period[99].saturating_sub(period[0])).max();
        assert!(most.unwrap() < micros(5000), "{most:?}");
        assert!(cpu > micros(2000 * 18), "{cpu:?}");
    }
}
