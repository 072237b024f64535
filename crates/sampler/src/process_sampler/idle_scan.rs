//! Threads of one process that are not on a CPU, beside the in-kernel program that samples those that are: looked at
//! from outside at random instants. Nothing is stopped, as what does not run stands still: a thread that sleeps and
//! was not put on a CPU before and after, one that only lacks a CPU and whose exact clock stands. Exact durations of
//! waits are not for here, but for `off_cpu`.

use profiler_memory::ReadError;
use profiler_model::{LossReason, Nanos, ThreadState, Timestamp, WaitReason};
use profiler_os::clock;
use profiler_os::priority::OrdinaryMeanwhile;
use profiler_profile::{Sample, Scope, StackId};
use profiler_python::{GilAddresses, RawStack};
use profiler_stack::CodeEvidence;

use super::ProcessSampler;
use crate::capture::Capture;
use crate::event_writer::EventWriter;
use crate::probe::GilGroup;
use crate::rota::{cost_of_instant, is_long};
use crate::thread_table::SleeperStack;

/// When a look is taken, and when that was due.
#[derive(Clone, Copy, Debug)]
struct Look {
    due: Timestamp,
    now: Timestamp,
}

/// Threads whose stacks are to be read.
#[derive(Debug, Default)]
struct Wanted {
    threads: Vec<usize>,
    /// Those that are ready to run, but lack a CPU, with what their clocks said.
    queued: Vec<(usize, Nanos)>,
}

impl ProcessSampler {
    /// Records what its threads off the CPU do, as far as they are wanted, at the instant that was due at `due`.
    pub fn look_off_cpu(&mut self, events: &mut EventWriter<'_>, due: Timestamp) {
        let instant = Look { due, now: clock::now() };
        let looked = self.look_at_active().and_then(|()| self.sample_off_cpu(events, instant));
        // What has become of the process is found out, and told, when its lists are looked at.
        if looked.and_then(|()| self.look_at_resting(events)).is_err() {
            self.in_kernel.is_outdated = true;
        }
    }

    /// Looks at what threads are doing that are awake, and at those that rest where these are few, and who holds the GIL.
    fn look_at_active(&mut self) -> Result<(), ReadError> {
        let ended = self.probe.thread_table.look_at_active();
        self.forget_ended(ended);
        self.look_at_gils()
    }

    /// Records what threads do that rest, as many as have their turn, where there are many.
    fn look_at_resting(&mut self, events: &mut EventWriter<'_>) -> Result<(), ReadError> {
        if !self.probe.thread_table.rota().has_many_resting() {
            return Ok(());
        }
        let most = cost_of_instant(self.rate_hz);
        let _ordinary = is_long(most).then(OrdinaryMeanwhile::begin);
        let now = clock::now();
        let ended = self.probe.thread_table.look_at_resting(most);
        self.forget_ended(ended);
        self.sample_off_cpu(events, Look { due: now, now })
    }

    fn look_at_gils(&mut self) -> Result<(), ReadError> {
        let thread_table = &mut self.probe.thread_table;
        let lists_stand = thread_table.look(self.probe.target.memory(), self.probe.target.runtime())?;
        self.in_kernel.is_outdated |= !lists_stand;
        let ended = thread_table.look_at_holders();
        self.forget_ended(ended);
        Ok(())
    }

    fn forget_ended(&mut self, mut ended: Vec<usize>) {
        let thread_table = &mut self.probe.thread_table;
        for index in thread_table.looked() {
            if thread_table.threads[index].count_if_running().is_err() {
                ended.push(index);
            }
        }
        if ended.is_empty() {
            return;
        }
        ended.sort_unstable();
        ended.dedup();
        thread_table.remove(&ended);
        self.in_kernel.is_outdated = true;
    }

    fn sample_off_cpu(&mut self, events: &mut EventWriter<'_>, look: Look) -> Result<(), ReadError> {
        let unseen = self.probe.thread_table.take_unseen_of_ended();
        events.lose(LossReason::CpuLimit, self.scope(), look.now, unseen);
        let suspended = self.probe.suspended()?;
        for mut group in GilGroup::looked(&mut self.probe.thread_table) {
            group.threads.iter().for_each(|index| self.note_resolved(events, *index, look.now));
            group.threads.retain(|index| !suspended.contains(index));
            let gil = group.gil.as_ref();
            let state =
                gil.and_then(|gil| self.probe.thread_table.gil_state(gil)).filter(|state| state.exists);
            let holder = state.and_then(|state| self.probe.thread_table.find(state.holder()?));
            let wanted = self.choose(events, &group, holder, look);
            if wanted.threads.is_empty() {
                continue;
            }
            let mut instants = self.probe.capture(gil, &wanted.threads)?;
            self.probe.complete(instants.iter_mut().map(|instant| &mut instant.capture))?;
            for instant in instants {
                self.resolve_idle(events, instant, &wanted.queued, gil, look.now);
            }
        }
        Ok(())
    }

