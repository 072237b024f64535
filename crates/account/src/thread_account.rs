//! The time of one thread: how much of it is in events already, and what the next event stands for. These are all rules by
//! which samples, losses and skips get their weights.
//!
//! Whatever becomes of a sample, its time is taken once: the times of all events of a thread add up to what its clocks
//! counted. A sample stands for the CPU time since the one before it, so that the sums are exact at every rate.

use profiler_model::{ClockReading, Nanos, SchedStat, Timestamp};

use crate::OffCpuClock;

/// A thread that used as much CPU time as passes in this many mean gaps between samples was met on a CPU by one of
/// them, but for one time in hundreds of millions: otherwise what is known of its context switches is wrong.
const MAX_GAPS_KEPT_BACK: f64 = 20.0;

/// How much CPU time may wait for a sample that meets its thread on a CPU, at this sample rate.
pub fn longest_kept_back(rate_hz: f64) -> Nanos {
    Nanos::from_nanos((MAX_GAPS_KEPT_BACK * 1e9 / rate_hz) as u64)
}

/// For how much time an event stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventWeight {
    /// Time on a CPU.
    pub cpu: Nanos,
    /// Time in all.
    pub wall: Nanos,
}

/// The time of a thread that is in no event yet.
#[derive(Clone, Copy, Debug)]
pub struct ThreadAccount {
    /// The CPU time, by the scheduler's counters, that is in events.
    cpu: Nanos,
    /// The instant up to which its wall time is.
    until: Timestamp,
    /// Its time off the CPU, where ticks measure what it runs.
    off_cpu: OffCpuClock,
}

impl ThreadAccount {
    /// Counts from `now` on, when the scheduler had counted so much.
    pub fn new(now: Timestamp, schedule: &SchedStat) -> Self {
        ThreadAccount { cpu: schedule.cpu, until: now, off_cpu: OffCpuClock::from(now, schedule) }
    }

    /// Counts from the birth of the thread on.
    pub fn from_birth(&mut self, born: Timestamp) {
        (self.cpu, self.until) = (Nanos::ZERO, born);
    }

    /// Leaves out what was before `now`; `schedule` is what the scheduler has counted, if the thread still is there.
    pub fn restart(&mut self, now: Timestamp, schedule: Option<&SchedStat>) {
        match schedule {
            Some(schedule) => *self = ThreadAccount::new(now, schedule),
            None => self.until = now,
        }
    }

    /// How much of its CPU time is in events.
    pub fn reported_cpu(&self) -> Nanos {
        self.cpu
    }

    /// Takes note that so much of its CPU time is in events, as another account of the same thread says.
    pub fn raise_reported_cpu(&mut self, cpu: Nanos) {
        self.cpu = self.cpu.max(cpu);
    }

    /// What an event of the instant `at` stands for. Of the CPU time not more than `longest` is kept back for later events.
    ///
    /// Where a thread loses its CPU, or falls asleep, is no accident: it is in system calls, more often than not. A sample taken
    /// meanwhile says nothing of where its CPU time went, so that it stands for none; the next one that meets it on a CPU does.
    pub fn take(&mut self, at: Timestamp, clocks: &ClockReading, longest: Nanos) -> EventWeight {
        match *clocks {
            ClockReading::Scheduler { cpu, had_cpu } => {
                let unreported = cpu.saturating_sub(self.cpu);
                let cpu = if had_cpu || unreported >= longest { unreported } else { Nanos::ZERO };
                self.cpu += cpu;
                EventWeight { cpu, wall: self.take_wall(at) }
            }
            ClockReading::OffCpu { only_since_look: true, .. } => {
                EventWeight { cpu: Nanos::ZERO, wall: self.off_cpu.gap() }
            }
            ClockReading::OffCpu { schedule, only_since_look: false } => {
                EventWeight { cpu: Nanos::ZERO, wall: self.off_cpu.take(at, &schedule) }
            }
            ClockReading::Measured { cpu, wall } => {
                self.until = at;
                EventWeight { cpu, wall }
            }
        }
    }

    /// The wall time up to `at`. The CPU time stays for the next event that has read the clocks.
    pub fn take_wall(&mut self, at: Timestamp) -> Nanos {
        let wall = at.since(self.until);
        self.until = self.until.max(at);
        wall
    }

