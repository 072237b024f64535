//! Sampling one process: at each instant, every thread that is wanted. When that is, and which processes
//! there are, is the business of `session` and `tree`.

use profiler_account::{OffCpuClock, Schedule};
use profiler_memory::ReadError;
use profiler_model::{LossReason, Nanos, OtherPython, ThreadKey, Tid, Timestamp};
use profiler_os::clock;
use profiler_os::priority::OrdinaryMeanwhile;
use profiler_profile::{HeldBy, Loss, ProcessId, Renaming, Sample, Scope, StackId, ThreadId, ThreadInfo};
use profiler_python::{GilAddresses, RawStack};
use profiler_stack::{CodeEvidence, StackEvidence};
use profiler_target::{OtherPythons, Target};

use crate::capture::Capture;
use crate::event_writer::EventWriter;
use crate::names::ThreadNames;
use crate::pause::Runners;
use crate::probe::{Found, GilGroup, Probe};
use crate::rota::{cost_of_instant, is_long};
use crate::stack_names::StackNames;
use crate::stack_reader::CodeAhead;
use crate::thread_table::{SleeperStack, Thread};
use crate::{SamplerKind, SamplerOptions};

mod deferred_captures;
mod idle_scan;
mod in_kernel;
mod off_cpu;

use deferred_captures::{Captured, Clocks, DeferredCaptures};
use in_kernel::InKernel;
use off_cpu::OffCpuTimes;

/// A thread that used as much CPU time as passes in this many mean gaps between samples was met on a CPU by one of
/// them, but for one time in hundreds of millions: otherwise what is known of its turns is wrong.
const MAX_GAPS_KEPT_BACK: f64 = 20.0;

/// What takes longer than this is done without real-time priority, as far as is known before.
const LONG: Nanos = Nanos::from_nanos(1_000_000);

/// A look that comes so much later than it was due shows what a thread does now, and not what it did then.
const LATE_LOOK: Nanos = Nanos::from_nanos(100_000);

/// A process that is being sampled.
#[derive(Debug)]
pub struct ProcessSampler {
    probe: Probe,
    options: SamplerOptions,
    /// How many instants are sampled in a second.
    rate_hz: f64,
    /// Whether to read the lists of its threads takes long.
    has_long_lists: bool,
    /// CPU time that may wait for a sample which met its thread on a CPU.
    most_kept_back: Nanos,
    waiting: DeferredCaptures,
    /// Whether it matters which CPU a thread has.
    watches_turns: bool,
    stack_names: StackNames,
    names: ThreadNames,
    in_kernel: InKernel,
    off_cpu: OffCpuTimes,
    process: ProcessId,
    other_pythons: OtherPythons,
    /// When it was born, if that was while it was watched: its first samples count from then.
    born: Option<Timestamp>,
    /// What its process clock said last, and when sampling began.
    cpu_before: Nanos,
    cpu_last: Nanos,
    /// Whether it turned out to have ended.
    ended: bool,
}

/// Which of its threads are sampled, see [`rota`](crate::rota).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Those that are awake, and those that rest where these are few.
    Active,
    /// Those that rest and have their turn.
    Resting,
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

impl ProcessSampler {
    /// For `target`, which is `process` in the profile. `born` is when, if that was while it was watched.
    pub fn new(target: Target, options: SamplerOptions, process: ProcessId, born: Option<Timestamp>) -> Self {
        let cpu_before = match born {
            Some(_) => Nanos::ZERO,
            None => target.process().cpu_time().unwrap_or_default(),
        };
        let stack_names = StackNames::new(*target.process());
        let mut probe = Probe::new(target, options.kind);
        probe.bound_stops();
        ProcessSampler {
            stack_names,
            probe,
            options,
            rate_hz: options.rate_hz,
            has_long_lists: false,
            most_kept_back: most_kept_back(options.rate_hz),
            waiting: DeferredCaptures::default(),
            watches_turns: false,
            names: ThreadNames::default(),
            in_kernel: InKernel::default(),
            off_cpu: OffCpuTimes::default(),
            process,
            other_pythons: OtherPythons::default(),
            born,
            cpu_before,
            cpu_last: cpu_before,
            ended: false,
        }
    }

