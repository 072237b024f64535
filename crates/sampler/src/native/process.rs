//! A process without Python that is sampled on a schedule.

use std::sync::Arc;

use profiler_memory::ReadError;
use profiler_model::{LossReason, ModuleNumber, Nanos, Pid, RemoteAddr, ThreadKey, ThreadState, Timestamp};
use profiler_os::{Process, ProcessMemory, Tracer, clock};
use profiler_profile::{CapturePolicy, ProcessId, Renaming, Scope, ThreadInfo};
use profiler_python::RawStack;
use profiler_stack::{Capture, CodeEvidence, CodeSource, NativeStack};
use profiler_target::{ModuleCode, Search, ShortFiles, TargetProcess};
use rustc_hash::{FxHashMap, FxHashSet};

use super::capture::{Stopped, capture};
use super::stack_copy::{FIRST_COPY_BYTES, MAX_COPY_BYTES};
use super::unwinder::{ThreadCopy, Unwinder};
use crate::SamplerOptions;
use crate::event_writer::EventWriter;
use crate::observation::{InstantCaptures, Missed, Observation};
use crate::process_sampler::Sampled;
use crate::reporter::{ProcessView, Reporter};
use crate::roster::{KernelThread, Roster, ThreadSlot};
use crate::rota::cost_of_instant;

/// How often the list of threads is read.
const LIST_GAP: Nanos = Nanos::from_nanos(5_000_000);

/// How often is looked whether the process runs another program, or has loaded a Python.
const PROGRAM_GAP: Nanos = Nanos::from_nanos(100_000_000);

/// A process without Python.
#[derive(Debug)]
pub struct NativeProcess {
    view: NativeView,
    roster: Roster<KernelThread>,
    reporter: Reporter,
    tracer: Tracer,
    policy: CapturePolicy,
    /// The instants that are sampled in a second, if none is left out, and as it is.
    full_rate_hz: f64,
    rate_hz: f64,
    /// What was copied in the last stop.
    copy: ThreadCopy,
    extents: FxHashMap<ThreadSlot, StackExtent>,

    /// The CPU time of the process when sampling began, and when it was read last.
    cpu: (Nanos, Nanos),
    /// When it was born, if that was while it was watched and no thread was met yet.
    born: Option<Timestamp>,
    search: Search,
    next_list: Timestamp,
    next_program: Timestamp,
}

/// The modules of a process whose native code was sampled.
#[derive(Clone, Debug)]
pub struct ProcessCode {
    /// The process.
    pub process: Process,
    /// The modules.
    pub modules: Vec<Arc<ModuleCode>>,
}

/// What is known of the stack of a thread.
#[derive(Clone, Copy, Debug)]
struct StackExtent {
    /// How many bytes of it are copied.
    copied: usize,
    /// Where it ends, if that was met.
    end: Option<RemoteAddr>,
}

impl Default for StackExtent {
    fn default() -> Self {
        StackExtent { copied: FIRST_COPY_BYTES, end: None }
    }
}

/// The process as its reporter sees it.
#[derive(Debug)]
struct NativeView {
    process: TargetProcess,
    unwinder: Unwinder,
}

impl NativeProcess {
    /// For a process that is `id` in the dictionary. `born` is when, if that was while it was watched.
    pub fn new(
        process: TargetProcess,
        options: SamplerOptions,
        id: ProcessId,
        born: Option<Timestamp>,
    ) -> Self {
        let before = match born {
            Some(_) => Nanos::ZERO,
            None => process.process().cpu_time().unwrap_or_default(),
        };
        let short_paths = Box::new(ShortFiles::new(*process.process()));
        let (search, unwinder) = (Search::new(process.pid()), Unwinder::of(&process));
        NativeProcess {
            view: NativeView { process, unwinder },
            roster: Roster::default(),
            reporter: Reporter::new(id, short_paths, options.rate_hz),
            tracer: Tracer::new(),
            policy: options.policy,
            full_rate_hz: options.rate_hz,
            rate_hz: options.rate_hz,
            copy: ThreadCopy::default(),
            extents: FxHashMap::default(),

            cpu: (before, before),
            born,
            search,
            next_list: Timestamp::default(),
            next_program: Timestamp::default(),
        }
    }

    /// Its native code, to name what was captured.
    pub fn code(&self) -> ProcessCode {
        ProcessCode {
            process: *self.view.process.process(),
            modules: self.view.unwinder.code().modules().to_vec(),
        }
    }

    /// Takes a sample of each thread that is wanted.
    pub fn sample(&mut self, events: &mut EventWriter<'_>, now: Timestamp) -> Sampled {
        let sampled = self.look(events, now).and_then(|()| {
            let looked = self.roster.looked().to_vec();
            self.sample_threads(events, &looked, now)?;
            self.sample_resting(events)
        });
        match sampled {
            Ok(()) if self.roster.threads().is_empty() => Sampled::Ended,
            Ok(()) if self.runs_another_program(now) => Sampled::WithoutRuntime,
            Ok(()) => Sampled::Going,
            Err(ReadError::NoAnswer) => {
                events.lose(LossReason::NoAnswer, self.scope(), now, 1);
                Sampled::Silent
            }
            Err(_) if self.view.process.process().is_alive() => {
                events.lose(LossReason::Unreadable, self.scope(), now, 1);
                Sampled::Going
            }
            Err(_) => Sampled::Ended,
        }
    }

