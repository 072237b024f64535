//! From what a sampler observes of one process to events: stacks get their names, and all events their weights.
//!
//! This is the one way for all samplers. It takes no clock and reads nothing but code objects, through [`ProcessView`], so that a
//! test can script the observations.

mod deferred;
#[cfg(test)]
mod simulation;
mod threads;

use std::fmt::Debug;
use std::sync::Arc;

use profiler_account::{EventWeight, ThreadAccount, longest_kept_back};
use profiler_memory::{ReadError, ReadMemory};
use profiler_model::{ClockReading, Frame, LossReason, ModuleNumber, Nanos, SchedStat, Timestamp};
use profiler_profile::{
    Event, FrameId, HeldBy, Loss, MarkKind, ProcessId, Renaming, Sample, Scope, Skip, StackId, ThreadId,
    ThreadInfo, ThreadRole,
};
use profiler_python::RawStack;
use profiler_stack::{
    Capture, CodeEvidence, CodeSource, Describe, KernelStack, NativeFrames, NativeStack, StackEvidence,
    StackResolver,
};

use crate::event_writer::EventWriter;
use crate::kernel_frames::KernelFrames;
use crate::observation::{Asleep, InstantCaptures, Missed, Observation};
use crate::roster::ThreadSlot;
use deferred::{DeferredCaptures, DeferredInstant};
use threads::{ReportedThreads, SleeperStack};

/// What the reporter asks of the process that it reports on.
pub trait ProcessView {
    /// Its memory.
    type Memory: ReadMemory;

    /// Where the code objects of its Python are read, if it has one.
    fn code(&self) -> Option<CodeSource<'_, Self::Memory>>;

    /// The path of a module of native code.
    fn module_path(&self, module: ModuleNumber) -> Arc<str>;

    /// Learns whether all frames of a stack got certain names, so that captures copy what later ones need.
    fn learn(&mut self, evidence: &CodeEvidence, stack: &RawStack, is_named: bool);

    /// Whether the process still lives, after a loss that may mean that it does not, or that it is another program by now.
    fn lives_after_loss(&mut self) -> bool;
}

/// Makes short forms of the paths of files.
pub trait ShortPaths: Debug + Send {
    /// The short form of a file's path.
    fn shorten(&mut self, file: &Arc<str>) -> Arc<str>;
}

/// Makes events of what is observed of one process.
#[derive(Debug)]
pub struct Reporter {
    process: ProcessId,
    threads: ReportedThreads,
    /// What names Python frames.
    pub resolver: StackResolver<FrameId>,
    native_frames: NativeFrames<FrameId>,
    short_paths: Box<dyn ShortPaths>,
    /// What names frames of the kernel.
    pub kernel_frames: KernelFrames<FrameId>,
    deferred: DeferredCaptures,
    longest_kept_back: Nanos,
    /// Whether a loss has shown that the process has ended.
    has_ended: bool,
}

impl Reporter {
    /// For a process that is `process` in the dictionary, of which so many instants a second are sampled.
    pub fn new(process: ProcessId, short_paths: Box<dyn ShortPaths>, rate_hz: f64) -> Self {
        Reporter {
            process,
            threads: ReportedThreads::default(),
            resolver: StackResolver::default(),
            native_frames: NativeFrames::default(),
            short_paths,
            kernel_frames: KernelFrames::default(),
            deferred: DeferredCaptures::default(),
            longest_kept_back: longest_kept_back(rate_hz),
            has_ended: false,
        }
    }

    /// Takes note that so many instants a second are sampled from now on.
    pub fn set_rate(&mut self, rate_hz: f64) {
        self.longest_kept_back = longest_kept_back(rate_hz);
    }

    /// The process, as what events are about.
    pub fn scope(&self) -> Scope {
        Scope::Process(self.process)
    }

    /// The process in the dictionary.
    pub fn process(&self) -> ProcessId {
        self.process
    }

    /// Whether a loss has shown that the process has ended.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Meets a thread at an instant at which the scheduler had counted so much, unless it is known.
    pub fn meet(
        &mut self,
        thread: ThreadSlot,
        met: (Timestamp, SchedStat),
        info: impl FnOnce(ProcessId) -> ThreadInfo,
    ) {
        let process = self.process;
        self.threads.meet(thread, || (info(process), ThreadAccount::new(met.0, &met.1)));
    }

    /// Forgets the threads that are not among those to keep.
    pub fn retain(&mut self, keep: impl Fn(ThreadSlot) -> bool) {
        self.threads.retain(keep);
    }

    /// The account of a thread's time.
    pub fn account(&mut self, thread: ThreadSlot) -> Option<&mut ThreadAccount> {
        self.threads.get_mut(thread).map(|thread| &mut thread.account)
    }