    /// Has so many of the instants be sampled from now on, as a part of 1: a sample stands for more time.
    pub fn sample_part(&mut self, part: f64) {
        self.rate_hz = self.options.rate_hz * part;
        self.most_kept_back = most_kept_back(self.rate_hz);
    }

    /// Has it be known from now on which CPU a thread has that is the only one to run.
    pub fn watch_turns(&mut self) {
        self.watches_turns = true;
    }

    /// Has it not be known any more.
    pub fn unwatch_turns(&mut self) {
        self.watches_turns = false;
        self.probe.thread_table.threads.iter_mut().for_each(Thread::unwatch_turns);
    }

    /// Which of its threads run, as far as that says where to sample from.
    pub fn runners(&self) -> Runners {
        let thread_table = &self.probe.thread_table;
        let active = thread_table.rota().active().iter().map(|index| &thread_table.threads[*index]);
        let mut running = active.filter(|thread| thread.is_running());
        match (running.next(), running.next()) {
            (None, _) => Runners::None,
            (Some(only), None) => only
                .last_switch()
                .map_or(Runners::None, |switch| Runners::One { cpu: switch.cpu, switches: only.switches() }),
            (Some(_), Some(_)) => Runners::Many,
        }
    }

    /// The process.
    pub fn target(&self) -> &Target {
        &self.probe.target
    }

    /// Whether any of its threads was ever found.
    pub fn has_threads(&self) -> bool {
        !self.probe.thread_table.threads.is_empty()
    }

    /// Has the next samples stand for nothing that was before `now`.
    pub fn count_from(&mut self, now: Timestamp) {
        for thread in &mut self.probe.thread_table.threads {
            thread.counted_until = now;
            if let Ok(schedule) = thread.files.schedule() {
                thread.counted_cpu = schedule.cpu;
                thread.waits = OffCpuClock::from(now, &schedule);
            }
        }
    }

    /// Gives what is kept its ids in the next dictionary. Nothing that was captured waits for its names.
    pub fn rename(&mut self, renaming: &mut Renaming<'_>) {
        self.process = renaming.process(self.process);
        for thread in &mut self.probe.thread_table.threads {
            thread.id = thread.id.map(|id| renaming.thread(id));
            if let Some(SleeperStack { stack: Some(stack), .. }) = &mut thread.known {
                *stack = renaming.stack(*stack);
            }
        }
        self.stack_names.resolver.forget_ids();
        self.in_kernel.kernel_frames.forget_ids();
        self.rename_off_cpu(renaming);
    }

    /// Names the threads that were first met at the very end.
    pub fn name_last_threads(&self, events: &mut EventWriter<'_>) {
        self.names.complete(&self.probe.target, &self.probe.thread_table, events);
    }

    /// Lets go of threads that stopped only after they had been given up.
    pub fn release_late(&mut self) {
        self.probe.release_late();
    }

    /// Gives up sampling; what is still to be let go of is in the probe.
    pub fn into_probe(self) -> Probe {
        self.probe
    }

    /// Notes the process's clock while there is one.
    pub fn look_at_clock(&mut self) {
        let now = self.probe.target.process().cpu_time().unwrap_or(self.cpu_last);
        self.cpu_last = self.cpu_last.max(now);
    }

    /// The Pythons that run in it beside the one that is sampled, as far as they were looked for.
    pub fn other_pythons(&mut self, now: Timestamp) -> &[OtherPython] {
        self.other_pythons.look(&self.probe.target, now)
    }

    /// The CPU time that it used while it was sampled, as last seen.
    pub fn cpu_used(&self) -> Nanos {
        self.cpu_last.saturating_sub(self.cpu_before)
    }

