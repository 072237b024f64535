//! A process of which one Python is sampled: the probe that looks at it, and the reporter that makes events of what is observed.

use std::sync::Arc;

use profiler_memory::ReadError;
use profiler_model::{ClockReading, LossReason, ModuleNumber, ThreadKey, ThreadState, Timestamp};
use profiler_os::ProcessMemory;
use profiler_profile::{CapturePolicy, ProcessId, ThreadInfo};
use profiler_python::RawStack;
use profiler_stack::{Capture, CodeEvidence, CodeSource};
use profiler_target::{ShortFiles, Target};
use rustc_hash::FxHashSet;

use crate::capture::InstantCopy;
use crate::event_writer::EventWriter;
use crate::names::ThreadNames;
use crate::observation::{InstantCaptures, Missed, Observation};
use crate::probe::Probe;
use crate::reporter::{ProcessView, Reporter, ShortPaths};
use crate::roster::ThreadSlot;
use crate::thread_table::Thread;

/// A process of which one Python is sampled.
#[derive(Debug)]
pub struct SampledProcess {
    /// Looks at it.
    pub probe: Probe,
    /// Makes events of what is observed.
    pub reporter: Reporter,
    /// Which stacks are captured.
    pub policy: CapturePolicy,
    /// How many instants are sampled in a second.
    pub rate_hz: f64,
    names: ThreadNames,
}

impl SampledProcess {
    /// `probe` looks at what is `process` in the dictionary.
    pub fn new(probe: Probe, process: ProcessId, policy: CapturePolicy, rate_hz: f64) -> Self {
        let short_paths = Box::new(ShortFiles::new(*probe.target.process()));
        let reporter = Reporter::new(process, short_paths, rate_hz);
        SampledProcess { probe, reporter, policy, rate_hz, names: ThreadNames::default() }
    }

    /// The same process with another Python, which `probe` looks at.
    pub fn with_other_python(&self, probe: Probe) -> Self {
        let mut other = SampledProcess::new(probe, self.reporter.process(), self.policy, self.rate_hz);
        other.names.only_nameless = true;
        other
    }

    /// The process.
    pub fn target(&self) -> &Target {
        &self.probe.target
    }

    /// Its threads.
    pub fn threads(&self) -> &[Thread] {
        self.probe.thread_table.threads()
    }

    /// The thread with this index.
    pub fn thread(&self, index: usize) -> &Thread {
        &self.probe.thread_table.threads()[index]
    }

    /// The same, to be changed.
    pub fn thread_mut(&mut self, index: usize) -> &mut Thread {
        &mut self.probe.thread_table.threads_mut()[index]
    }

    /// Has so many instants be sampled in a second from now on.
    pub fn set_rate(&mut self, rate_hz: f64) {
        self.rate_hz = rate_hz;
        self.reporter.set_rate(rate_hz);
    }

    /// Makes events of an observation.
    pub fn report(&mut self, observation: Observation<'_>, events: &mut EventWriter<'_>) {
        self.reporter.take(observation, &mut self.probe, events);
    }

    /// Makes events of all that was captured and waits for its names.
    pub fn resolve_deferred(&mut self, events: &mut EventWriter<'_>) {
        self.reporter.resolve_deferred(&mut self.probe, events);
    }

    /// Has the reporter know the threads that there are now, and no others.
    pub fn meet_threads(&mut self) {
        let (target, table) = (&self.probe.target, &self.probe.thread_table);
        for thread in table.threads() {
            self.reporter.meet(thread.slot, thread.met, |process| thread_info(target, thread, process));
        }
        let there: FxHashSet<ThreadSlot> = table.threads().iter().map(|thread| thread.slot).collect();
        self.reporter.retain(|slot| there.contains(&slot));
    }

    /// Reports the instants since a thread was looked at last of which nothing is known. Its next sample stands for the time
    /// since the last one.
    pub fn report_unknown(&mut self, index: usize, at: Timestamp, events: &mut EventWriter<'_>) {
        let instant = self.probe.thread_table.roster().instant();
        let thread = self.thread_mut(index);
        thread.looks.set_reported(instant);
        let (slot, count) = (thread.slot, thread.looks.take_unknown());
        if count > 0 {
            let missed = Missed { thread: slot, reason: LossReason::CpuLimit, at, count, clocks: None };
            self.report(Observation::Missed(missed), events);
        }
    }