    /// Whether the stack is known that a thread has had since it had run so often.
    pub fn knows_stack(&self, thread: ThreadSlot, asleep_after: Option<u64>) -> bool {
        self.threads.stack_of_sleeper(thread, asleep_after).is_some()
    }

    /// The thread's id in the dictionary, if it is there.
    pub fn id_of(&self, thread: ThreadSlot) -> Option<ThreadId> {
        self.threads.get(thread)?.id
    }

    /// The thread's id in the dictionary; it is added if it is not there.
    pub fn thread_id(&mut self, thread: ThreadSlot, events: &mut EventWriter<'_>) -> Option<ThreadId> {
        self.threads.id(thread, events.dictionary)
    }

    /// Whether threads were added to the dictionary since this was last asked.
    pub fn take_has_added(&mut self) -> bool {
        self.threads.take_has_added()
    }

    /// The thread as what events are about: its process if it is not in the dictionary.
    pub fn scope_of(&self, thread: ThreadSlot) -> Scope {
        self.id_of(thread).map_or(self.scope(), Scope::Thread)
    }

    /// Gives what is kept its ids in the next dictionary. Nothing that was captured waits for its names.
    pub fn rename(&mut self, renaming: &mut Renaming<'_>) {
        self.process = renaming.process(self.process);
        self.threads.rename(renaming);
        self.resolver.forget_ids();
        self.native_frames.forget_ids();
        self.kernel_frames.forget_ids();
    }

    /// Makes events of an observation, at once or when names are looked up.
    pub fn take(
        &mut self,
        observation: Observation<'_>,
        subject: &mut impl ProcessView,
        events: &mut EventWriter<'_>,
    ) {
        if observation.thread().is_some_and(|thread| self.deferred.has(thread)) {
            self.resolve_deferred(subject, events);
        }
        match observation {
            Observation::Instant(instant) => self.take_instant(instant, subject, events),
            Observation::Program(capture, evidence) => {
                self.report(capture, StackEvidence::Hashes(evidence), &[], subject, events);
            }
            Observation::Asleep(asleep) => self.report_asleep(&asleep, events),
            Observation::Unwanted { thread, at, count, clocks } => {
                self.skip(thread, at, count, clocks.as_ref(), events);
            }
            Observation::Missed(missed) => self.report_missed(&missed, events),
            Observation::Look { thread, at, role, schedule } => {
                self.report_look(thread, at, role, &schedule, events);
            }
        }
    }

    fn take_instant(
        &mut self,
        instant: InstantCaptures,
        subject: &mut impl ProcessView,
        events: &mut EventWriter<'_>,
    ) {
        let (scope, at) = (self.scope(), instant.at);
        match instant.stops.as_deref() {
            Some([]) => events.not_held(scope, at),
            Some(stops) => stops.iter().for_each(|stop| events.held(scope, at, HeldBy::Stop, *stop)),
            None => {}
        }
        if !self.deferred.add(instant) {
            self.resolve_deferred(subject, events);
        }
    }

    /// Whether what waits for its names is to get them before the instant `next`.
    pub fn is_resolving_due(&self, next: Timestamp) -> bool {
        self.deferred.is_due(next)
    }

    /// The thread whose stack was captured last, and its exact clock, if it was the only one and waited for a CPU.
    pub fn only_queued(&mut self) -> Option<(ThreadSlot, Nanos)> {
        self.deferred.only_queued().map(|(queued, _)| queued)
    }

    /// Has what was captured last count at the instant `at` as well.
    pub fn count_again(&mut self, at: Timestamp) {
        if let Some((_, last)) = self.deferred.only_queued() {
            // One that had passed before is caught up with.
            last.again.push(at.max(last.instant.at));
        }
    }

    /// Makes events of all that was captured and waits for its names.
    pub fn resolve_deferred(&mut self, subject: &mut impl ProcessView, events: &mut EventWriter<'_>) {
        if self.deferred.is_empty() {
            return;
        }
        let mut deferred = self.deferred.take();
        if let Some(CodeSource { memory, offsets }) = subject.code() {
            let evidence = deferred.iter_mut().map(|deferred| &mut deferred.instant.code);
            let completed = CodeEvidence::complete(evidence, memory, offsets);
            self.has_ended |= completed == Err(ReadError::ProcessEnded);
        }
        for DeferredInstant { instant, again } in deferred {
            for capture in instant.captures {
                self.report(capture, StackEvidence::Heads(&instant.code), &again, subject, events);
            }
        }
    }