    /// Takes one sample of every thread that is wanted; the sampler began `late` to do so.
    pub fn sample(&mut self, events: &mut EventWriter<'_>, now: Timestamp, late: Nanos) -> Sampled {
        let unplaced = self.probe.thread_table.unplaced.len() as u64;
        events.lose(LossReason::UnknownThread, self.scope(), now, unplaced);
        let result = self
            .look(events, now)
            .and_then(|()| self.sample_threads(events, now, late, Round::Active))
            .and_then(|()| self.sample_resting(events, late));
        if result.is_err() || self.ended {
            self.resolve_pending(events);
        }
        match result {
            Ok(()) => self.names.update(&self.probe.target, &self.probe.thread_table, events, now),
            // It has no memory any more: `exec` leaves no process without, not for a moment.
            Err(ReadError::ProcessEnded) => self.ended = true,
            Err(ReadError::NoAnswer) => {
                events.lose(LossReason::NoAnswer, self.scope(), now, 1);
                return Sampled::Silent;
            }
            Err(_) if self.probe.target.has_live_runtime() => {
                events.lose(LossReason::ListsUnreadable, self.scope(), now, 1);
            }
            Err(_) => {
                events.lose(LossReason::NoRuntime, self.scope(), now, 1);
                return Sampled::WithoutRuntime;
            }
        }
        if self.ended { Sampled::Ended } else { Sampled::Going }
    }

    /// Looks at what its threads are doing.
    fn look(&mut self, events: &mut EventWriter<'_>, now: Timestamp) -> Result<(), ReadError> {
        let found = self.probe.look_at_active(now)?;
        self.bring_up_to_date(events, found, now)?;
        if let Some(born) = self.born
            && self.has_threads()
        {
            self.born = None;
            self.probe.thread_table.threads.iter_mut().for_each(|thread| thread.count_from_birth(born));
        }
        Ok(())
    }

    fn bring_up_to_date(
        &mut self,
        events: &mut EventWriter<'_>,
        found: Found,
        now: Timestamp,
    ) -> Result<(), ReadError> {
        if let Found::Changed { ended } = found {
            self.resolve_pending(events);
            let _ordinary = self.has_long_lists.then(OrdinaryMeanwhile::begin);
            let began = clock::now();
            self.probe.refresh(ended, now)?;
            self.has_long_lists = clock::now().since(began) > LONG;
        }
        let unseen = self.probe.thread_table.take_unseen_of_ended();
        events.lose(LossReason::CpuLimit, self.scope(), now, unseen);
        Ok(())
    }

    /// Samples the threads that rest, as many as have their turn, where there are many. One that was woken is sampled like
    /// the others.
    fn sample_resting(&mut self, events: &mut EventWriter<'_>, late: Nanos) -> Result<(), ReadError> {
        if !self.probe.thread_table.rota().has_many_resting() {
            return Ok(());
        }
        let most = cost_of_instant(self.rate_hz);
        let _ordinary = is_long(most).then(OrdinaryMeanwhile::begin);
        let now = clock::now();
        let found = self.probe.look_at_resting(most);
        self.bring_up_to_date(events, found, now)?;
        self.sample_threads(events, now, late, Round::Resting)
    }

