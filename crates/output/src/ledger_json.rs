//! The ledger as JSON, for scripts: its counts, which every JSON format of a profile carries, and the whole of it, which
//! `record --ledger-json` writes to a file.

use std::io::Write;

use profiler_model::{LossReason, Nanos, OtherPython};
use profiler_profile::{Ledger, ProcessCounts};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::OutputError;

/// The counts of the ledger.
#[derive(Serialize)]
pub(crate) struct LedgerView<'a> {
    attempts: u64,
    shown: u64,
    not_asked_for: u64,
    lost: Losses<'a>,
    /// Of stacks that are shown.
    #[serde(skip_serializing_if = "is_zero")]
    without_kernel_frames: u64,
}

/// What most profiles have none of is not told.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl<'a> LedgerView<'a> {
    pub(crate) fn new(ledger: &'a Ledger) -> Self {
        LedgerView {
            attempts: ledger.attempts(),
            shown: ledger.shown(),
            not_asked_for: ledger.not_asked_for(),
            lost: Losses(ledger),
            without_kernel_frames: ledger.without_kernel_frames(),
        }
    }
}

/// Writes the whole ledger as one JSON object. Times are in seconds; `asked_hz` is the sample rate that was asked for, and
/// `processes` is there if a tree of them was sampled, and
/// `other_pythons` if a process runs a Python beside those that were sampled.
///
/// # Errors
/// When `out` cannot be written.
pub fn write_ledger_json(ledger: &Ledger, out: &mut dyn Write) -> Result<(), OutputError> {
    serde_json::to_writer_pretty(&mut *out, &LedgerFile::new(ledger)).map_err(std::io::Error::from)?;
    Ok(writeln!(out)?)
}

/// Counts and costs.
#[derive(Serialize)]
struct LedgerFile<'a> {
    #[serde(flatten)]
    counts: LedgerView<'a>,
    /// What lost samples stand for, as far as it is known.
    lost_cpu: f64,
    duration: f64,
    before_python: f64,
    asked_hz: Option<f64>,
    stops: Times,
    instants_without_stop: u64,
    interruptions: Times,
    target_cpu: f64,
    own_cpu: f64,
    /// Whether the profiler gave up its real-time priority to stay within the CPU time that it may use.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    left_real_time: bool,
    /// In bytes.
    own_memory: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    processes: Option<Processes>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    other_pythons: Vec<OtherPythonView<'a>>,
}

/// A Python that was not sampled.
#[derive(Serialize)]
struct OtherPythonView<'a> {
    pid: u32,
    version: &'a str,
    path: &'a str,
}

impl<'a> From<&'a OtherPython> for OtherPythonView<'a> {
    fn from(other: &'a OtherPython) -> Self {
        OtherPythonView { pid: other.pid.as_u32(), version: &other.version, path: &other.path }
    }
}

/// How often something happened, for how long in all and at most.
#[derive(Serialize)]
struct Times {
    count: u64,
    total: f64,
    longest: f64,
}

impl Times {
    fn new(count: u64, total: Nanos, longest: Nanos) -> Self {
        Times { count, total: total.as_secs_f64(), longest: longest.as_secs_f64() }
    }
}

/// What became of the processes of a tree.
#[derive(Serialize)]
struct Processes {
    found: u64,
    sampled: u64,
    without_python: u64,
    not_permitted: u64,
    missed: u64,
}

impl From<ProcessCounts> for Processes {
    fn from(counts: ProcessCounts) -> Self {
        let found = counts.found();
        let ProcessCounts { sampled, without_python, not_permitted, missed } = counts;
        Processes { found, sampled, without_python, not_permitted, missed }
    }
}

impl<'a> LedgerFile<'a> {
    fn new(ledger: &'a Ledger) -> Self {
        let interval = ledger.interval.filter(|interval| *interval > Nanos::ZERO);
        LedgerFile {
            counts: LedgerView::new(ledger),
            lost_cpu: ledger.lost_cpu().as_secs_f64(),
            duration: ledger.duration().as_secs_f64(),
            before_python: ledger.before_python.as_secs_f64(),
            asked_hz: interval.map(|interval| 1.0 / interval.as_secs_f64()),
            stops: Times::new(ledger.stops(), ledger.stopped_total(), ledger.stopped_longest()),
            instants_without_stop: ledger.without_stop(),
            interruptions: Times::new(
                ledger.interruptions(),
                ledger.interrupted_total(),
                ledger.interrupted_longest(),
            ),
            target_cpu: ledger.target_cpu.as_secs_f64(),
            own_cpu: ledger.own_cpu.as_secs_f64(),
            left_real_time: ledger.left_real_time,
            own_memory: ledger.own_memory,
            processes: ledger.processes.map(Processes::from),
            other_pythons: ledger.other_pythons.iter().map(Into::into).collect(),
        }
    }
}

/// The losses by reason, those that occurred.
struct Losses<'a>(&'a Ledger);

impl Serialize for Losses<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let losses: Vec<(LossReason, u64)> = self.0.losses();
        let mut map = serializer.serialize_map(Some(losses.len()))?;
        for (reason, times) in losses {
            map.serialize_entry(&reason.to_string(), &times)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use profiler_model::{Nanos, Timestamp};
    use profiler_profile::{Event, Held, HeldBy, Loss, MetricValue, Scope, Skip};

    use super::*;

    #[test]
    fn file_has_counts_and_costs_in_seconds() {
        let mut ledger = Ledger::default();
        let (at, scope, by) = (Timestamp::default(), Scope::Session, HeldBy::Stop);
        let counts = ProcessCounts { sampled: 2, missed: 1, ..ProcessCounts::default() };
        let cpu = Nanos::from_nanos(30_000_000);
        for event in [
            Event::Skip(Skip::of(scope, at, 1)),
            Event::Loss(Loss { cpu, ..Loss::of(LossReason::Late, scope, at, 3) }),
            Event::Held(Held { at, scope, by, duration: Nanos::from_nanos(85_000) }),
            Event::metric(at, MetricValue::Interval(Nanos::from_nanos(10_000_000))),
            Event::metric(at, MetricValue::Processes(counts)),
        ] {
            ledger.add(&event);
        }
        let mut text = Vec::new();
        write_ledger_json(&ledger, &mut text).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!((&read["attempts"], &read["lost"]["sampler late"]), (&4.into(), &3.into()));
        assert_eq!(&read["lost_cpu"], &0.03);
        assert_eq!((&read["stops"]["count"], &read["stops"]["longest"]), (&1.into(), &85e-6.into()));
        assert_eq!((&read["asked_hz"], &read["processes"]["found"]), (&100.0.into(), &3.into()));
    }
}