    /// Reports a capture for its instant and for later ones, at which all was the same.
    fn report(
        &mut self,
        capture: Capture<ThreadSlot>,
        evidence: StackEvidence<'_>,
        again: &[Timestamp],
        subject: &mut impl ProcessView,
        events: &mut EventWriter<'_>,
    ) {
        let thread = capture.thread;
        match self.resolve_capture(&capture, evidence, subject, events) {
            Ok(stack) => {
                let known = capture.asleep_after.map(|timeslices| SleeperStack { stack, timeslices });
                self.threads.set_sleeper_stack(thread, known);
                let role = ThreadRole { state: capture.state, holds_gil: capture.holds_gil };
                self.sample(thread, (stack, role), (capture.at, capture.count), &capture.clocks, events);
                for at in again {
                    self.sample(thread, (stack, role), (*at, 1), &capture.clocks, events);
                }
            }
            // Its memory is used for something else: the thread is between two calls of Python.
            Err(LossReason::ThreadEnded) if capture.may_have_no_state => {
                self.skip(thread, capture.at, capture.count, Some(&capture.clocks), events);
                again.iter().for_each(|at| self.skip(thread, *at, 1, Some(&capture.clocks), events));
            }
            Err(reason) => self.lose(&capture, reason, again, subject, events),
        }
    }

    /// Resolves stacks of before an instant whose names may be needed at it, and learns what names them: nothing is reported.
    pub fn learn_names(
        &mut self,
        stacks: &[RawStack],
        evidence: &CodeEvidence,
        subject: &mut impl ProcessView,
        events: &mut EventWriter<'_>,
    ) {
        for raw in stacks {
            // Whether the code has certain names is all that matters.
            let _ = self.resolve_python(raw, StackEvidence::Heads(evidence), subject, events);
        }
    }

    /// The stack of a capture in the dictionary; `None` if no code runs that is sampled.
    ///
    /// # Errors
    /// When a part of it was not captured, or a frame has no certain name.
    fn resolve_capture(
        &mut self,
        capture: &Capture<ThreadSlot>,
        evidence: StackEvidence<'_>,
        subject: &mut impl ProcessView,
        events: &mut EventWriter<'_>,
    ) -> Result<Option<StackId>, LossReason> {
        let python = match &capture.python {
            Some(raw) => {
                self.resolve_python(raw.as_ref().map_err(|reason| *reason)?, evidence, subject, events)?
            }
            None => None,
        };
        let user = match &capture.native {
            Some(native) => {
                let native = native.as_ref().map_err(|reason| *reason)?;
                self.resolve_native(python, native, subject, events)
            }
            None => python,
        };
        Ok(self.add_kernel(user, capture.kernel.as_ref(), capture.at, events))
    }

    /// The stack of native frames on `below`.
    fn resolve_native(
        &mut self,
        below: Option<StackId>,
        native: &NativeStack,
        subject: &impl ProcessView,
        events: &mut EventWriter<'_>,
    ) -> Option<StackId> {
        let mut intern = |frame: &Frame| events.dictionary.frame(frame);
        let frames =
            self.native_frames.root_first(native, &mut |number| subject.module_path(number), &mut intern);
        events.dictionary.stack_on(below, frames)
    }