    /// Samples the threads that were looked at in this round of the instant.
    fn sample_threads(
        &mut self,
        events: &mut EventWriter<'_>,
        now: Timestamp,
        late: Nanos,
        round: Round,
    ) -> Result<(), ReadError> {
        let suspended = self.probe.suspended()?;
        for group in GilGroup::looked(&mut self.probe.thread_table) {
            let mut wanted = Vec::new();
            for index in group.threads {
                self.note_resolved(events, index, now);
                let thread = &self.probe.thread_table.threads[index];
                if suspended.contains(&index) {
                    self.resolve_pending_before(events, index);
                    self.not_asked_for(events, index, now);
                } else if thread.is_running()
                    || (self.options.include_idle && thread.unchanged_stack().is_none())
                {
                    wanted.push(index);
                } else if self.may_have_run(index, late) {
                    self.resolve_pending_before(events, index);
                    let clocks = Clocks::of(&self.probe.thread_table.threads[index], group.gil.as_ref(), now);
                    self.lose(events, index, LossReason::Late, 1, now, clocks);
                } else {
                    self.resolve_asleep(events, index, group.gil.as_ref(), now);
                }
            }
            if let (true, Some(gil)) = (self.options.gil_only, group.gil.as_ref()) {
                self.keep_holder(events, gil, &mut wanted, now);
            }
            if wanted.is_empty() {
                if round == Round::Active {
                    events.not_held(self.scope(), now);
                }
                continue;
            }
            if let ([only], true) = (wanted.as_slice(), self.watches_turns) {
                self.probe.thread_table.threads[*only].watch_turns();
            }
            let mut cut = Vec::new();
            for instant in self.probe.capture(group.gil.as_ref(), &wanted)? {
                cut.extend(instant.cut());
                self.note(events, instant, group.gil, now);
            }
            self.look_ahead_at(events, &cut)?;
        }
        Ok(())
    }

    /// Looks at the stacks of threads whose stops were too short to copy them: what is known of their code by then need not
    /// be copied at the next instant.
    fn look_ahead_at(&mut self, events: &mut EventWriter<'_>, cut: &[usize]) -> Result<(), ReadError> {
        if cut.is_empty() {
            return Ok(());
        }
        let _ordinary = OrdinaryMeanwhile::begin();
        self.resolve_pending(events);
        for index in cut {
            let Some(CodeAhead { mut capture, stacks }) = self.probe.look_ahead_at(&[*index])? else {
                continue;
            };
            self.probe.complete(std::iter::once(&mut capture))?;
            for raw in &stacks {
                // Whether its code has certain names is all that matters: that is learned.
                let _ = self.resolve(events, raw, &capture);
            }
        }
        Ok(())
    }

    /// Notes that the thread is recorded for this instant; what it did at those at which it was not looked at although it
    /// ran is lost.
    fn note_resolved(&mut self, events: &mut EventWriter<'_>, index: usize, now: Timestamp) {
        let instant = self.probe.thread_table.rota().instant();
        let thread = &mut self.probe.thread_table.threads[index];
        thread.resolved_at = instant;
        let unknown = std::mem::take(&mut thread.unseen.unknown);
        events.lose(LossReason::CpuLimit, self.scope_of(index), now, unknown);
    }

    /// At how many earlier instants the thread slept as it does now and was not looked at, since this was last asked.
    fn take_unseen_asleep(&mut self, index: usize) -> u64 {
        std::mem::take(&mut self.probe.thread_table.threads[index].unseen.asleep)
    }

    /// Records what is known of the instants since each thread was looked at last: at the end of sampling, at `now`.
    pub fn count_unseen(&mut self, events: &mut EventWriter<'_>, now: Timestamp) {
        let instant = self.probe.thread_table.rota().instant();
        for index in 0..self.probe.thread_table.threads.len() {
            let thread = &mut self.probe.thread_table.threads[index];
            let unseen = thread.instants_since_look(instant);
            if unseen == 0 {
                continue;
            }
            if !thread.slept_since_look() {
                events.lose(LossReason::CpuLimit, self.scope_of(index), now, unseen);
                continue;
            }
            thread.unseen.asleep += unseen - 1;
            let gil = self.probe.thread_table.interpreters[thread.interpreter].gil;
            match self.options.kind {
                SamplerKind::Bpf => self.resolve_sleeper(events, index, gil.as_ref(), now),
                SamplerKind::Pause | SamplerKind::Peek => {
                    self.resolve_asleep(events, index, gil.as_ref(), now);
                }
            }
        }
    }