    /// Of the threads of `group`, those whose stacks have to be read. Records those whose stack is known: they sleep, as
    /// they did before.
    fn choose(
        &mut self,
        events: &mut EventWriter<'_>,
        group: &GilGroup,
        holder: Option<usize>,
        Look { due, now }: Look,
    ) -> Wanted {
        let mut wanted = Wanted::default();
        for index in group.threads.iter().copied() {
            let thread = &self.probe.thread_table.threads[index];
            // The state of the GIL was read after the thread was seen asleep: it may have woken and taken it.
            let holds_gil = holder == Some(index) && (thread.is_running() || thread.slept_since_look());
            // Whoever lost its CPU to this look was on it. To ask a clock can interrupt a CPU, to ask for turns cannot.
            let was_queued = thread.is_running() && !thread.was_on_cpu(due);
            let clock = if was_queued { thread.clock_while_queued() } else { None };
            let state = match clock {
                Some(_) => ThreadState::Waiting(WaitReason::Cpu),
                None => thread.state(group.gil.as_ref()),
            };
            let known = thread.unchanged_stack();
            self.probe.thread_table.threads[index].note_look(now);
            self.note_look(events, index, state, holds_gil, now);
            if self.options.gil_only && !holds_gil {
                continue;
            }
            match (clock, known) {
                (Some(clock), _) => {
                    wanted.threads.push(index);
                    wanted.queued.push((index, clock));
                }
                (None, _) if state.is_running() || !self.options.include_idle => {
                    self.take_unseen_asleep(index);
                }
                (None, Some(known)) => self.record_off_cpu(events, index, known.stack, state, holds_gil, now),
                (None, None) => wanted.threads.push(index),
            }
        }
        wanted
    }

    /// Records a thread that sleeps as it did at the last look, at `now`.
    pub(super) fn resolve_sleeper(
        &mut self,
        events: &mut EventWriter<'_>,
        index: usize,
        gil: Option<&GilAddresses>,
        now: Timestamp,
    ) {
        let thread = &self.probe.thread_table.threads[index];
        let state = thread.state(gil);
        if let (Some(known), true, false) =
            (thread.unchanged_stack(), self.options.include_idle, self.options.gil_only)
        {
            self.record_off_cpu(events, index, known.stack, state, false, now);
        }
    }

    /// Tells what a thread is doing, for views of what threads do.
    fn note_look(
        &mut self,
        events: &mut EventWriter<'_>,
        index: usize,
        state: ThreadState,
        holds_gil: bool,
        at: Timestamp,
    ) {
        if !events.wants_looks() {
            return;
        }
        let thread = self.thread_id(events, index);
        let known = &mut self.probe.thread_table.threads[index];
        let cpu = known.schedule.cpu.saturating_sub(known.counted_cpu);
        known.counted_cpu += cpu;
        let wall = known.waits.gap();
        events.look(Sample { at, thread, stack: None, state, holds_gil, cpu, wall });
    }

    /// Resolves and records what was read; counts what was lost.
    fn resolve_idle(
        &mut self,
        events: &mut EventWriter<'_>,
        instant: Capture,
        queued: &[(usize, Nanos)],
        gil: Option<&GilAddresses>,
        now: Timestamp,
    ) {
        let holder = instant.holder;
        for (index, stack) in instant.stacks {
            let thread = &self.probe.thread_table.threads[index];
            let holds_gil = holder == Some(thread.python.address);
            let clock = queued.iter().find(|(queued, _)| *queued == index).map(|(_, clock)| *clock);
            let has_run = clock.is_some_and(|clock| thread.clock_now() != Some(clock));
            let state = match clock {
                Some(_) => ThreadState::Waiting(WaitReason::Cpu),
                None => thread.state(gil),
            };
            let proved = stack.and_then(|raw| if has_run { Err(LossReason::Moved) } else { Ok(raw) });
            match proved.and_then(|raw| self.resolve_off_cpu(events, index, &raw, &instant.capture)) {
                Ok(_) if self.options.gil_only && !holds_gil => {
                    let times = 1 + self.take_unseen_asleep(index);
                    events.skip(self.scope_of(index), now, times);
                }
                Ok(stack) => self.record_off_cpu(events, index, stack, state, holds_gil, now),
                Err(reason) => {
                    // It waited somewhere, and where is not known: for no other place.
                    self.take_off_cpu_time(index, now);
                    let unseen = self.take_unseen_asleep(index);
                    let scope = Scope::Thread(self.thread_id(events, index));
                    events.lose(reason, scope, now, 1 + unseen);
                    self.in_kernel.is_outdated |= reason == LossReason::ThreadEnded;
                }
            }
        }
    }

    /// Names a proved stack, and remembers it for as long as its thread sleeps.
    fn resolve_off_cpu(
        &mut self,
        events: &mut EventWriter<'_>,
        index: usize,
        raw: &RawStack,
        capture: &CodeEvidence,
    ) -> Result<Option<StackId>, LossReason> {
        let stack = self.resolve(events, raw, capture)?;
        let stack = self.with_kernel_frames(events, index, stack);
        let thread = &mut self.probe.thread_table.threads[index];
        let timeslices = thread.schedule.timeslices;
        thread.known = (!thread.is_running()).then_some(SleeperStack { stack, timeslices });
        Ok(stack)
    }

    fn record_off_cpu(
        &mut self,
        events: &mut EventWriter<'_>,
        index: usize,
        stack: Option<StackId>,
        state: ThreadState,
        holds_gil: bool,
        at: Timestamp,
    ) {
        let wall = self.take_off_cpu_time(index, at);
        let unseen = self.take_unseen_asleep(index);
        if stack.is_none() {
            // A thread that has a thread state but runs no Python: there is nothing to show.
            return events.skip(self.scope_of(index), at, 1 + unseen);
        }
        let thread = self.thread_id(events, index);
        let sample = Sample { at, thread, stack, state, holds_gil, cpu: Nanos::ZERO, wall };
        events.sample(sample, 1 + unseen);
    }

    /// The time off the CPU that was not told yet. For how much of it the thread held the GIL is not known: where that
    /// matters, a look stands for the time since the one before.
    fn take_off_cpu_time(&mut self, index: usize, now: Timestamp) -> Nanos {
        let thread = &mut self.probe.thread_table.threads[index];
        match self.options.gil_only {
            true => thread.waits.gap(),
            false => thread.waits.take(now, &thread.schedule),
        }
    }
}
