//! The account of one watched thread: what of its time is in samples and intervals, and what is still to be reported.

use profiler_account::{KnownStack, KnownStacks, ReportedIntervals};
use profiler_bpf::OffCpuRecord;
use profiler_model::{Nanos, ThreadState, Timestamp, WaitReason};
use profiler_os::ThreadFiles;

use super::{Instead, IntervalSink, OffCpuInterval};
use crate::bpf::off_cpu_reason::{self, Owner};
use crate::bpf::switch_watch::SwitchWatch;

/// What is known of a thread beside what the kernel keeps.
#[derive(Debug)]
pub struct Account<S> {
    /// Since when it is watched.
    pub since: Timestamp,
    /// How much of its time on a CPU is in samples.
    pub sampled: Nanos,
    /// Parts of off-CPU intervals that were reported before their records were read.
    pub reported: ReportedIntervals,
    /// How much was reported of the off-CPU intervals that the kernel has only counted.
    pub unsent: Nanos,
    /// Up to when that was asked for.
    pub unsent_until: Timestamp,
    /// When it was sampled last.
    pub sampled_until: Timestamp,
    /// The stacks of off-CPU intervals that may not be over.
    pub known: KnownStacks<S>,
    /// What it waited for when the watch began; `None` if it did not wait.
    pub first_state: Option<ThreadState>,
    /// Whether its first stack is still to be read, as it waited then.
    pub lacks_first_stack: bool,
    /// Whether its end was reported.
    pub has_ended: bool,
    /// How often the scheduler put it on a CPU stands here.
    pub files: ThreadFiles,
    /// And so often it had when the watch ended.
    pub last_arrivals: Option<u64>,
}

impl<S: Clone> Account<S> {
    /// Of a thread that is watched since then, of which nothing else is known.
    pub fn new(since: Timestamp, files: ThreadFiles) -> Self {
        Account {
            since,
            sampled: Nanos::ZERO,
            reported: ReportedIntervals::default(),
            unsent: Nanos::ZERO,
            unsent_until: since,
            sampled_until: since,
            known: KnownStacks::default(),
            first_state: None,
            lacks_first_stack: false,
            has_ended: false,
            files,
            last_arrivals: None,
        }
    }

    /// Takes an off-CPU interval, as far as it has not been reported, up to `until`.
    pub fn take(
        &mut self,
        record: &OffCpuRecord<'_>,
        until: Timestamp,
        instead: &Instead<S>,
        owner: Owner<'_>,
        sink: &mut IntervalSink<'_, S>,
    ) {
        let Some(left) = record.left() else { return };
        let reported = self.reported.of(left);
        // Where it was in between is not known.
        let known = self.known.of(left).filter(|_| !record.is_several());
        let stack = record.stack().filter(|_| !record.is_several());
        let known = known.unwrap_or_else(|| match stack {
            Some(stack) => {
                KnownStack { began: left, stack: (sink.stack)(&stack), holds_gil: stack.holds_gil() }
            }
            None => KnownStack { began: left, stack: instead.of(record), holds_gil: false },
        });
        // It could go on from here.
        let ready = record.woken().filter(|_| !record.is_several()).unwrap_or(until).clamp(left, until);
        let cpu = ThreadState::Waiting(WaitReason::Cpu);
        let waited = self.state_of(record, owner);
        // Who takes the GIL marks it as taken before it writes its name: for a moment the last holder seems to hold it.
        let holds_gil = known.holds_gil && waited != ThreadState::WaitingForGil;
        let parts = [(left, ready, waited), (ready, until, cpu)];
        for (from, at, state) in parts {
            let duration = at.since(reported.map_or(from, |reported| from.max(reported)));
            if duration != Nanos::ZERO {
                let (thread, stack) = (record.thread(), known.stack.clone());
                (sink.interval)(OffCpuInterval {
                    thread,
                    at,
                    state,
                    duration,
                    since: None,
                    holds_gil,
                    stack,
                });
            }
        }
        self.known.keep(known);
    }