    /// Whether a thread that sleeps may have run at the instant that is sampled so late. A sampler that waits for a CPU often
    /// gets the one that its target leaves: it would find it asleep at instants at which it ran.
    fn may_have_run(&self, index: usize, late: Nanos) -> bool {
        self.options.kind == SamplerKind::Peek
            && late > LATE_LOOK
            && self.probe.thread_table.threads[index].has_fallen_asleep
    }

    /// Of the threads `wanted`, keeps the one that may hold the GIL: no other will be shown.
    fn keep_holder(
        &mut self,
        events: &mut EventWriter<'_>,
        gil: &GilAddresses,
        wanted: &mut Vec<usize>,
        now: Timestamp,
    ) {
        let state = self.probe.thread_table.gil_state(gil).filter(|state| state.exists);
        if let Some(state) = state {
            let holder = self.probe.thread_table.find(state.last_holder);
            let others: Vec<usize> = wanted.extract_if(.., |index| Some(*index) != holder).collect();
            for index in others {
                self.resolve_pending_before(events, index);
                self.not_asked_for(events, index, now);
            }
        }
    }

    /// Records what is known without reading anything: the thread sleeps, as it did before.
    fn resolve_asleep(
        &mut self,
        events: &mut EventWriter<'_>,
        index: usize,
        gil: Option<&GilAddresses>,
        now: Timestamp,
    ) {
        self.resolve_pending_before(events, index);
        let thread = &self.probe.thread_table.threads[index];
        match thread.unchanged_stack() {
            Some(known) if self.options.include_idle && !self.options.gil_only => {
                let clocks = Clocks::of(thread, gil, now);
                self.record(events, index, known.stack, false, now, clocks);
            }
            _ => self.not_asked_for(events, index, now),
        }
    }

    /// Notes what is true of the instant alone, and records what was captured unless that can wait.
    fn note(
        &mut self,
        events: &mut EventWriter<'_>,
        instant: Capture,
        gil: Option<GilAddresses>,
        at: Timestamp,
    ) {
        let scope = self.scope();
        instant.stops.iter().for_each(|stop| events.held(scope, at, HeldBy::Stop, *stop));
        if instant.stops.is_empty() {
            events.not_held(scope, at);
        }
        let clocks = self.read_clocks(&instant, gil.as_ref(), at);
        let all_run = clocks.iter().all(|clocks| clocks.slept_after.is_none());
        let can_wait = all_run && instant.stacks.iter().all(|(_, stack)| stack.is_ok());
        if !self.waiting.add(Captured::new(instant, at, clocks), can_wait) {
            self.resolve_pending(events);
        }
    }

    /// Has the stack that was captured last count for the instants of `schedule` that have passed since then: as long as a
    /// thread waits for its CPU it stands where it was, and no other thread ran. That is so wherever the sampler itself
    /// has that CPU.
    pub fn sample_again(&mut self, events: &mut EventWriter<'_>, schedule: &mut Schedule) {
        if self.options.include_idle {
            return;
        }
        let (now, scope) = (clock::now(), self.scope());
        let threads = &self.probe.thread_table.threads;
        let Some((queued, last)) = self.waiting.only_queued() else { return };
        let stands_still = threads[queued.thread].clock_now() == Some(queued.clock);
        let is_alone = || {
            let few = !self.probe.thread_table.rota().has_many_resting();
            let mut others = threads.iter().enumerate().filter(|(index, _)| *index != queued.thread);
            few && others.all(|(_, other)| !other.is_running() && other.slept_since_look())
        };
        if !stands_still || !is_alone() {
            return;
        }
        schedule.pass_until(now, &mut |instant| {
            // One that had passed before is caught up with.
            last.again.push(instant.max(last.at));
            events.not_held(scope, now);
        });
    }

