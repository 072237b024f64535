//! A process that has no Python that is known: when it is looked for next, and what passes meanwhile.

use profiler_account::UnattachedTime;
use profiler_model::{LossReason, Nanos, Timestamp};
use profiler_target::AttachError;

/// The gap after the first look at a process without Python. It doubles with each look.
const FIRST_ATTACH_GAP: Nanos = Nanos::from_nanos(5_000_000);
/// The longest gap if the system reports each `exec`: only an interpreter that starts late in a running program is still to be
/// noticed.
const LONGEST_GAP_IF_REPORTED: Nanos = Nanos::from_nanos(8_000_000_000);
/// The longest gap otherwise.
const LONGEST_GAP: Nanos = Nanos::from_nanos(500_000_000);

/// A process that has no Python (yet).
#[derive(Debug)]
pub struct PendingAttach<S> {
    /// The search for its Python.
    pub search: S,
    /// Since when.
    pub since: Timestamp,
    /// Why there was none at the last look.
    pub why: Option<AttachError>,
    /// Whether it is known that it began to run this program at `since`.
    pub is_new_program: bool,
    /// What passed meanwhile.
    missed: UnattachedTime,
    /// What its threads ran without Python meanwhile, as far as ticks met them.
    native: NativeTime,
    /// When its Python is looked for next, and the gap after that.
    next: Timestamp,
    gap: Nanos,
}

/// Ticks that met threads without Python.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NativeTime {
    /// How many.
    pub ticks: u64,
    /// The CPU time that they stand for.
    pub cpu: Nanos,
    /// The instant of the last one.
    pub last: Timestamp,
}

impl NativeTime {
    /// Adds other ticks.
    pub fn add(&mut self, other: NativeTime) {
        self.ticks += other.ticks;
        self.cpu += other.cpu;
        self.last = self.last.max(other.last);
    }
}

impl<S> PendingAttach<S> {
    /// A process that has not been looked at since `since`, when it had used `cpu`.
    pub fn new(search: S, since: Timestamp, cpu: Nanos, is_new_program: bool) -> Self {
        PendingAttach {
            search,
            since,
            why: None,
            is_new_program,
            missed: UnattachedTime::since(since, cpu),
            native: NativeTime::default(),
            next: since,
            gap: FIRST_ATTACH_GAP,
        }
    }

    /// Has it begin at `began` with `instants` that were missed since.
    pub fn begin_at(&mut self, began: Timestamp, instants: u64) {
        self.since = began;
        self.missed = UnattachedTime::since(began, Nanos::ZERO);
        self.missed.count_unseen(instants);
    }

    /// Has all CPU time that it has used count from `now` on.
    pub fn count_all_cpu(&mut self, now: Timestamp) {
        self.missed = UnattachedTime::since(now, Nanos::ZERO);
    }

    /// Whether its memory does not answer, so that it was dropped.
    pub fn is_silent(&self) -> bool {
        matches!(self.why, Some(AttachError::NoAnswer(_)))
    }

    /// When its Python is looked for next.
    pub fn next(&self) -> Timestamp {
        self.next
    }

    /// When it was last known to have no Python.
    pub fn without_python(&self) -> Timestamp {
        self.missed.without_python()
    }

    /// The CPU time that it had used by then.
    pub fn cpu_without_python(&self) -> Nanos {
        self.missed.cpu_without_python()
    }

    /// Why samples of it are lost if it is the only process.
    pub fn loss(&self) -> LossReason {
        match self.why {
            Some(AttachError::Unreadable { .. }) => LossReason::ListsUnreadable,
            _ => LossReason::NoRuntime,
        }
    }

    /// Counts `instants` that were due at `at`, and before.
    pub fn count(&mut self, at: Timestamp, instants: u64) {
        match self.is_silent() {
            // Nobody knows whether it has one.
            true => self.missed.count_unseen(instants),
            false => self.missed.count(at, instants),
        }
    }

    /// It was looked at, at `now` and with so much CPU time, and had no Python. The look ended at `after`.
    pub fn had_none(
        &mut self,
        why: AttachError,
        now: Timestamp,
        cpu: Option<Nanos>,
        after: Timestamp,
        is_exec_reported: bool,
    ) {
        let longest = if is_exec_reported { LONGEST_GAP_IF_REPORTED } else { LONGEST_GAP };
        self.missed.had_none(now, cpu);
        self.why = Some(why);
        self.next = after + self.gap;
        self.gap = Nanos::from_nanos((self.gap.as_nanos() * 2).min(longest.as_nanos()));
    }

    /// Has nothing count that was before `now`, when it had used `cpu`.
    pub fn leave_out(&mut self, now: Timestamp, cpu: Option<Nanos>) {
        self.missed.leave_out(now, cpu);
    }

    /// The clock of the in-kernel program gets another period from now on; it had this one, and the process has used so much CPU.
    pub fn change_period(&mut self, period: Nanos, cpu: Option<Nanos>) {
        self.missed.change_period(period, cpu);
    }

    /// Counts ticks that met its threads. If its Python is found later they are in what was missed until then.
    pub fn count_native(&mut self, native: NativeTime) {
        self.native.add(native);
    }

    /// Takes the ticks that met its threads, once it is certain that it never was a Python.
    pub fn take_native(&mut self) -> NativeTime {
        std::mem::take(&mut self.native)
    }

    /// Takes all instants that have passed.
    pub fn take_instants(&mut self) -> u64 {
        self.missed.take_instants()
    }

    /// Takes what is lost of a process whose memory does not answer, since this was last called: ticks of a clock with this
    /// period, or instants of a schedule.
    pub fn take_unanswered(&mut self, now: Timestamp, period: Option<Nanos>, cpu: Option<Nanos>) -> u64 {
        self.next = now + LONGEST_GAP;
        self.missed.take_unseen(now, period, cpu)
    }

    /// How many instants it certainly had no Python at, and at how many it may have had one: ticks of a clock with this
    /// period, as it has used `cpu` by now, or instants of a schedule.
    pub fn missed(&self, period: Option<Nanos>, cpu: Option<Nanos>) -> (u64, u64) {
        match period {
            None => self.missed.by_instants(),
            Some(period) => self.missed.by_ticks(period, cpu),
        }
    }
}

#[cfg(test)]
mod tests {
    use profiler_model::Pid;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn gaps_between_looks_double_up_to_the_longest() {
        let mut pending = PendingAttach::new((), at(0), Nanos::ZERO, true);
        let mut gaps = Vec::new();
        for _ in 0..9 {
            let now = pending.next();
            pending.had_none(AttachError::NotInitialised(Pid::new(1)), now, None, now, false);
            gaps.push(pending.next().since(now).as_nanos() / 1_000_000);
        }
        assert_eq!(gaps, [5, 10, 20, 40, 80, 160, 320, 500, 500]);
    }

    #[test]
    fn silent_process_loses_late_instants_too() {
        let mut pending = PendingAttach::new((), at(0), Nanos::ZERO, false);
        pending.had_none(AttachError::NoAnswer(Pid::new(1)), at(10), None, at(10), false);
        pending.count(at(9), 1);
        pending.count(at(11), 1);
        assert_eq!(pending.take_unanswered(at(20), None, None), 2);
    }
}
