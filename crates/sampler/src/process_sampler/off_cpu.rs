//! Time off the CPU of one process that is sampled by the in-kernel program: what its scheduler's programs tell
//! becomes samples, which stand for exactly the time that a thread was away. What it was away for stands on top of its
//! stack.

use std::collections::BTreeMap;

use profiler_bpf::{OffCpu, OffCpuRecord, StackRecord};
use profiler_memory::ReadError;
use profiler_model::{Frame, FrameKind, LossReason, Nanos, ThreadState, Tid, Timestamp};
use profiler_profile::{Counted, FrameId, Profile, Sample, StackId, ThreadId};
use profiler_python::GilAddresses;
use rustc_hash::{FxHashMap, FxHashSet};

use super::ProcessSampler;
use super::in_kernel::InKernel;
use crate::Target;
use crate::bpf_program::BpfProgram;
use crate::capture::Capture;
use crate::code_names::CodeNames;
use crate::off_cpu_reason::Owner;
use crate::off_cpu_tracker::{Instead, OffCpuInterval, OffCpuTracker, Sink};
use crate::probe::GilGroup;

/// What lasts and what was too short to be told by itself is asked for so often.
const FLUSH_GAP: Nanos = Nanos::from_nanos(1_000_000_000);

/// The stack of a thread that is off the CPU.
#[derive(Clone, Copy, Debug)]
enum Away {
    /// As it was taken; `None` where no Python runs.
    Taken(Option<StackId>),
    /// It could not be taken.
    Lost(LossReason),
    /// The kernel's ring had no room for it: the kernel has counted that.
    Unsent,
    /// Many short off-CPU intervals in sum: their stacks were not kept.
    Summed,
}

/// What stands for a stack that is not there.
const INSTEAD: Instead<Away> =
    Instead { missing: Away::Lost(LossReason::NotTaken), unsent: Away::Unsent, summed: Away::Summed };

impl Away {
    /// What a wait with such a stack is in the ledger.
    fn counted(self) -> Counted {
        match self {
            Away::Taken(_) | Away::Summed => Counted::Shown,
            Away::Lost(reason) => Counted::Lost(reason),
            Away::Unsent => Counted::Elsewhere,
        }
    }
}

/// What is known of threads that are off the CPU.
#[derive(Debug)]
pub struct OffCpuTimes {
    intervals: OffCpuTracker<Away>,
    gils: Vec<GilAddresses>,
    /// The threads in the profile, also those that have ended.
    threads: FxHashMap<Tid, ThreadId>,
    /// The frames that say what was waited for, each made once.
    reasons: BTreeMap<ThreadState, FrameId>,
    /// Whether samples are taken of threads that run.
    takes_samples: bool,
    next_flush: Timestamp,
}

impl Default for OffCpuTimes {
    fn default() -> Self {
        OffCpuTimes {
            intervals: OffCpuTracker::new(INSTEAD),
            gils: Vec::new(),
            threads: FxHashMap::default(),
            reasons: BTreeMap::new(),
            takes_samples: false,
            next_flush: Timestamp::default(),
        }
    }
}

impl ProcessSampler {
    /// Has the scheduler's programs, if they are asked for, watch the threads that they do not know yet.
    pub(super) fn watch_threads(&mut self, kernel: &mut BpfProgram, profile: &mut Profile) {
        self.off_cpu.takes_samples = kernel.period() != Nanos::ZERO;
        let Some(off_cpu) = &mut kernel.off_cpu else { return };
        let interpreters = &self.probe.thread_table.interpreters;
        self.off_cpu.gils = interpreters.iter().filter_map(|interpreter| interpreter.gil).collect();
        let mut new = Vec::new();
        for index in 0..self.probe.thread_table.threads.len() {
            let tid = self.probe.thread_table.threads[index].tid;
            if !self.off_cpu.intervals.has(tid) {
                let id = self.thread_id(profile, index);
                self.off_cpu.threads.insert(tid, id);
                new.push(index);
            }
        }
        let OffCpuTimes { intervals, gils, .. } = &mut self.off_cpu;
        let owner = Owner { process: self.probe.target.process(), gils };
        intervals.watch(off_cpu, new.iter().map(|index| &self.probe.thread_table.threads[*index]), owner);
    }