    /// What the clocks say of each thread of an instant that was captured just now.
    fn read_clocks(&mut self, instant: &Capture, gil: Option<&GilAddresses>, at: Timestamp) -> Vec<Clocks> {
        let threads = &mut self.probe.thread_table.threads;
        let of_thread = |index: usize| {
            let thread = &mut threads[index];
            if thread.is_running() {
                let queued = instant.queued.filter(|queued| queued.thread == index);
                thread.count_cpu(queued.map(|queued| queued.clock));
            }
            Clocks::of(thread, gil, at)
        };
        instant.stacks.iter().map(|(index, _)| *index).map(of_thread).collect()
    }

    /// Whether what waits for its names is to get them before the instant `next`.
    pub fn is_resolving_due(&self, next: Timestamp) -> bool {
        self.waiting.is_due(next)
    }

    /// Records all that was captured and waits for its names.
    pub fn resolve_pending(&mut self, events: &mut EventWriter<'_>) {
        if self.waiting.is_empty() {
            return;
        }
        let (captured, completed) = self.waiting.take(&self.probe);
        self.ended |= completed == Err(ReadError::ProcessEnded);
        captured.into_iter().for_each(|captured| self.resolve_deferred(events, captured));
    }

    /// Records what waits for its names if the thread `index` is among it, of which something later is to be recorded.
    fn resolve_pending_before(&mut self, events: &mut EventWriter<'_>, index: usize) {
        if self.waiting.has(index) {
            self.resolve_pending(events);
        }
    }

    /// Resolves and records what was captured; counts what was lost.
    fn resolve_deferred(&mut self, events: &mut EventWriter<'_>, captured: Captured) {
        let Captured { instant, at, clocks, again } = captured;
        let instants = || std::iter::once(at).chain(again.iter().copied());
        for ((index, stack), clocks) in instant.stacks.into_iter().zip(clocks) {
            let holds_gil = instant.holder == Some(self.probe.thread_table.threads[index].python.address);
            let resolved = match stack {
                Ok(_) if self.options.gil_only && !holds_gil => {
                    instants().for_each(|at| self.not_asked_for(events, index, at));
                    continue;
                }
                Ok(raw) => self.resolve(events, &raw, &instant.capture),
                Err(reason) => Err(reason),
            };
            match resolved {
                Ok(stack) => {
                    // True for as long as the thread sleeps. One that runs may fall asleep elsewhere without being
                    // put on a CPU again.
                    self.probe.thread_table.threads[index].known =
                        clocks.slept_after.map(|timeslices| SleeperStack { stack, timeslices });
                    instants().for_each(|at| self.record(events, index, stack, holds_gil, at, clocks));
                }
                // It is in no list, and its memory is used for something else: the thread is between two calls of Python.
                Err(LossReason::ThreadEnded) if !self.probe.thread_table.threads[index].is_listed => {
                    instants().for_each(|at| self.skip_native(events, index, at, clocks));
                }
                Err(reason) => {
                    let is_gone = self.ended && reason == LossReason::Unreadable;
                    let reason = if is_gone { LossReason::ProcessEnded } else { reason };
                    let unseen = self.take_unseen_asleep(index);
                    let (count, last) =
                        (instants().count() as u64 + unseen, again.last().copied().unwrap_or(at));
                    self.lose(events, index, reason, count, last, clocks);
                    self.check_after_loss(reason);
                }
            }
        }
    }

    fn resolve(
        &mut self,
        events: &mut EventWriter<'_>,
        raw: &RawStack,
        capture: &CodeEvidence,
    ) -> Result<Option<StackId>, LossReason> {
        let evidence = StackEvidence::Heads(capture);
        let named = self.stack_names.stack(&self.probe.target, evidence, raw, events.dictionary);
        self.probe.learn_code(capture, raw, named.is_ok());
        if named.is_err() {
            self.waiting.grow_restless();
        }
        named
    }

