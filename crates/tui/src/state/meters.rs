//! The figures of the header, one of each for every interval, and their history.

use std::collections::{BTreeMap, VecDeque};

use profiler_model::{Nanos, Timestamp};
use profiler_profile::{Ledger, ProcessId, Sample};

/// How many intervals the sparklines can show: more than the columns that a wide terminal has for one.
const MAX_HISTORY: usize = 120;

/// The figures of one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Meter {
    /// The share of the instants at which a thread held the GIL, 0 to 1; of several processes the sum, as of CPU
    /// time.
    pub gil: f64,
    /// The CPU time of the targets a second: 1 is a whole core.
    pub cpu: f64,
    /// Resident memory of the targets in bytes, where it was looked at.
    pub memory: Option<u64>,
    /// Instants a second; at each of them all processes are sampled.
    pub rate: f64,
}

/// The interval that is not over yet, and those before it.
#[derive(Clone, Debug, Default)]
pub(super) struct Meters {
    processes: BTreeMap<ProcessId, Instants>,
    memory: Option<u64>,
    cpu_before: Option<Nanos>,
    history: VecDeque<Meter>,
    /// How long the last interval was.
    length: Nanos,
}

/// The instants of one process.
#[derive(Clone, Copy, Debug, Default)]
struct Instants {
    all: u64,
    held: u64,
    last: Option<(Timestamp, bool)>,
}

impl Instants {
    fn count(&mut self, sample: &Sample) {
        let is_another = self.last.is_none_or(|(at, _)| at != sample.at);
        let was_held = !is_another && self.last.is_some_and(|(_, was_held)| was_held);
        self.all += u64::from(is_another);
        self.held += u64::from(sample.holds_gil && !was_held);
        self.last = Some((sample.at, was_held || sample.holds_gil));
    }
}

impl Meters {
    /// Counts a sample of a process: those of one instant come together.
    pub fn count(&mut self, process: ProcessId, sample: &Sample) {
        self.processes.entry(process).or_default().count(sample);
    }

    pub fn note_memory(&mut self, memory: Option<u64>) {
        self.memory = memory.or(self.memory);
    }

    /// The interval is over: it lasted so long, and the ledger is now so.
    pub fn roll(&mut self, lasted: Nanos, ledger: &Ledger) {
        let meter = self.end_interval(lasted, ledger);
        self.length = lasted;
        self.history.push_back(meter);
        if self.history.len() > MAX_HISTORY {
            self.history.pop_front();
        }
    }

    /// Sampling ended so long after the last interval: both are one.
    pub fn take_rest(&mut self, lasted: Nanos, ledger: &Ledger) {
        let (rest, before) = (self.end_interval(lasted, ledger), self.length.as_secs_f64());
        let Some(last) = self.history.back_mut() else { return };
        let whole = before + lasted.as_secs_f64();
        let mean = |last: f64, rest: f64| (last * before + rest * (whole - before)) / whole;
        // An instant of the shorter part weighs no more than one of the longer.
        let instants = mean(last.rate, rest.rate);
        let held = mean(last.gil * last.rate, rest.gil * rest.rate);
        last.gil = if instants > 0.0 { held / instants } else { 0.0 };
        last.cpu = mean(last.cpu, rest.cpu);
        last.rate = instants;
        last.memory = rest.memory;
        self.length += lasted;
    }

    fn end_interval(&mut self, lasted: Nanos, ledger: &Ledger) -> Meter {
        let cpu = ledger.target_cpu.saturating_sub(self.cpu_before.unwrap_or_default());
        self.cpu_before = Some(ledger.target_cpu);
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let seconds = lasted.as_secs_f64();
        // A process that was not there all the time has fewer.
        let instants = self.processes.values().map(|process| process.all).max().unwrap_or_default() as f64;
        let held: u64 = self.processes.values().map(|process| process.held).sum();
        let meter = Meter {
            gil: share(held as f64, instants),
            cpu: share(cpu.as_secs_f64(), seconds),
            memory: self.memory,
            rate: share(instants, seconds),
        };
        self.processes.clear();
        meter
    }

    /// What the targets used up to here belongs to no interval.
    pub fn skip_to(&mut self, ledger: &Ledger) {
        self.cpu_before = Some(ledger.target_cpu);
        self.processes.clear();
    }

    pub fn history(&self) -> &VecDeque<Meter> {
        &self.history
    }
}

#[cfg(test)]
mod tests {
    use profiler_profile::{ProcessInfo, Profile, ThreadInfo};

    use super::*;

    #[test]
    fn two_processes_at_a_hundred_hertz_are_at_a_hundred_hertz() {
        let (mut profile, mut meters) = (Profile::new(), Meters::default());
        for number in 0..10u64 {
            for pid in [1, 2] {
                let info = ProcessInfo { pid: profiler_model::Pid::new(pid), ..ProcessInfo::default() };
                let process = profile.process(info);
                let key = profiler_model::ThreadKey {
                    pid: profiler_model::Pid::new(pid),
                    tid: profiler_model::Tid::new(pid),
                };
                let info = ThreadInfo { key, process, pthread_id: None, name: None, is_main: true };
                let sample = Sample {
                    // One after the other, at each instant.
                    at: Timestamp::from_nanos(number * 10_000_000 + u64::from(pid)),
                    thread: profile.thread(info),
                    stack: None,
                    state: profiler_model::ThreadState::Running,
                    holds_gil: pid == 1 || number < 5,
                    cpu: Nanos::ZERO,
                    wall: Nanos::ZERO,
                };
                meters.count(process, &sample);
                // Another thread of the process, at the same instant.
                meters.count(process, &Sample { holds_gil: false, ..sample });
            }
        }
        meters.roll(Nanos::from_nanos(100_000_000), &Ledger::default());
        let meter = meters.history().back().copied().unwrap();
        assert_eq!((meter.rate, meter.gil), (100.0, 1.5));
    }
}