    /// Reads the stacks of threads that were asleep when they were first watched. Nothing has to be stopped for that: what is
    /// read is believed if the thread has not moved after it.
    pub(super) fn look_at_sleepers(&mut self, kernel: &BpfProgram, profile: &mut Profile) {
        let Some(off_cpu) = &kernel.off_cpu else { return };
        let sleepers = self.off_cpu.intervals.take_sleepers();
        if !sleepers.is_empty() && self.read_sleepers(off_cpu, profile, &sleepers).is_err() {
            // What has become of the process is found out when its lists are read.
            self.in_kernel.is_outdated = true;
        }
    }

    fn read_sleepers(
        &mut self,
        off_cpu: &OffCpu,
        profile: &mut Profile,
        sleepers: &FxHashSet<Tid>,
    ) -> Result<(), ReadError> {
        let suspended = self.probe.suspended()?;
        for group in GilGroup::all(&self.probe.thread_table) {
            let mut wanted = group.threads;
            wanted.retain(|index| {
                let thread = &mut self.probe.thread_table.threads[*index];
                sleepers.contains(&thread.tid) && !suspended.contains(index) && thread.look().is_ok()
            });
            let mut instants = self.probe.capture(group.gil.as_ref(), &wanted)?;
            self.probe.complete(instants.iter_mut().map(|instant| &mut instant.capture))?;
            for Capture { stacks, capture, .. } in instants {
                for (index, stack) in stacks {
                    let tid = self.probe.thread_table.threads[index].tid;
                    let stack = stack.and_then(|raw| self.resolve(profile, &raw, &capture));
                    let stack = stack.map(|stack| self.with_kernel_frames(profile, index, stack));
                    let stack = stack.map_or_else(Away::Lost, Away::Taken);
                    self.off_cpu.intervals.take_first_stack(off_cpu, tid, stack);
                }
            }
        }
        Ok(())
    }

    /// Takes note of a thread that the scheduler's programs were not told of.
    pub fn meet_stranger(&mut self) {
        self.in_kernel.is_outdated = true;
    }

    /// Keeps the stack of an off-CPU interval that is still to come.
    pub fn take_deep_stack(&mut self, profile: &mut Profile, record: &StackRecord<'_>) {
        let target = &self.probe.target;
        let stack = stack_of(target, &mut self.in_kernel, &mut self.code_names, profile, record);
        self.off_cpu.intervals.take_deep(record, stack);
    }

    /// Since when the scheduler's programs watch it, if they do.
    pub fn watched_since(&self) -> Option<Timestamp> {
        self.off_cpu.intervals.since()
    }

    /// For how much time a sample stands, if its thread is watched.
    pub(super) fn time_of_sample(&self, record: &StackRecord<'_>) -> Option<Nanos> {
        self.off_cpu.intervals.time_of_sample(record)
    }

    /// Takes note of a sample that stands for so much.
    pub(super) fn count_sample(&mut self, record: &StackRecord<'_>, time: Nanos) {
        self.off_cpu.intervals.count_sample(record.thread(), time, record.time());
    }

    /// Records an off-CPU interval that is over.
    pub fn take_interval(&mut self, profile: &mut Profile, record: &OffCpuRecord<'_>) {
        self.record_told(profile, |intervals, owner, sink| intervals.take(record, owner, sink));
    }

    /// Records what was not told by itself, if it is time to.
    pub(super) fn flush_off_cpu(&mut self, kernel: &mut BpfProgram, profile: &mut Profile, now: Timestamp) {
        if now >= self.off_cpu.next_flush {
            self.off_cpu.next_flush = now + FLUSH_GAP;
            self.flush_all_off_cpu(kernel, profile, None);
        }
    }

    /// Records what was not told by itself, up to now or to the `end` of the watch.
    pub fn flush_all_off_cpu(
        &mut self,
        kernel: &mut BpfProgram,
        profile: &mut Profile,
        end: Option<Timestamp>,
    ) {
        let Some(off_cpu) = &mut kernel.off_cpu else { return };
        self.record_told(profile, |intervals, owner, sink| intervals.flush(off_cpu, end, owner, sink));
    }

    /// Records the off-CPU intervals that `tell` hands to its sink.
    fn record_told(
        &mut self,
        profile: &mut Profile,
        tell: impl FnOnce(&mut OffCpuTracker<Away>, Owner<'_>, &mut Sink<'_, Away>),
    ) {
        let mut found = Vec::new();
        let OffCpuTimes { intervals, gils, .. } = &mut self.off_cpu;
        let (target, in_kernel, codes) = (&self.probe.target, &mut self.in_kernel, &mut self.code_names);
        let mut stack = |record: &StackRecord<'_>| stack_of(target, in_kernel, codes, profile, record);
        let owner = Owner { process: target.process(), gils };
        let mut keep = |interval| found.push(interval);
        tell(intervals, owner, &mut Sink { stack: &mut stack, interval: &mut keep });
        found.into_iter().for_each(|interval| self.record_interval(profile, &interval));
    }