    fn record(
        &mut self,
        events: &mut EventWriter<'_>,
        index: usize,
        stack: Option<StackId>,
        holds_gil: bool,
        at: Timestamp,
        clocks: Clocks,
    ) {
        if stack.is_none() {
            self.skip_native(events, index, at, clocks);
            return;
        }
        let thread = self.thread_id(events, index);
        let unseen = self.take_unseen_asleep(index);
        let known = &mut self.probe.thread_table.threads[index];
        let cpu = clocks.uncounted_since(known.counted_cpu, self.most_kept_back);
        let wall = at.since(known.counted_until);
        known.counted_cpu += cpu;
        known.counted_until = at;
        let sample = Sample { at, thread, stack, state: clocks.state, holds_gil, cpu, wall };
        events.sample(sample, 1 + unseen);
    }

    /// Notes that a thread runs no Python at the instant: there is nothing to show. The CPU time up to here is not that of
    /// the Python that it runs later.
    fn skip_native(&mut self, events: &mut EventWriter<'_>, index: usize, at: Timestamp, clocks: Clocks) {
        let thread = &mut self.probe.thread_table.threads[index];
        thread.counted_cpu += clocks.uncounted_since(thread.counted_cpu, self.most_kept_back);
        self.not_asked_for(events, index, at);
    }

    /// Reports `count` samples of the thread as lost, the last of them at the instant `at`. The time that they stand for is
    /// lost with them: where it was used is not known, and it belongs to no stack that is proved later.
    fn lose(
        &mut self,
        events: &mut EventWriter<'_>,
        index: usize,
        reason: LossReason,
        count: u64,
        at: Timestamp,
        clocks: Clocks,
    ) {
        let scope = Scope::Thread(self.thread_id(events, index));
        let known = &mut self.probe.thread_table.threads[index];
        let cpu = clocks.uncounted_since(known.counted_cpu, self.most_kept_back);
        known.counted_cpu += cpu;
        known.counted_until = at;
        events.lose_with(Loss { cpu, ..Loss::of(reason, scope, at, count) });
    }

    fn not_asked_for(&mut self, events: &mut EventWriter<'_>, index: usize, at: Timestamp) {
        let times = 1 + self.take_unseen_asleep(index);
        self.probe.thread_table.threads[index].counted_until = at;
        events.skip(self.scope_of(index), at, times);
    }

    /// The process, as what events are about.
    pub fn scope(&self) -> Scope {
        Scope::Process(self.process)
    }

    /// The same of a kernel thread, if it is in the dictionary already.
    pub fn scope_of_thread(&self, tid: Tid) -> Scope {
        let of_tid = self.probe.thread_table.threads.iter().find(|thread| thread.tid == tid);
        of_tid.and_then(|thread| thread.id).map_or(self.scope(), Scope::Thread)
    }

    /// The same of a thread, if it is in the dictionary already.
    fn scope_of(&self, index: usize) -> Scope {
        self.probe.thread_table.threads[index].id.map_or(self.scope(), Scope::Thread)
    }

    fn thread_id(&mut self, events: &mut EventWriter<'_>, index: usize) -> ThreadId {
        if let Some(id) = self.probe.thread_table.threads[index].id {
            return id;
        }
        let thread = &mut self.probe.thread_table.threads[index];
        let id = events.dictionary.thread(thread_info(&self.probe.target, thread, self.process));
        thread.id = Some(id);
        self.names.expect_another();
        id
    }

    /// After a loss that can mean that the process is another one by now.
    fn check_after_loss(&mut self, reason: LossReason) {
        if matches!(reason, LossReason::ProcessEnded | LossReason::ThreadEnded) {
            // Or `exec` put another Python exactly where the old one was.
            self.probe.thread_table.distrust();
            self.ended = !self.probe.target.process().is_alive();
        }
    }
}

fn most_kept_back(rate_hz: f64) -> Nanos {
    Nanos::from_nanos((MAX_GAPS_KEPT_BACK * 1e9 / rate_hz) as u64)
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
