//! Time off the CPU of one process that is sampled by the in-kernel program: what its scheduler's programs report
//! becomes samples, which stand for exactly the time that a thread was off the CPU.

use profiler_bpf::{OffCpu, OffCpuRecord, StackRecord};
use profiler_memory::ReadError;
use profiler_model::{LossReason, Nanos, Tid, Timestamp};
use profiler_profile::{
    Event, Loss, Renaming, Sample, SampleCause, SampleEvent, Scope, StackId, ThreadId, ThreadRole,
};
use profiler_python::GilAddresses;
use profiler_stack::{CodeEvidence, HashedEvidence, StackEvidence};
use rustc_hash::{FxHashMap, FxHashSet};

use super::capture::{kernel_stack, raw_stack, read_evidence};
use super::idle_scan;
use super::off_cpu_reason::Owner;
use super::off_cpu_tracker::{Instead, IntervalSink, OffCpuInterval, OffCpuTracker};
use super::program::BpfProgram;
use crate::capture::InstantCopy;
use crate::event_writer::EventWriter;
use crate::probe::GilGroup;
use crate::runtimes::Runtimes;
use crate::sampled_process::SampledProcess;
use crate::thread_table::Thread;

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
    /// The evidence of the stack that is resolved; kept for its memory.
    evidence: HashedEvidence,
}

impl Default for OffCpuTimes {
    fn default() -> Self {
        OffCpuTimes {
            intervals: OffCpuTracker::new(INSTEAD),
            gils: Vec::new(),
            threads: FxHashMap::default(),
            takes_samples: false,
            next_flush: Timestamp::default(),
            evidence: HashedEvidence::default(),
        }
    }
}

impl OffCpuTimes {
    /// Has the scheduler's programs, if they are asked for, watch the threads that they do not know yet.
    pub fn watch_threads(
        &mut self,
        runtimes: &mut Runtimes,
        program: &mut BpfProgram,
        events: &mut EventWriter<'_>,
    ) {
        self.takes_samples = program.period() != Nanos::ZERO;
        let Some(off_cpu) = &mut program.off_cpu else { return };
        let interpreters = runtimes.all().iter().flat_map(|process| &process.probe.thread_table.interpreters);
        self.gils = interpreters.filter_map(|interpreter| interpreter.gil).collect();
        let subject = *runtimes.first().target().process();
        let mut new: FxHashMap<Tid, &Thread> = FxHashMap::default();
        for SampledProcess { probe, reporter, .. } in runtimes.all_mut() {
            for thread in probe.thread_table.threads() {
                if !self.intervals.has(thread.tid)
                    && !new.contains_key(&thread.tid)
                    && let Some(id) = reporter.thread_id(thread.slot, events)
                {
                    self.threads.insert(thread.tid, id);
                    new.insert(thread.tid, thread);
                }
            }
        }
        let owner = Owner { process: &subject, gils: &self.gils };
        self.intervals.watch(off_cpu, new.into_values(), owner);
    }

    /// Reads the stacks of threads that were asleep when they were first watched. Nothing has to be stopped for that: what is
    /// read is believed if the thread has not moved after it.
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn look_at_sleepers(
        &mut self,
        runtimes: &mut Runtimes,
        program: &BpfProgram,
        events: &mut EventWriter<'_>,
    ) -> Result<(), ReadError> {
        let Some(off_cpu) = &program.off_cpu else { return Ok(()) };
        let sleepers = self.intervals.take_sleepers();
        if sleepers.is_empty() {
            return Ok(());
        }
        runtimes.attribute_threads();
        let all = runtimes.all_mut().iter_mut();
        all.map(|process| self.read_sleepers(process, off_cpu, events, &sleepers)).fold(Ok(()), Result::and)
    }

