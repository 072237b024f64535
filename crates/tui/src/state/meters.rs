//! The figures of the header, one of each for every interval, and their history.

use std::collections::VecDeque;

use profiler_model::{Nanos, Timestamp};
use profiler_profile::{Ledger, Sample};

/// How many intervals the sparklines can show: more than the columns that a wide terminal has for one.
const MAX_HISTORY: usize = 120;

/// The figures of one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Meter {
    /// The share of the instants at which a thread held the GIL, 0 to 1.
    pub gil: f64,
    /// The CPU time of the targets a second: 1 is a whole core.
    pub cpu: f64,
    /// Resident memory of the targets in bytes, where it was looked at.
    pub memory: Option<u64>,
    /// Instants a second.
    pub rate: f64,
}

/// The interval that is not over yet, and those before it.
#[derive(Clone, Debug, Default)]
pub(super) struct Meters {
    instants: u64,
    held: u64,
    last_instant: Option<(Timestamp, bool)>,
    memory: Option<u64>,
    cpu_before: Option<Nanos>,
    history: VecDeque<Meter>,
}

impl Meters {
    /// Counts a sample: those of one instant come together.
    pub fn count(&mut self, sample: &Sample) {
        match self.last_instant {
            Some((at, was_held)) if at == sample.at => {
                self.held += u64::from(sample.holds_gil && !was_held);
                self.last_instant = Some((at, was_held || sample.holds_gil));
            }
            _ => {
                self.instants += 1;
                self.held += u64::from(sample.holds_gil);
                self.last_instant = Some((sample.at, sample.holds_gil));
            }
        }
    }

    pub fn note_memory(&mut self, memory: Option<u64>) {
        self.memory = memory.or(self.memory);
    }

    /// The interval is over: it lasted so long, and the ledger is now so.
    pub fn roll(&mut self, lasted: Nanos, ledger: &Ledger) {
        let cpu = ledger.target_cpu.saturating_sub(self.cpu_before.unwrap_or_default());
        self.cpu_before = Some(ledger.target_cpu);
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let seconds = lasted.as_secs_f64();
        let meter = Meter {
            gil: share(self.held as f64, self.instants as f64),
            cpu: share(cpu.as_secs_f64(), seconds),
            memory: self.memory,
            rate: share(self.instants as f64, seconds),
        };
        (self.instants, self.held) = (0, 0);
        self.history.push_back(meter);
        if self.history.len() > MAX_HISTORY {
            self.history.pop_front();
        }
    }

    /// What the targets used up to here belongs to no interval.
    pub fn skip_to(&mut self, ledger: &Ledger) {
        self.cpu_before = Some(ledger.target_cpu);
        (self.instants, self.held) = (0, 0);
    }

    pub fn history(&self) -> &VecDeque<Meter> {
        &self.history
    }
}
