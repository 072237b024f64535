//! Time off the CPU of one process that is sampled by the in-kernel program: what its scheduler's programs report
//! becomes samples, which stand for exactly the time that a thread was off the CPU.

use profiler_bpf::{OffCpu, OffCpuRecord, StackRecord};
use profiler_memory::ReadError;
use profiler_model::{LossReason, Nanos, Tid, Timestamp};
use profiler_profile::{
    Event, Loss, LostInterval, Renaming, Sample, SampleCause, SampleEvent, Scope, StackId, ThreadId,
};
use profiler_python::GilAddresses;
use profiler_target::Target;
use rustc_hash::{FxHashMap, FxHashSet};

use super::ProcessSampler;
use super::in_kernel::InKernel;
use crate::bpf::{BpfProgram, Instead, IntervalSink, OffCpuInterval, OffCpuTracker, Owner, raw_stack};
use crate::capture::Capture;
use crate::event_writer::EventWriter;
use crate::probe::GilGroup;
use crate::stack_names::StackNames;

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

/// What is known of threads that are off the CPU.
#[derive(Debug)]
pub struct OffCpuTimes {
    intervals: OffCpuTracker<Away>,
    gils: Vec<GilAddresses>,
    /// The threads in the profile, also those that have ended.
    threads: FxHashMap<Tid, ThreadId>,
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
            takes_samples: false,
            next_flush: Timestamp::default(),
        }
    }
}

impl ProcessSampler {
    /// Has the scheduler's programs, if they are asked for, watch the threads that they do not know yet.
    pub(super) fn watch_threads(&mut self, kernel: &mut BpfProgram, events: &mut EventWriter<'_>) {
        self.off_cpu.takes_samples = kernel.period() != Nanos::ZERO;
        let Some(off_cpu) = &mut kernel.off_cpu else { return };
        let interpreters = &self.probe.thread_table.interpreters;
        self.off_cpu.gils = interpreters.iter().filter_map(|interpreter| interpreter.gil).collect();
        let mut new = Vec::new();
        for index in 0..self.probe.thread_table.threads.len() {
            let tid = self.probe.thread_table.threads[index].tid;
            if !self.off_cpu.intervals.has(tid) {
                let id = self.thread_id(events, index);
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
    pub(super) fn look_at_sleepers(&mut self, kernel: &BpfProgram, events: &mut EventWriter<'_>) {
        let Some(off_cpu) = &kernel.off_cpu else { return };
        let sleepers = self.off_cpu.intervals.take_sleepers();
        if !sleepers.is_empty() && self.read_sleepers(off_cpu, events, &sleepers).is_err() {
            // What has become of the process is found out when its lists are read.
            self.in_kernel.is_outdated = true;
        }
    }

    fn read_sleepers(
        &mut self,
        off_cpu: &OffCpu,
        events: &mut EventWriter<'_>,
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
                    let stack = stack.and_then(|raw| self.resolve(events, &raw, &capture));
                    let stack = stack.map(|stack| self.with_kernel_frames(events, index, stack));
                    let stack = stack.map_or_else(Away::Lost, Away::Taken);
                    self.off_cpu.intervals.take_first_stack(off_cpu, tid, stack);
                }
            }
        }
        Ok(())
    }

    /// Gives what is kept of threads off the CPU its ids in the next dictionary.
    pub(super) fn rename_off_cpu(&mut self, renaming: &mut Renaming<'_>) {
        let OffCpuTimes { intervals, threads, .. } = &mut self.off_cpu;
        threads.retain(|tid, _| intervals.awaits(*tid));
        threads.values_mut().for_each(|thread| *thread = renaming.thread(*thread));
        for stack in intervals.stacks_mut() {
            if let Away::Taken(Some(stack)) = stack {
                *stack = renaming.stack(*stack);
            }
        }
    }

    /// Takes note of a thread that the scheduler's programs were not told of.
    pub fn meet_stranger(&mut self) {
        self.in_kernel.is_outdated = true;
    }