    fn read_sleepers(
        &mut self,
        process: &mut SampledProcess,
        off_cpu: &OffCpu,
        events: &mut EventWriter<'_>,
        sleepers: &FxHashSet<Tid>,
    ) -> Result<(), ReadError> {
        let suspended = process.probe.suspended()?;
        for group in GilGroup::all(&process.probe.thread_table) {
            let mut wanted = group.threads;
            wanted.retain(|index| {
                let thread = process.thread_mut(*index);
                sleepers.contains(&thread.tid) && !suspended.contains(index) && thread.look().is_ok()
            });
            let mut copies = process.probe.capture(group.gil.as_ref(), &wanted)?;
            process.probe.complete(copies.iter_mut().map(|copy| &mut copy.code))?;
            for InstantCopy { stacks, code, .. } in copies {
                for (index, stack) in stacks {
                    let stack = stack.and_then(|raw| sleeper_stack(process, events, index, (&raw, &code)));
                    let stack = stack.map_or_else(Away::Lost, Away::Taken);
                    self.intervals.take_first_stack(off_cpu, process.thread(index).tid, stack);
                }
            }
        }
        Ok(())
    }

    /// Gives what is kept of threads off the CPU its ids in the next dictionary.
    pub fn rename(&mut self, renaming: &mut Renaming<'_>) {
        let OffCpuTimes { intervals, threads, .. } = self;
        threads.retain(|tid, _| intervals.awaits(*tid));
        threads.values_mut().for_each(|thread| *thread = renaming.thread(*thread));
        for stack in intervals.stacks_mut() {
            if let Away::Taken(Some(stack)) = stack {
                *stack = renaming.stack(*stack);
            }
        }
    }

    /// Keeps the stack of an off-CPU interval that is still to come.
    pub fn take_deep_stack(
        &mut self,
        runtimes: &mut Runtimes,
        events: &mut EventWriter<'_>,
        record: &StackRecord<'_>,
    ) {
        let stack = stack_of(runtimes, &mut self.evidence, events, record);
        self.intervals.take_deep(record, stack);
    }

    /// Since when the scheduler's programs watch the process, if they do.
    pub fn watched_since(&self) -> Option<Timestamp> {
        self.intervals.since()
    }

    /// For how much time a sample stands, if its thread is watched.
    pub fn time_of_sample(&self, record: &StackRecord<'_>) -> Option<Nanos> {
        self.intervals.time_of_sample(record)
    }

    /// Takes note of a sample that stands for so much.
    pub fn count_sample(&mut self, record: &StackRecord<'_>, time: Nanos) {
        self.intervals.count_sample(record.thread(), time, record.time());
    }

    /// Reports an off-CPU interval that is over.
    pub fn take_interval(
        &mut self,
        runtimes: &mut Runtimes,
        events: &mut EventWriter<'_>,
        record: &OffCpuRecord<'_>,
    ) {
        self.report(runtimes, events, |intervals, owner, sink| intervals.take(record, owner, sink));
    }

    /// Reports what was not reported by itself, if it is time to.
    pub fn flush_if_due(
        &mut self,
        runtimes: &mut Runtimes,
        program: &mut BpfProgram,
        events: &mut EventWriter<'_>,
        now: Timestamp,
    ) {
        if now >= self.next_flush {
            self.next_flush = now + FLUSH_GAP;
            self.flush(runtimes, program, events, None);
        }
    }

    /// Reports what was not reported by itself, up to now or to the `end` of the watch.
    pub fn flush(
        &mut self,
        runtimes: &mut Runtimes,
        program: &mut BpfProgram,
        events: &mut EventWriter<'_>,
        end: Option<Timestamp>,
    ) {
        let Some(off_cpu) = &mut program.off_cpu else { return };
        self.report(runtimes, events, |intervals, owner, sink| intervals.flush(off_cpu, end, owner, sink));
    }

    /// Reports the off-CPU intervals that `find` hands to its sink.
    fn report(
        &mut self,
        runtimes: &mut Runtimes,
        events: &mut EventWriter<'_>,
        find: impl FnOnce(&mut OffCpuTracker<Away>, Owner<'_>, &mut IntervalSink<'_, Away>),
    ) {
        let mut found = Vec::new();
        let OffCpuTimes { intervals, gils, evidence, .. } = self;
        let subject = *runtimes.first().target().process();
        let owner = Owner { process: &subject, gils };
        let mut stack = |record: &StackRecord<'_>| stack_of(runtimes, evidence, events, record);
        let mut keep = |interval| found.push(interval);
        find(intervals, owner, &mut IntervalSink { stack: &mut stack, interval: &mut keep });
        found.into_iter().for_each(|interval| self.report_interval(events, &interval));
    }

