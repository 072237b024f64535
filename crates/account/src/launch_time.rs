//! What of a process was before the first look at it: it belongs to the recording, and could not be sampled.

use profiler_model::{Nanos, Timestamp};

use crate::schedule::Schedule;
use crate::ticks::ticks;

/// The beginning of a process that was started to be sampled. A look is needed to see that its Python is up, and on a
/// busy machine the next one comes late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchTime {
    /// When it was started.
    pub started: Timestamp,
    /// When it was last seen without Python: nothing could be sampled until then.
    pub without_python: Timestamp,
    /// The CPU time that it had used by then.
    pub cpu_without_python: Nanos,
}

impl LaunchTime {
    /// How long it certainly had no Python.
    pub fn time_without_python(&self) -> Nanos {
        self.without_python.since(self.started)
    }

    /// How many instants of a schedule passed before sampling began at `now`.
    pub fn missed_instants(&self, rate_hz: f64, now: Timestamp) -> u64 {
        let start = self.without_python;
        Schedule::new(rate_hz, start, start.as_nanos()).instants_until(now)
    }

    /// How many ticks of the CPU's clock passed while it had used CPU time up to `cpu`.
    pub fn missed_ticks(&self, period: Nanos, cpu: Nanos) -> u64 {
        match period {
            Nanos::ZERO => 0,
            period => ticks(cpu.saturating_sub(self.cpu_without_python), period),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nanos(millis: u64) -> Nanos {
        Nanos::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn what_passed_since_python_may_have_been_up_was_missed() {
        let started = Timestamp::from_nanos(7_000_000_000);
        let beginning =
            LaunchTime { started, without_python: started + nanos(20), cpu_without_python: nanos(15) };
        assert_eq!(beginning.time_without_python(), nanos(20));
        assert_eq!(beginning.missed_instants(1000.0, started + nanos(20)), 0);
        // A thousand on average, with a deviation of 32: five of them.
        let missed = beginning.missed_instants(1000.0, started + nanos(1020));
        assert!((840..1160).contains(&missed), "{missed}");
        assert_eq!(beginning.missed_ticks(nanos(10), nanos(15)), 0);
        assert_eq!(beginning.missed_ticks(nanos(10), nanos(615)), 60);
        assert_eq!(beginning.missed_ticks(Nanos::ZERO, nanos(615)), 0);
    }
}