    /// Reports a thread whose stack is not wanted at an instant.
    pub fn report_unwanted(&mut self, index: usize, at: Timestamp, events: &mut EventWriter<'_>) {
        let thread = self.thread_mut(index);
        let (thread, count) = (thread.slot, 1 + thread.take_unseen_asleep());
        self.report(Observation::Unwanted { thread, at, count, clocks: None }, events);
    }

    /// Whether the stack of a thread is known that sleeps and has not run since it was captured.
    pub fn knows_stack(&self, index: usize) -> bool {
        let thread = self.thread(index);
        self.reporter.knows_stack(thread.slot, thread.timeslices_asleep())
    }

    /// The captures of an instant whose stacks were copied; `describe` says what a thread was doing, by its index.
    pub fn captures(
        &mut self,
        copy: InstantCopy,
        at: Timestamp,
        describe: &mut dyn FnMut(&Self, usize) -> (ThreadState, ClockReading),
    ) -> InstantCaptures {
        let InstantCopy { stacks, code, holder, stops, queued, .. } = copy;
        let mut captures = Vec::with_capacity(stacks.len());
        for (index, python) in stacks {
            let (state, clocks) = describe(self, index);
            let thread = self.thread_mut(index);
            captures.push(Capture {
                thread: thread.slot,
                at,
                count: 1 + thread.take_unseen_asleep(),
                state,
                holds_gil: holder == Some(thread.python.address),
                asleep_after: thread.timeslices_asleep(),
                may_have_no_state: !thread.is_listed,
                clocks,
                python: Some(python),
                native: None,
                kernel: None,
            });
        }
        let queued = queued.map(|queued| (self.thread(queued.thread).slot, queued.clock));
        InstantCaptures { at, captures, code, stops: Some(stops), queued, may_wait: true }
    }

    /// Names the threads that came into the dictionary, if it is time to.
    pub fn update_names(&mut self, events: &mut EventWriter<'_>, now: Timestamp) {
        if self.reporter.take_has_added() {
            self.names.expect_another();
        }
        self.names.update(&self.probe, &self.reporter, events, now);
    }

    /// Names the threads that were first met at the very end.
    pub fn name_last_threads(&self, events: &mut EventWriter<'_>) {
        self.names.complete(&self.probe, &self.reporter, events);
    }
}

impl ProcessView for Probe {
    type Memory = ProcessMemory;

    fn code(&self) -> Option<CodeSource<'_, ProcessMemory>> {
        Some(self.source())
    }

    fn module_path(&self, _: ModuleNumber) -> Arc<str> {
        // Its native code is not captured.
        Arc::default()
    }

    fn learn(&mut self, evidence: &CodeEvidence, stack: &RawStack, is_named: bool) {
        self.learn_code(evidence, stack, is_named);
    }

    fn lives_after_loss(&mut self) -> bool {
        // Or `exec` put another Python exactly where the old one was.
        self.thread_table.distrust();
        self.target.process().is_alive()
    }
}

impl ShortPaths for ShortFiles {
    fn shorten(&mut self, file: &Arc<str>) -> Arc<str> {
        ShortFiles::shorten(self, file)
    }
}

fn thread_info(target: &Target, thread: &Thread, process: ProcessId) -> ThreadInfo {
    ThreadInfo {
        key: ThreadKey { pid: target.pid(), tid: thread.tid },
        process,
        pthread_id: Some(thread.python.pthread_id),
        name: None,
        is_main: thread.tid.as_u32() == target.pid().as_u32(),
    }
}

/// What became of a process that was to be sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampled {
    /// It was sampled and goes on.
    Going,
    /// Its Python is gone: it is being replaced by `exec`.
    WithoutRuntime,
    /// It has ended.
    Ended,
    /// Its memory does not answer.
    Silent,
}

impl Sampled {
    /// By whether it could be looked at. `has_runtime` says whether its Python is there, if its lists could not be read.
    pub fn of(looked: Result<(), ReadError>, has_runtime: impl FnOnce() -> bool) -> Self {
        match looked {
            Ok(()) => Sampled::Going,
            // It has no memory any more: `exec` leaves no process without, not for a moment.
            Err(ReadError::ProcessEnded) => Sampled::Ended,
            Err(ReadError::NoAnswer) => Sampled::Silent,
            Err(_) if has_runtime() => Sampled::Going,
            Err(_) => Sampled::WithoutRuntime,
        }
    }
}
