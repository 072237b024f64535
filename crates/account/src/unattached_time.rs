//! What passes while a process has no Python that is known: it may have one for a while before a look finds it. Where
//! a timer samples, that are instants; where the CPUs' clocks do, the ticks that its CPU time is worth.

use profiler_model::{Nanos, Timestamp};

use crate::ticks::ticks;

/// What has passed of a process that is waited for.
#[derive(Clone, Copy, Debug)]
pub struct UnattachedTime {
    /// When it was last known to have no Python: at the last look, or when it began.
    without_python: Timestamp,
    /// The CPU time that it had used when it began, and by then.
    cpu_before: Nanos,
    cpu_without_python: Nanos,
    /// Instants up to then.
    without: u64,
    /// Instants since, at which it may have had one.
    unseen: u64,
    /// Both in ticks of clocks with other periods, before those by CPU time.
    ticks_without: u64,
    ticks_unseen: u64,
}

impl UnattachedTime {
    /// Of a process that began at `since`, with so much CPU time that belongs to what was before.
    pub fn since(since: Timestamp, cpu: Nanos) -> Self {
        UnattachedTime {
            without_python: since,
            cpu_before: cpu,
            cpu_without_python: cpu,
            without: 0,
            unseen: 0,
            ticks_without: 0,
            ticks_unseen: 0,
        }
    }

    /// It was looked at, and had none.
    pub fn had_none(&mut self, now: Timestamp, cpu: Option<Nanos>) {
        self.without += std::mem::take(&mut self.unseen);
        self.ticks_without += std::mem::take(&mut self.ticks_unseen);
        self.without_python = now;
        self.cpu_without_python = cpu.unwrap_or(self.cpu_without_python);
    }

    /// So many instants were due at which it is not known whether it had one.
    pub fn count_unseen(&mut self, instants: u64) {
        self.unseen += instants;
    }

    /// Takes all instants, whether it had a Python at them or not.
    pub fn take_instants(&mut self) -> u64 {
        std::mem::take(&mut self.without) + std::mem::take(&mut self.unseen)
    }

    /// So many instants were due at `at`.
    pub fn count(&mut self, at: Timestamp, instants: u64) {
        match at <= self.without_python {
            true => self.without += instants,
            false => self.unseen += instants,
        }
    }

    /// Takes what has passed since the last look, in ticks of a clock of this period, or in instants where there is none.
    pub fn take_unseen(&mut self, now: Timestamp, period: Option<Nanos>, cpu: Option<Nanos>) -> u64 {
        let unseen = match period {
            Some(period) => self.by_ticks(period, cpu).1,
            None => self.unseen,
        };
        self.unseen = 0;
        self.leave_out(now, cpu);
        unseen
    }

    /// Nobody asked for what was since the last look, up to `now`.
    pub fn leave_out(&mut self, now: Timestamp, cpu: Option<Nanos>) {
        let cpu = cpu.unwrap_or(self.cpu_without_python);
        self.ticks_unseen = 0;
        // Nor is that CPU time part of what it used without Python.
        self.cpu_before += cpu.saturating_sub(self.cpu_without_python);
        (self.without_python, self.cpu_without_python) = (now, cpu);
    }

    /// When it was last known to have none.
    pub fn without_python(&self) -> Timestamp {
        self.without_python
    }

    /// The CPU time that it had used by then.
    pub fn cpu_without_python(&self) -> Nanos {
        self.cpu_without_python
    }

    /// The instants at which it had none, and those at which it may have had one.
    pub fn by_instants(&self) -> (u64, u64) {
        (self.without, self.unseen)
    }

    /// The same in ticks of a clock of this period, as it has used so much CPU time by now.
    pub fn by_ticks(&self, period: Nanos, cpu: Option<Nanos>) -> (u64, u64) {
        if period == Nanos::ZERO {
            return (0, 0);
        }
        let without = self.cpu_without_python.saturating_sub(self.cpu_before);
        let unseen = cpu.unwrap_or_default().saturating_sub(self.cpu_without_python);
        (self.ticks_without + ticks(without, period), self.ticks_unseen + ticks(unseen, period))
    }

    /// The clock has had this period up to now, and will have another one; the process has used so much CPU time by now.
    pub fn change_period(&mut self, period: Nanos, cpu: Option<Nanos>) {
        (self.ticks_without, self.ticks_unseen) = self.by_ticks(period, cpu);
        let used = cpu.unwrap_or_default().max(self.cpu_without_python);
        (self.cpu_before, self.cpu_without_python) = (used, used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000)
    }

    fn cpu(millis: u64) -> Nanos {
        Nanos::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn what_passed_since_the_last_look_was_missed() {
        let mut missed = UnattachedTime::since(at(10), cpu(2));
        missed.count(at(20), 3);
        assert_eq!(missed.by_instants(), (0, 3), "a fork has what its parent has");
        missed.had_none(at(30), Some(cpu(12)));
        // An instant that was left out before the look is told of only afterwards.
        missed.count(at(29), 1);
        missed.count(at(31), 1);
        assert_eq!(missed.by_instants(), (4, 1));
        assert_eq!(missed.by_ticks(cpu(5), Some(cpu(42))), (2, 6));
        assert_eq!(missed.by_ticks(Nanos::ZERO, Some(cpu(42))), (0, 0));
        assert_eq!(missed.by_ticks(cpu(5), None), (2, 0), "it has ended");
        missed.count_unseen(2);
        assert_eq!((missed.take_instants(), missed.take_instants()), (7, 0));
    }

    #[test]
    fn what_was_taken_is_not_taken_again() {
        let mut missed = UnattachedTime::since(at(10), cpu(0));
        missed.count(at(20), 3);
        assert_eq!(missed.take_unseen(at(25), None, Some(cpu(10))), 3);
        missed.count(at(30), 1);
        assert_eq!(missed.take_unseen(at(35), Some(cpu(5)), Some(cpu(40))), 6);
        assert_eq!(missed.take_unseen(at(45), Some(cpu(5)), None), 0, "it has ended");
    }

    #[test]
    fn ticks_of_each_period_are_counted_by_it() {
        let mut missed = UnattachedTime::since(at(10), cpu(0));
        missed.had_none(at(20), Some(cpu(10)));
        missed.change_period(cpu(5), Some(cpu(20)));
        assert_eq!(missed.by_ticks(cpu(1), Some(cpu(23))), (2, 2 + 3));
        missed.had_none(at(30), Some(cpu(23)));
        assert_eq!(missed.by_ticks(cpu(1), Some(cpu(24))), (2 + 2 + 3, 1));
        missed.leave_out(at(40), Some(cpu(30)));
        assert_eq!(missed.by_ticks(cpu(1), Some(cpu(30))), (7, 0));
    }

    #[test]
    fn what_nobody_asked_for_was_not_missed() {
        let mut missed = UnattachedTime::since(at(10), cpu(0));
        missed.leave_out(at(1000), Some(cpu(900)));
        missed.count(at(1010), 1);
        assert_eq!(missed.by_instants(), (0, 1));
        assert_eq!(missed.by_ticks(cpu(10), Some(cpu(910))), (0, 1));
    }
}