    /// The stack in the dictionary; `None` if no Python runs.
    ///
    /// # Errors
    /// When a frame has no certain name.
    pub fn resolve(
        &mut self,
        (raw, evidence): (&RawStack, StackEvidence<'_>),
        kernel: Option<&KernelStack>,
        at: Timestamp,
        subject: &mut impl ProcessView,
        events: &mut EventWriter<'_>,
    ) -> Result<Option<StackId>, LossReason> {
        let python = self.resolve_python(raw, evidence, subject, events)?;
        Ok(self.add_kernel(python, kernel, at, events))
    }

    /// The stack with what its thread did in the kernel.
    fn add_kernel(
        &mut self,
        user: Option<StackId>,
        kernel: Option<&KernelStack>,
        at: Timestamp,
        events: &mut EventWriter<'_>,
    ) -> Option<StackId> {
        let (Some(user), Some(kernel)) = (user, kernel) else { return user };
        let frames = match kernel {
            KernelStack::Counters { counters, is_leaving, is_missing } => {
                if *is_missing {
                    events.mark(Scope::Session, at, MarkKind::NoKernelFrames);
                }
                let mut intern = |frame: &_| events.dictionary.frame(frame);
                self.kernel_frames.root_first(counters.iter().copied(), at, *is_leaving, &mut intern)
            }
            KernelStack::Functions(functions) => {
                KernelFrames::of_sleeper(functions.as_deref(), &mut |frame| events.dictionary.frame(frame))
            }
        };
        events.dictionary.stack_on(Some(user), frames)
    }

    fn resolve_python(
        &mut self,
        raw: &RawStack,
        evidence: StackEvidence<'_>,
        subject: &mut impl ProcessView,
        events: &mut EventWriter<'_>,
    ) -> Result<Option<StackId>, LossReason> {
        let Some(source) = subject.code() else { return Ok(None) };
        let short_paths = &mut self.short_paths;
        let mut describe = Describe {
            shorten: &mut |file| short_paths.shorten(file),
            intern: &mut |frame| events.dictionary.frame(frame),
        };
        let ids = self.resolver.resolve(source, evidence, raw, &mut describe);
        if let StackEvidence::Heads(evidence) = evidence {
            subject.learn(evidence, raw, ids.is_ok());
            if ids.is_err() {
                self.deferred.grow_restless();
            }
        }
        Ok(events.dictionary.stack(ids?))
    }

    /// Writes a sample that stands for `count` instants, the last of them `at`.
    fn sample(
        &mut self,
        thread: ThreadSlot,
        (stack, ThreadRole { state, holds_gil }): (Option<StackId>, ThreadRole),
        (at, count): (Timestamp, u64),
        clocks: &ClockReading,
        events: &mut EventWriter<'_>,
    ) {
        if stack.is_none() {
            // A thread that has a thread state but runs no Python: its time is not that of the Python that it runs later.
            return self.skip(thread, at, count, Some(clocks), events);
        }
        let Some(id) = self.thread_id(thread, events) else {
            return events.lose(LossReason::UnknownThread, self.scope(), at, count);
        };
        let EventWeight { cpu, wall } = self.weigh(thread, at, clocks);
        events.sample(Sample { at, thread: id, stack, state, holds_gil, cpu, wall }, count);
    }

    fn report_asleep(&mut self, asleep: &Asleep, events: &mut EventWriter<'_>) {
        let &Asleep { thread, at, count, state, holds_gil, clocks } = asleep;
        let known = self.threads.get(thread).and_then(|thread| thread.known);
        let stack = known.and_then(|known| known.stack);
        self.sample(thread, (stack, ThreadRole { state, holds_gil }), (at, count), &clocks, events);
    }

    fn report_look(
        &mut self,
        thread: ThreadSlot,
        at: Timestamp,
        ThreadRole { state, holds_gil }: ThreadRole,
        schedule: &SchedStat,
        events: &mut EventWriter<'_>,
    ) {
        let Some(id) = self.thread_id(thread, events) else { return };
        let Some(account) = self.account(thread) else { return };
        let EventWeight { cpu, wall } = account.take_look(schedule);
        events.look(Sample { at, thread: id, stack: None, state, holds_gil, cpu, wall });
    }

    fn report_missed(&mut self, missed: &Missed, events: &mut EventWriter<'_>) {
        let &Missed { thread, reason, at, count, clocks } = missed;
        let weight = clocks.map(|clocks| self.weigh(thread, at, &clocks)).unwrap_or_default();
        let EventWeight { cpu, wall } = weight;
        events.lose_with(Loss { cpu, wall, ..Loss::of(reason, self.scope_of(thread), at, count) });
    }

    fn skip(
        &mut self,
        thread: ThreadSlot,
        at: Timestamp,
        count: u64,
        clocks: Option<&ClockReading>,
        events: &mut EventWriter<'_>,
    ) {
        let EventWeight { cpu, wall } = match clocks {
            Some(clocks) => self.weigh(thread, at, clocks),
            None => {
                let wall = self.account(thread).map_or(Nanos::ZERO, |account| account.take_wall(at));
                EventWeight { cpu: Nanos::ZERO, wall }
            }
        };
        let scope = self.scope_of(thread);
        events.skip_with(Skip { cpu, wall, ..Skip::of(scope, at, count) });
    }

    /// Reports a capture as lost. The time that it stands for is lost with it: where it was used is not known, and it
    /// belongs to no stack that is proved later.
    fn lose(
        &mut self,
        capture: &Capture<ThreadSlot>,
        reason: LossReason,
        again: &[Timestamp],
        subject: &mut impl ProcessView,
        events: &mut EventWriter<'_>,
    ) {
        let reason = match reason {
            LossReason::Unreadable if self.has_ended => LossReason::ProcessEnded,
            reason => reason,
        };
        let at = again.last().copied().unwrap_or(capture.at);
        let EventWeight { cpu, wall } = self.weigh(capture.thread, at, &capture.clocks);
        let scope = self.thread_id(capture.thread, events).map_or(self.scope(), Scope::Thread);
        let count = capture.count + again.len() as u64;
        let role = Some(ThreadRole { state: capture.state, holds_gil: capture.holds_gil });
        events.write(Event::Loss(Loss { cpu, wall, role, ..Loss::of(reason, scope, at, count) }));
        if matches!(reason, LossReason::ProcessEnded | LossReason::ThreadEnded) {
            self.has_ended = !subject.lives_after_loss();
        }
    }

    fn weigh(&mut self, thread: ThreadSlot, at: Timestamp, clocks: &ClockReading) -> EventWeight {
        let longest = self.longest_kept_back;
        self.account(thread).map(|account| account.take(at, clocks, longest)).unwrap_or_default()
    }
}