    /// Notes what the watch cannot tell any more once it has ended.
    pub fn prepare_end_of_intervals(&mut self) {
        self.off_cpu.next_flush = Timestamp::MAX;
        self.off_cpu.intervals.note_arrivals();
    }

    /// What the process leaves in the scheduler's programs.
    pub(super) fn forget_intervals(&mut self, kernel: &mut BpfProgram) {
        if let Some(off_cpu) = &mut kernel.off_cpu {
            self.off_cpu.intervals.forget_all(off_cpu);
        }
    }

    fn record_interval(&mut self, profile: &mut Profile, interval: &OffCpuInterval<Away>) {
        let Some(thread) = self.off_cpu.threads.get(&interval.thread).copied() else { return };
        if self.options.gil_only && !interval.holds_gil {
            return profile.ledger_mut().count_not_asked_for();
        }
        if interval.state.is_running() {
            return self.record_unsampled(profile, thread, interval);
        }
        let below = match interval.stack {
            Away::Taken(Some(stack)) => stack,
            Away::Taken(None) => return profile.ledger_mut().count_not_asked_for(),
            // For how long and for what it waited is known all the same.
            Away::Lost(reason) => push_lost(profile, reason),
            Away::Unsent => push_lost(profile, LossReason::BufferFull),
            Away::Summed => push_mark(profile, "short waits".to_owned()),
        };
        let reasons = &mut self.off_cpu.reasons;
        let reason =
            *reasons.entry(interval.state).or_insert_with(|| profile.frame(&reason_mark(interval.state)));
        let stack = Some(profile.push(Some(below), reason));
        let &OffCpuInterval { at, state, holds_gil, duration: wall, since, .. } = interval;
        let sample = Sample { at, thread, stack, state, holds_gil, cpu: Nanos::ZERO, wall };
        profile.record_as(sample, since, interval.stack.counted());
    }

    /// Records for how long a thread ran since its last sample.
    fn record_unsampled(&mut self, profile: &mut Profile, thread: ThreadId, interval: &OffCpuInterval<Away>) {
        if self.off_cpu.takes_samples {
            let stack = Some(push_mark(profile, "running, not sampled".to_owned()));
            let &OffCpuInterval { at, state, duration, since, holds_gil, .. } = interval;
            let sample = Sample { at, thread, stack, state, holds_gil, cpu: duration, wall: duration };
            profile.record_as(sample, since, Counted::Shown);
        }
    }
}

/// Stands on top of a stack, and says what its thread waited for.
fn reason_mark(state: ThreadState) -> Frame {
    mark(state.to_string())
}

/// A stack of nothing but a mark.
fn push_mark(profile: &mut Profile, text: String) -> StackId {
    let frame = profile.frame(&mark(text));
    profile.push(None, frame)
}

/// The mark of a stack that is lost.
fn push_lost(profile: &mut Profile, reason: LossReason) -> StackId {
    push_mark(profile, format!("stack lost: {reason}"))
}

fn mark(text: String) -> Frame {
    Frame { kind: FrameKind::Marker, function: format!("<{text}>").into(), ..Frame::default() }
}

fn stack_of(
    target: &Target,
    in_kernel: &mut InKernel,
    codes: &mut CodeNames<FrameId>,
    profile: &mut Profile,
    record: &StackRecord<'_>,
) -> Away {
    let walked = in_kernel.walked(record, target);
    match walked.and_then(|raw| in_kernel.named(target, record, &raw, codes, profile)) {
        Ok(stack) => Away::Taken(stack),
        Err(reason) => Away::Lost(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_stack_is_counted_once_and_not_as_shown() {
        assert_eq!(Away::Taken(None).counted(), Counted::Shown);
        assert_eq!(Away::Summed.counted(), Counted::Shown);
        assert_eq!(Away::Lost(LossReason::Moved).counted(), Counted::Lost(LossReason::Moved));
        assert_eq!(INSTEAD.missing.counted(), Counted::Lost(LossReason::NotTaken));
        assert_eq!(
            INSTEAD.unsent.counted(),
            Counted::Elsewhere,
            "the kernel's counter of the full ring has it"
        );
    }
}