    /// Notes a look at a thread that ticks measure while it runs. `sees_queue` says whether the thread would have been seen
    /// waiting for a CPU.
    pub fn note_look(&mut self, now: Timestamp, schedule: &SchedStat, sees_queue: bool) {
        self.off_cpu.look(now, schedule, sees_queue);
    }

    /// What a look stands for that says what the thread is doing, but has no stack.
    pub fn take_look(&mut self, schedule: &SchedStat) -> EventWeight {
        let cpu = schedule.cpu.saturating_sub(self.cpu);
        self.cpu += cpu;
        EventWeight { cpu, wall: self.off_cpu.gap() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    const LONGEST: Nanos = Nanos::from_nanos(20_000);

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    fn nanos(nanos: u64) -> Nanos {
        Nanos::from_nanos(nanos)
    }

    fn schedule(cpu: u64) -> SchedStat {
        SchedStat { cpu: nanos(cpu), ..SchedStat::default() }
    }

    fn scheduler(cpu: u64, had_cpu: bool) -> ClockReading {
        ClockReading::Scheduler { cpu: nanos(cpu), had_cpu }
    }

    fn weight(cpu: u64, wall: u64) -> EventWeight {
        EventWeight { cpu: nanos(cpu), wall: nanos(wall) }
    }

    #[test]
    fn sample_without_cpu_keeps_cpu_time_for_the_next_one() {
        let mut account = ThreadAccount::new(at(100), &schedule(50));
        assert_eq!(account.take(at(200), &scheduler(80, false), LONGEST), weight(0, 100));
        assert_eq!(account.take(at(300), &scheduler(90, true), LONGEST), weight(40, 100));
        assert_eq!(account.take(at(400), &scheduler(90 + 20_000, false), LONGEST), weight(20_000, 100));
    }

    #[test]
    fn skipped_time_is_taken_once() {
        let mut account = ThreadAccount::new(at(100), &schedule(50));
        assert_eq!(account.take_wall(at(150)), nanos(50));
        assert_eq!(account.take_wall(at(140)), Nanos::ZERO, "an instant of before");
        assert_eq!(account.take(at(200), &scheduler(80, true), LONGEST), weight(30, 50));
    }

    #[test]
    fn time_in_events_of_another_account_is_taken_once() {
        let mut account = ThreadAccount::new(at(100), &schedule(50));
        account.raise_reported_cpu(nanos(70));
        account.raise_reported_cpu(nanos(60));
        assert_eq!(account.take(at(200), &scheduler(80, true), LONGEST), weight(10, 100));
        assert_eq!(account.reported_cpu(), nanos(80));
    }

    #[test]
    fn time_before_a_restart_is_in_no_event() {
        let mut account = ThreadAccount::new(at(100), &schedule(50));
        account.restart(at(200), Some(&schedule(90)));
        assert_eq!(account.take(at(250), &scheduler(100, true), LONGEST), weight(10, 50));
        account.from_birth(at(10));
        assert_eq!(account.take(at(300), &scheduler(100, true), LONGEST), weight(100, 290));
    }

    /// Random lives: the events of a thread, whatever they are, have all of its time and no more.
    #[test]
    fn times_of_all_events_add_up_to_the_life() {
        let mut random = Random::new(3);
        for _ in 0..200 {
            let (mut account, mut sum) =
                (ThreadAccount::new(at(1_000), &schedule(7)), EventWeight::default());
            let (mut now, mut cpu) = (1_000, 7);
            for _ in 0..100 {
                let step = (random.uniform() * 1_000.0) as u64;
                now += step;
                cpu += (random.uniform() * step as f64) as u64;
                let taken = match (random.uniform() * 3.0) as u8 {
                    0 => weight(0, account.take_wall(at(now)).as_nanos()),
                    kind => account.take(at(now), &scheduler(cpu, kind == 1), LONGEST),
                };
                sum.cpu += taken.cpu;
                sum.wall += taken.wall;
            }
            let last = account.take(at(now), &scheduler(cpu, true), LONGEST);
            assert_eq!((sum.cpu + last.cpu, sum.wall + last.wall), (nanos(cpu - 7), nanos(now - 1_000)));
        }
    }
}