    fn look(&mut self, events: &mut EventWriter<'_>, now: Timestamp) -> Result<(), ReadError> {
        let ended = self.roster.look_at_active();
        if !ended.is_empty() || now >= self.next_list {
            self.next_list = now + LIST_GAP;
            self.update_threads(now)?;
        }
        let unseen = self.roster.take_unseen_of_ended();
        events.lose(LossReason::CpuLimit, self.scope(), now, unseen);
        Ok(())
    }

    fn update_threads(&mut self, now: Timestamp) -> Result<(), ReadError> {
        let process = self.view.process.process();
        let tids = process.threads().map_err(|_| ReadError::ProcessEnded)?;
        if !self.roster.update(process.pid(), &tids, now) {
            return Ok(());
        }
        let pid = process.pid();
        for thread in self.roster.threads() {
            self.reporter.meet(thread.slot, thread.met, |process| thread_info(pid, thread, process));
        }
        let there: FxHashSet<ThreadSlot> = self.roster.threads().iter().map(|thread| thread.slot).collect();
        self.reporter.retain(|slot| there.contains(&slot));
        self.extents.retain(|slot, _| there.contains(slot));
        if let Some(born) = self.born.take() {
            for thread in self.roster.threads() {
                self.reporter.account(thread.slot).into_iter().for_each(|account| account.from_birth(born));
            }
        }
        Ok(())
    }

    /// Samples the threads that rest, as many as have their turn, if there are many.
    fn sample_resting(&mut self, events: &mut EventWriter<'_>) -> Result<(), ReadError> {
        if !self.roster.has_many_resting() {
            return Ok(());
        }
        let at = clock::now();
        if !self.roster.look_at_resting(cost_of_instant(self.rate_hz)).is_empty() {
            self.update_threads(at)?;
        }
        let looked = self.roster.looked().to_vec();
        self.sample_threads(events, &looked, at)
    }

    fn sample_threads(
        &mut self,
        events: &mut EventWriter<'_>,
        looked: &[usize],
        at: Timestamp,
    ) -> Result<(), ReadError> {
        let mut stops = false;
        for index in looked.iter().copied() {
            self.report_unknown(events, index, at);
            let thread = &self.roster.threads()[index];
            // One that has lost its CPU to this very process ran at the instant, and stops as soon as it has it again.
            let had_cpu = thread.clock_while_queued().is_none() || thread.was_on_cpu(at);
            if thread.is_running() && had_cpu {
                self.sample_running(events, index, at)?;
                stops = true;
            } else {
                self.report_off_cpu(events, index, at);
            }
        }
        if !stops {
            events.not_held(self.scope(), at);
        }
        Ok(())
    }

    /// Reports the instants since a thread was looked at last of which nothing is known.
    fn report_unknown(&mut self, events: &mut EventWriter<'_>, index: usize, at: Timestamp) {
        let instant = self.roster.instant();
        let thread = &mut self.roster.threads_mut()[index];
        thread.looks.set_reported(instant);
        let (slot, count) = (thread.slot, thread.looks.take_unknown());
        if count > 0 {
            let reason = LossReason::CpuLimit;
            let missed = Missed { thread: slot, reason, at, count, clocks: None };
            self.report(Observation::Missed(missed), events);
        }
    }

    /// Reports a thread that has no CPU. Its stack is not captured, as it is not stopped.
    fn report_off_cpu(&mut self, events: &mut EventWriter<'_>, index: usize, at: Timestamp) {
        let thread = &mut self.roster.threads_mut()[index];
        let (slot, count) = (thread.slot, 1 + thread.take_unseen_asleep());
        let clocks = thread.is_running().then(|| thread.read_clocks(ThreadState::Running, at).1);
        let observation = match self.policy {
            CapturePolicy::All => {
                let reason = LossReason::NotTaken;
                Observation::Missed(Missed { thread: slot, reason, at, count, clocks })
            }
            CapturePolicy::Running | CapturePolicy::RunningAndGilHolder => {
                Observation::Unwanted { thread: slot, at, count, clocks }
            }
        };
        self.report(observation, events);
    }