    /// Notes what the watch cannot say any more once it has ended.
    pub fn prepare_end(&mut self, program: &BpfProgram) {
        self.next_flush = Timestamp::MAX;
        if let Some(off_cpu) = &program.off_cpu {
            self.intervals.note_arrivals(off_cpu);
        }
    }

    /// Has the scheduler's programs forget the process.
    pub fn forget(&mut self, program: &mut BpfProgram) {
        if let Some(off_cpu) = &mut program.off_cpu {
            self.intervals.forget_all(off_cpu);
        }
    }

    fn report_interval(&self, events: &mut EventWriter<'_>, interval: &OffCpuInterval<Away>) {
        let Some(thread) = self.threads.get(&interval.thread).copied() else { return };
        if interval.state.is_running() {
            return self.report_unsampled(events, thread, interval);
        }
        let &OffCpuInterval { at, state, holds_gil, duration: wall, since, .. } = interval;
        let scope = Scope::Thread(thread);
        let lose = |reason, count| {
            let role = Some(ThreadRole { state, holds_gil });
            // For how long and for what it waited is known all the same.
            Loss { wall, cause: SampleCause::OffCpu, since, role, ..Loss::of(reason, scope, at, count) }
        };
        let (stack, cause) = match interval.stack {
            Away::Taken(None) => return events.skip(scope, at, 1),
            Away::Lost(reason) => return events.write(Event::Loss(lose(reason, 1))),
            Away::Unsent => return events.write(Event::Loss(lose(LossReason::BufferFull, 0))),
            Away::Taken(stack) => (stack, SampleCause::OffCpu),
            Away::Summed => (None, SampleCause::ShortOffCpu),
        };
        let sample = Sample { at, thread, stack, state, holds_gil, cpu: Nanos::ZERO, wall };
        events.write(Event::Sample(SampleEvent { since, ..SampleEvent::new(sample, cause) }));
    }

    /// Reports for how long a thread ran since its last sample.
    fn report_unsampled(
        &self,
        events: &mut EventWriter<'_>,
        thread: ThreadId,
        interval: &OffCpuInterval<Away>,
    ) {
        if self.takes_samples {
            let &OffCpuInterval { at, state, duration, since, holds_gil, .. } = interval;
            let sample = Sample { at, thread, stack: None, state, holds_gil, cpu: duration, wall: duration };
            let event = SampleEvent { count: 0, since, ..SampleEvent::new(sample, SampleCause::Unsampled) };
            events.write(Event::Sample(event));
        }
    }
}

/// The stack of a thread that sleeps, read from outside, with what it does in the kernel if that is wanted.
fn sleeper_stack(
    process: &mut SampledProcess,
    events: &mut EventWriter<'_>,
    index: usize,
    (raw, code): (&profiler_python::RawStack, &CodeEvidence),
) -> Result<Option<StackId>, LossReason> {
    let kernel = idle_scan::kernel_stack(process, index);
    let (SampledProcess { probe, reporter, .. }, at) = (process, Timestamp::default());
    reporter.resolve((raw, StackEvidence::Heads(code)), kernel.as_ref(), at, probe, events)
}

/// The stack of a record.
fn stack_of(
    runtimes: &mut Runtimes,
    evidence: &mut HashedEvidence,
    events: &mut EventWriter<'_>,
    record: &StackRecord<'_>,
) -> Away {
    let Some(SampledProcess { probe, reporter, .. }) = runtimes.get_mut(record.runtime()) else {
        return Away::Lost(LossReason::ThreadEnded);
    };
    read_evidence(record, evidence);
    let kernel = reporter.kernel_frames.are_wanted().then(|| kernel_stack(record));
    let resolved = raw_stack(record, probe.source()).and_then(|raw| {
        let evidence = StackEvidence::Hashes(evidence);
        reporter.resolve((&raw, evidence), kernel.as_ref(), record.time(), probe, events)
    });
    resolved.map_or_else(Away::Lost, Away::Taken)
}