    /// Keeps the stack of an off-CPU interval that is still to come.
    pub fn take_deep_stack(&mut self, events: &mut EventWriter<'_>, record: &StackRecord<'_>) {
        let target = &self.probe.target;
        let stack = stack_of(target, &mut self.in_kernel, &mut self.stack_names, events, record);
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
    pub fn take_interval(&mut self, events: &mut EventWriter<'_>, record: &OffCpuRecord<'_>) {
        self.record_told(events, |intervals, owner, sink| intervals.take(record, owner, sink));
    }

    /// Records what was not told by itself, if it is time to.
    pub(super) fn flush_off_cpu(
        &mut self,
        kernel: &mut BpfProgram,
        events: &mut EventWriter<'_>,
        now: Timestamp,
    ) {
        if now >= self.off_cpu.next_flush {
            self.off_cpu.next_flush = now + FLUSH_GAP;
            self.flush_all_off_cpu(kernel, events, None);
        }
    }

    /// Records what was not told by itself, up to now or to the `end` of the watch.
    pub fn flush_all_off_cpu(
        &mut self,
        kernel: &mut BpfProgram,
        events: &mut EventWriter<'_>,
        end: Option<Timestamp>,
    ) {
        let Some(off_cpu) = &mut kernel.off_cpu else { return };
        self.record_told(events, |intervals, owner, sink| intervals.flush(off_cpu, end, owner, sink));
    }

    /// Records the off-CPU intervals that `tell` hands to its sink.
    fn record_told(
        &mut self,
        events: &mut EventWriter<'_>,
        tell: impl FnOnce(&mut OffCpuTracker<Away>, Owner<'_>, &mut IntervalSink<'_, Away>),
    ) {
        let mut found = Vec::new();
        let OffCpuTimes { intervals, gils, .. } = &mut self.off_cpu;
        let (target, in_kernel, names) = (&self.probe.target, &mut self.in_kernel, &mut self.stack_names);
        let mut stack = |record: &StackRecord<'_>| stack_of(target, in_kernel, names, events, record);
        let owner = Owner { process: target.process(), gils };
        let mut keep = |interval| found.push(interval);
        tell(intervals, owner, &mut IntervalSink { stack: &mut stack, interval: &mut keep });
        found.into_iter().for_each(|interval| self.record_interval(events, &interval));
    }

    /// Notes what the watch cannot tell any more once it has ended.
    pub fn prepare_end_of_intervals(&mut self, kernel: &BpfProgram) {
        self.off_cpu.next_flush = Timestamp::MAX;
        if let Some(off_cpu) = &kernel.off_cpu {
            self.off_cpu.intervals.note_arrivals(off_cpu);
        }
    }

    /// What the process leaves in the scheduler's programs.
    pub(super) fn forget_intervals(&mut self, kernel: &mut BpfProgram) {
        if let Some(off_cpu) = &mut kernel.off_cpu {
            self.off_cpu.intervals.forget_all(off_cpu);
        }
    }

    fn record_interval(&mut self, events: &mut EventWriter<'_>, interval: &OffCpuInterval<Away>) {
        let Some(thread) = self.off_cpu.threads.get(&interval.thread).copied() else { return };
        if self.options.gil_only && !interval.holds_gil {
            return events.skip(Scope::Thread(thread), interval.at, 1);
        }
        if interval.state.is_running() {
            return self.record_unsampled(events, thread, interval);
        }
        let &OffCpuInterval { at, state, holds_gil, duration: wall, since, .. } = interval;
        let (scope, lost) = (Scope::Thread(thread), Some(LostInterval { state, holds_gil, wall, since }));
        let (stack, cause) = match interval.stack {
            Away::Taken(None) => return events.skip(scope, at, 1),
            // For how long and for what it waited is known all the same.
            Away::Lost(reason) => {
                return events.lose_with(Loss { off_cpu: lost, ..Loss::of(reason, scope, at, 1) });
            }
            Away::Unsent => {
                let loss = Loss::of(LossReason::BufferFull, scope, at, 0);
                return events.lose_with(Loss { off_cpu: lost, ..loss });
            }
            Away::Taken(stack) => (stack, SampleCause::OffCpu),
            Away::Summed => (None, SampleCause::ShortOffCpu),
        };
        let sample = Sample { at, thread, stack, state, holds_gil, cpu: Nanos::ZERO, wall };
        events.write(Event::Sample(SampleEvent { since, ..SampleEvent::new(sample, cause) }));
    }

    /// Records for how long a thread ran since its last sample.
    fn record_unsampled(
        &mut self,
        events: &mut EventWriter<'_>,
        thread: ThreadId,
        interval: &OffCpuInterval<Away>,
    ) {
        if self.off_cpu.takes_samples {
            let &OffCpuInterval { at, state, duration, since, holds_gil, .. } = interval;
            let sample = Sample { at, thread, stack: None, state, holds_gil, cpu: duration, wall: duration };
            let event = SampleEvent { count: 0, since, ..SampleEvent::new(sample, SampleCause::Unsampled) };
            events.write(Event::Sample(event));
        }
    }
}

fn stack_of(
    target: &Target,
    in_kernel: &mut InKernel,
    names: &mut StackNames,
    events: &mut EventWriter<'_>,
    record: &StackRecord<'_>,
) -> Away {
    let walked = raw_stack(record, target);
    match walked.and_then(|raw| in_kernel.named(target, record, &raw, names, events)) {
        Ok(stack) => Away::Taken(stack),
        Err(reason) => Away::Lost(reason),
    }
}