    fn sample_running(
        &mut self,
        events: &mut EventWriter<'_>,
        index: usize,
        at: Timestamp,
    ) -> Result<(), ReadError> {
        let slot = self.roster.threads()[index].slot;
        let extent = self.extents.entry(slot).or_default();
        // Before the stop, which lasts no longer than it must.
        self.copy.stack.make_room(extent.copied, extent.end);

        let thread = &self.roster.threads()[index];
        let Stopped { copied, held } = capture(&self.view.process, thread, &mut self.copy, &mut self.tracer)?;

        let thread = &mut self.roster.threads_mut()[index];
        thread.count_cpu(None);
        let (state, clocks) = thread.read_clocks(ThreadState::Running, at);
        let count = 1 + thread.take_unseen_asleep();
        let native = copied.and_then(|()| self.unwind());

        if let Some(extent) = self.extents.get_mut(&slot) {
            extent.end = self.copy.stack.stack_end();
            if native == Err(LossReason::StackNotCopied) {
                extent.copied = (extent.copied * 2).min(MAX_COPY_BYTES);
            }
        }

        let capture = Capture {
            thread: slot,
            at,
            count,
            state,
            holds_gil: false,
            asleep_after: None,
            may_have_no_state: false,
            clocks,
            python: None,
            native: Some(native),
            kernel: None,
        };
        let stops = Some(held.into_iter().collect());
        let instant = InstantCaptures { at, captures: vec![capture], stops, ..InstantCaptures::default() };
        self.report(Observation::Instant(instant), events);
        Ok(())
    }

    /// The stack that was copied.
    fn unwind(&mut self) -> Result<NativeStack, LossReason> {
        let NativeView { process, unwinder } = &mut self.view;
        if !process.runs_same_program() {
            // By the modules of the program before, it would be another stack.
            self.next_program = Timestamp::default();
            return Err(LossReason::ProcessEnded);
        }
        unwinder.unwind(process, &self.copy)
    }

    fn report(&mut self, observation: Observation<'_>, events: &mut EventWriter<'_>) {
        self.reporter.take(observation, &mut self.view, events);
    }

    /// Whether it is to be looked at anew: it runs another program, or has loaded a Python.
    fn runs_another_program(&mut self, now: Timestamp) -> bool {
        if now < self.next_program {
            return false;
        }
        self.next_program = now + PROGRAM_GAP;
        !self.view.process.runs_same_program() || self.search.attach().is_ok()
    }

    /// Reports the instants since each thread was looked at last, at the end of sampling.
    pub fn count_unseen(&mut self, events: &mut EventWriter<'_>, now: Timestamp) {
        let instant = self.roster.instant();
        for index in 0..self.roster.threads().len() {
            let thread = &mut self.roster.threads_mut()[index];
            let unseen = thread.looks.instants_since(instant);
            if unseen == 0 {
                continue;
            }
            if thread.slept_since_look() {
                thread.looks.count_asleep(unseen - 1);
                self.report_off_cpu(events, index, now);
            } else {
                let (thread, reason) = (thread.slot, LossReason::CpuLimit);
                let missed = Missed { thread, reason, at: now, count: unseen, clocks: None };
                self.report(Observation::Missed(missed), events);
            }
        }
    }

    /// Whether any of its threads was ever found.
    pub fn has_threads(&self) -> bool {
        !self.roster.threads().is_empty()
    }

    /// Changes the sample rate, in samples per second.
    pub fn set_rate(&mut self, rate_hz: f64) {
        self.full_rate_hz = rate_hz;
    }

    /// Has this part of the instants be sampled from now on.
    pub fn sample_part(&mut self, part: f64) {
        self.rate_hz = self.full_rate_hz * part;
        self.reporter.set_rate(self.rate_hz);
    }

    /// Has the next samples stand for nothing that was before `now`.
    pub fn count_from(&mut self, now: Timestamp) {
        for thread in self.roster.threads() {
            let schedule = thread.files.schedule().ok();
            let account = self.reporter.account(thread.slot);
            account.into_iter().for_each(|account| account.restart(now, schedule.as_ref()));
        }
    }

    /// Gives what is kept its ids in the next dictionary.
    pub fn rename(&mut self, renaming: &mut Renaming<'_>) {
        self.reporter.rename(renaming);
    }

    /// The process, as what events are about.
    pub fn scope(&self) -> Scope {
        self.reporter.scope()
    }

    /// The CPU time that it used while it was sampled.
    pub fn cpu_used(&mut self) -> Nanos {
        let (before, last) = self.cpu;
        let now = self.view.process.process().cpu_time().unwrap_or(last);
        self.cpu.1 = last.max(now);
        self.cpu.1.saturating_sub(before)
    }

    /// Lets go of threads that stopped only after they had been given up.
    pub fn release_late(&mut self) {
        self.tracer.release_late();
    }

    /// Gives up sampling; what still has threads to let go of is left.
    pub fn into_tracer(self) -> Tracer {
        self.tracer
    }
}

impl ProcessView for NativeView {
    type Memory = ProcessMemory;

    fn code(&self) -> Option<CodeSource<'_, ProcessMemory>> {
        None
    }

    fn module_path(&self, module: ModuleNumber) -> Arc<str> {
        self.unwinder.module_path(module)
    }

    fn learn(&mut self, _: &CodeEvidence, _: &RawStack, _: bool) {}

    fn lives_after_loss(&mut self) -> bool {
        self.process.process().is_alive()
    }
}

fn thread_info(pid: Pid, thread: &KernelThread, process: ProcessId) -> ThreadInfo {
    ThreadInfo {
        key: ThreadKey { pid, tid: thread.tid },
        process,
        pthread_id: None,
        name: None,
        is_main: thread.tid.as_u32() == pid.as_u32(),
    }
}