    /// Takes note of its end.
    pub fn end(&mut self, record: &OffCpuRecord<'_>, instead: &Instead<S>, sink: &mut IntervalSink<'_, S>) {
        self.has_ended = true;
        self.report_unsent(record, record.back(), instead, sink);
        self.report_unsampled(record, record.ran(), record.back(), instead, sink);
    }

    /// Reports off-CPU intervals of which the kernel has only kept how long they were.
    pub fn report_unsent(
        &mut self,
        record: &OffCpuRecord<'_>,
        at: Timestamp,
        instead: &Instead<S>,
        sink: &mut IntervalSink<'_, S>,
    ) {
        let duration = record.unsent().saturating_sub(self.unsent);
        self.unsent += duration;
        let since = Some(std::mem::replace(&mut self.unsent_until, at).min(at));
        if duration != Nanos::ZERO {
            let (thread, state) = (record.thread(), ThreadState::Waiting(WaitReason::Unknown));
            let stack = instead.unsent.clone();
            (sink.interval)(OffCpuInterval { thread, at, state, duration, since, holds_gil: false, stack });
        }
    }

    /// Reports the time since its last sample; in all it `ran` for so long.
    pub fn report_unsampled(
        &mut self,
        record: &OffCpuRecord<'_>,
        ran: Nanos,
        at: Timestamp,
        instead: &Instead<S>,
        sink: &mut IntervalSink<'_, S>,
    ) {
        let duration = ran.saturating_sub(self.sampled);
        self.sampled += duration;
        let since = Some(std::mem::replace(&mut self.sampled_until, at).min(at));
        let (thread, stack, state) = (record.thread(), instead.missing.clone(), ThreadState::Running);
        if duration != Nanos::ZERO {
            (sink.interval)(OffCpuInterval { thread, at, state, duration, since, holds_gil: false, stack });
        }
    }

    /// How much of the time since `from` is in no report yet, of a thread that had run for so long when it left. It came back
    /// unseen, and what it ran since then is in the samples that met it.
    pub fn unreported(&self, from: Timestamp, end: Timestamp, ran: Nanos) -> Nanos {
        end.since(from).saturating_sub(self.sampled.saturating_sub(ran))
    }

    /// When it came back from this off-CPU interval was not reported before the end.
    pub fn lose_rest(
        &self,
        record: &OffCpuRecord<'_>,
        end: Timestamp,
        instead: &Instead<S>,
        sink: &mut IntervalSink<'_, S>,
    ) {
        let left = record.left().unwrap_or(end);
        let from = self.reported.of(left).unwrap_or(left);
        (sink.interval)(OffCpuInterval {
            thread: record.thread(),
            at: end,
            state: ThreadState::Waiting(WaitReason::Unknown),
            duration: self.unreported(from, end, record.ran()),
            since: Some(from.min(end)),
            holds_gil: false,
            stack: instead.missing.clone(),
        });
    }

    /// Whether the stack of this off-CPU interval was sent by itself and is still to be read from the ring.
    pub fn awaits_stack(&self, record: &OffCpuRecord<'_>) -> bool {
        record.is_deep() && record.left().is_some_and(|left| self.known.of(left).is_none())
    }

    /// Whether a thread that is taken to be away is on a CPU again: not every return is reported at once.
    pub fn has_come_back(&self, record: &OffCpuRecord<'_>, off_cpu: &impl SwitchWatch) -> bool {
        self.last_arrivals
            .or_else(|| off_cpu.arrivals(record.thread(), &self.files))
            .is_some_and(|arrivals| arrivals > record.arrivals())
    }

    pub fn state_of(&self, record: &OffCpuRecord<'_>, owner: Owner<'_>) -> ThreadState {
        if record.is_several() {
            return ThreadState::Waiting(WaitReason::Unknown);
        }
        match (record.is_from_start(), self.first_state, record.woken()) {
            (false, _, _) => off_cpu_reason::state(record.cause(), record.scheduler_state(), owner.gils),
            (true, Some(state), _) => state,
            (true, None, Some(_)) => ThreadState::Waiting(WaitReason::Unknown),
            (true, None, None) => ThreadState::Waiting(WaitReason::Cpu),
        }
    }
}
