//! Sampling a process from outside, at the instants of a schedule: what `pause` and `peek` have in common.

use profiler_account::Schedule;
use profiler_memory::ReadError;
use profiler_model::{LossReason, Nanos, Timestamp};
use profiler_os::clock;
use profiler_os::priority::OrdinaryMeanwhile;
use profiler_profile::CapturePolicy;
use profiler_python::GilAddresses;

use crate::SamplerKind;
use crate::capture::InstantCopy;
use crate::event_writer::EventWriter;
use crate::observation::{Asleep, Missed, Observation};
use crate::pause::Runners;
use crate::probe::{Found, GilGroup};
use crate::rota::{cost_of_instant, is_long};
use crate::sampled_process::{Sampled, SampledProcess};
use crate::stack_reader::CodeAhead;
use crate::thread_table::Thread;

/// What takes longer than this is done without real-time priority, as far as is known before.
const LONG: Nanos = Nanos::from_nanos(1_000_000);

/// A look that comes so much later than it was due shows what a thread does now, and not what it did then.
const LATE_LOOK: Nanos = Nanos::from_nanos(100_000);

/// What sampling on a schedule keeps of a process.
#[derive(Debug)]
pub struct OnSchedule {
    kind: SamplerKind,
    /// Whether to read the lists of its threads takes long.
    has_long_lists: bool,
    /// Whether it matters which CPU a thread has.
    watches_switches: bool,
    /// When it was born, if that was while it was watched: its first samples count from then.
    born: Option<Timestamp>,
}

/// Which of its threads are sampled, see [`rota`](crate::rota).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Those that are awake, and those that rest where these are few.
    Active,
    /// Those that rest and have their turn.
    Resting,
}

/// An instant that is sampled.
#[derive(Clone, Copy, Debug)]
struct Now {
    at: Timestamp,
    /// How late the sampler began.
    late: Nanos,
}

impl OnSchedule {
    /// For a process that was `born` then, if that was while it was watched.
    pub fn new(kind: SamplerKind, born: Option<Timestamp>) -> Self {
        OnSchedule { kind, has_long_lists: false, watches_switches: false, born }
    }

    /// The same for another Python of the process.
    pub fn of_other_python(&self) -> Self {
        OnSchedule { has_long_lists: false, born: None, ..*self }
    }

    /// From now on, finds out on which CPU the only running thread is.
    pub fn watch_switches(&mut self) {
        self.watches_switches = true;
    }

    /// Has it not be known any more.
    pub fn unwatch_switches(&mut self, process: &mut SampledProcess) {
        self.watches_switches = false;
        process.probe.thread_table.threads_mut().iter_mut().for_each(|thread| thread.unwatch_switches());
    }

    /// Takes one sample of every thread that is wanted, after [`OnSchedule::look`], which came to `looked`. The sampler began
    /// `late` to do so.
    pub fn sample(
        &mut self,
        process: &mut SampledProcess,
        events: &mut EventWriter<'_>,
        (at, late): (Timestamp, Nanos),
        looked: Result<(), ReadError>,
    ) -> Sampled {
        let scope = process.reporter.scope();
        let now = Now { at, late };
        let looked = looked
            .and_then(|()| self.sample_threads(process, events, now, Round::Active))
            .and_then(|()| self.sample_resting(process, events, late));
        if looked.is_err() || process.reporter.has_ended() {
            process.resolve_deferred(events);
        }
        let sampled = Sampled::of(looked, || process.target().has_live_runtime());
        match (sampled, looked) {
            (Sampled::Going, Ok(())) => process.update_names(events, at),
            (Sampled::Going, Err(_)) => events.lose(LossReason::ListsUnreadable, scope, at, 1),
            (Sampled::Silent, _) => events.lose(LossReason::NoAnswer, scope, at, 1),
            (Sampled::WithoutRuntime, _) => events.lose(LossReason::NoRuntime, scope, at, 1),
            (Sampled::Ended, _) => {}
        }
        let goes_on = sampled == Sampled::Going && !process.reporter.has_ended();
        if goes_on || matches!(sampled, Sampled::Silent | Sampled::WithoutRuntime) {
            sampled
        } else {
            Sampled::Ended
        }
    }

    /// Looks at what its threads are doing.
    ///
    /// # Errors
    /// When the runtime cannot be read any more.
    pub fn look(
        &mut self,
        process: &mut SampledProcess,
        events: &mut EventWriter<'_>,
        now: Timestamp,
    ) -> Result<(), ReadError> {
        let unplaced = process.probe.thread_table.unplaced.len() as u64;
        events.lose(LossReason::UnknownThread, process.reporter.scope(), now, unplaced);
        let found = process.probe.look_at_active(now)?;
        self.bring_up_to_date(process, events, found, now)?;
        if let Some(born) = self.born
            && !process.threads().is_empty()
        {
            self.born = None;
            let SampledProcess { probe, reporter, .. } = process;
            for thread in probe.thread_table.threads() {
                reporter.account(thread.slot).into_iter().for_each(|account| account.from_birth(born));
            }
        }
        Ok(())
    }

    fn bring_up_to_date(
        &mut self,
        process: &mut SampledProcess,
        events: &mut EventWriter<'_>,
        found: Found,
        now: Timestamp,
    ) -> Result<(), ReadError> {
        if let Found::Changed { ended } = found {
            process.resolve_deferred(events);
            let _ordinary = self.has_long_lists.then(OrdinaryMeanwhile::begin);
            let began = clock::now();
            process.probe.refresh(ended, now)?;
            process.meet_threads();
            self.has_long_lists = clock::now().since(began) > LONG;
        }
        let unseen = process.probe.thread_table.take_unseen_of_ended();
        events.lose(LossReason::CpuLimit, process.reporter.scope(), now, unseen);
        Ok(())
    }

    /// Samples the threads that rest, as many as have their turn, where there are many. One that was woken is sampled like
    /// the others.
    fn sample_resting(
        &mut self,
        process: &mut SampledProcess,
        events: &mut EventWriter<'_>,
        late: Nanos,
    ) -> Result<(), ReadError> {
        if !process.probe.thread_table.roster().has_many_resting() {
            return Ok(());
        }
        let most = cost_of_instant(process.rate_hz);
        let _ordinary = is_long(most).then(OrdinaryMeanwhile::begin);
        let at = clock::now();
        let found = process.probe.look_at_resting(most);
        self.bring_up_to_date(process, events, found, at)?;
        self.sample_threads(process, events, Now { at, late }, Round::Resting)
    }

    /// Samples the threads that were looked at in this round of the instant.
    fn sample_threads(
        &mut self,
        process: &mut SampledProcess,
        events: &mut EventWriter<'_>,
        now: Now,
        round: Round,
    ) -> Result<(), ReadError> {
        let suspended = process.probe.suspended()?;
        for group in GilGroup::looked(&mut process.probe.thread_table) {
            let wanted = self.choose(process, events, &group, &suspended, now);
            if wanted.is_empty() {
                if round == Round::Active {
                    events.not_held(process.reporter.scope(), now.at);
                }
                continue;
            }
            if let ([only], true) = (wanted.as_slice(), self.watches_switches) {
                process.thread(*only).watch_switches();
            }
            let mut cut = Vec::new();
            for copy in process.probe.capture(group.gil.as_ref(), &wanted)? {
                cut.extend(copy.cut());
                report_copy(process, events, copy, group.gil.as_ref(), now.at);
            }
            look_ahead_at(process, events, &cut)?;
        }
        Ok(())
    }

    /// Of the threads of a group those whose stacks are to be captured; reports the others.
    fn choose(
        &self,
        process: &mut SampledProcess,
        events: &mut EventWriter<'_>,
        group: &GilGroup,
        suspended: &[usize],
        now: Now,
    ) -> Vec<usize> {
        let holder = last_holder(process, group.gil.as_ref());
        let last_holder = holder.map(|(index, _)| index);
        let mut wanted = Vec::new();
        for index in group.threads.iter().copied() {
            process.report_unknown(index, now.at, events);
            let is_running = process.thread(index).is_running();
            let is_wanted_asleep = match process.policy {
                CapturePolicy::Running => false,
                CapturePolicy::RunningAndGilHolder => last_holder == Some(index),
                CapturePolicy::All => true,
            };
            if suspended.contains(&index) {
                report_suspended(process, events, index, now.at);
            } else if is_running || (is_wanted_asleep && !process.knows_stack(index)) {
                wanted.push(index);
            } else if self.may_have_run(process.thread(index), now.late) {
                report_late(process, events, index, group.gil.as_ref(), now.at);
            } else if is_wanted_asleep {
                // The state of the GIL was read after the thread was seen asleep: it may have woken and taken it.
                let holds_gil = holder == Some((index, true)) && process.thread(index).slept_since_look();
                report_asleep(process, events, index, holds_gil, group.gil.as_ref(), now.at);
            } else {
                process.report_unwanted(index, now.at, events);
            }
        }
        wanted
    }

    /// Whether a thread that sleeps may have run at the instant that is sampled so late. A sampler that waits for a CPU often
    /// gets the one that its target leaves: it would find it asleep at instants at which it ran.
    fn may_have_run(&self, thread: &Thread, late: Nanos) -> bool {
        self.kind == SamplerKind::Peek && late > LATE_LOOK && thread.looks.has_fallen_asleep
    }
}

/// The thread, by its index, that held the GIL last, and whether it holds it still.
fn last_holder(process: &SampledProcess, gil: Option<&GilAddresses>) -> Option<(usize, bool)> {
    let table = &process.probe.thread_table;
    let state = table.gil_state(gil?).filter(|state| state.exists)?;
    Some((table.find(state.last_holder)?, state.locked))
}

/// Reports a thread state that is left alone, as its kernel thread runs in another interpreter or another Python, which has
/// its time, see [`Runtimes::share_cpu_times`](crate::runtimes::Runtimes::share_cpu_times).
fn report_suspended(process: &mut SampledProcess, events: &mut EventWriter<'_>, index: usize, at: Timestamp) {
    process.report_unwanted(index, at, events);
}

fn report_late(
    process: &mut SampledProcess,
    events: &mut EventWriter<'_>,
    index: usize,
    gil: Option<&GilAddresses>,
    at: Timestamp,
) {
    let thread = process.thread(index);
    let (_, clocks) = thread.read_clocks(thread.state(gil), at);
    let missed = Missed { thread: thread.slot, reason: LossReason::Late, at, count: 1, clocks: Some(clocks) };
    process.report(Observation::Missed(missed), events);
}

/// Reports what is known without reading anything: the thread sleeps, as it did before.
fn report_asleep(
    process: &mut SampledProcess,
    events: &mut EventWriter<'_>,
    index: usize,
    holds_gil: bool,
    gil: Option<&GilAddresses>,
    at: Timestamp,
) {
    let thread = process.thread_mut(index);
    let (state, clocks) = thread.read_clocks(thread.state(gil), at);
    let count = 1 + thread.take_unseen_asleep();
    let asleep = Asleep { thread: thread.slot, at, count, state, holds_gil, clocks };
    process.report(Observation::Asleep(asleep), events);
}

/// Reports the stacks that were copied at the instant `at`. What is true of the instant alone is noted now.
fn report_copy(
    process: &mut SampledProcess,
    events: &mut EventWriter<'_>,
    copy: InstantCopy,
    gil: Option<&GilAddresses>,
    at: Timestamp,
) {
    let queued = copy.queued;
    for (index, _) in &copy.stacks {
        let thread = process.thread_mut(*index);
        if thread.is_running() {
            let queued = queued.filter(|queued| queued.thread == *index);
            thread.count_cpu(queued.map(|queued| queued.clock));
        }
    }
    let describe = &mut |process: &SampledProcess, index: usize| {
        let thread = process.thread(index);
        thread.read_clocks(thread.state(gil), at)
    };
    let captures = process.captures(copy, at, describe);
    process.report(Observation::Instant(captures), events);
}

/// Looks at the stacks of threads whose stops were too short to copy them: what is known of their code by then need not
/// be copied at the next instant.
fn look_ahead_at(
    process: &mut SampledProcess,
    events: &mut EventWriter<'_>,
    cut: &[usize],
) -> Result<(), ReadError> {
    if cut.is_empty() {
        return Ok(());
    }
    let _ordinary = OrdinaryMeanwhile::begin();
    process.resolve_deferred(events);
    for index in cut {
        let Some(CodeAhead { mut code, stacks }) = process.probe.look_ahead_at(&[*index])? else {
            continue;
        };
        process.probe.complete(std::iter::once(&mut code))?;
        process.reporter.learn_names(&stacks, &code, &mut process.probe, events);
    }
    Ok(())
}

/// The threads that are looked at at each instant and run this Python, if any.
fn active_threads(process: &SampledProcess) -> impl Iterator<Item = &Thread> {
    let (elsewhere, table) = (&process.probe.elsewhere, &process.probe.thread_table);
    table.roster().active().filter(|thread| !elsewhere.contains(&thread.tid))
}

/// Which threads of a process run, as far as that says where to sample from; it has these `runtimes`.
pub fn runners(runtimes: &[SampledProcess]) -> Runners {
    let mut running = runtimes.iter().flat_map(active_threads).filter(|thread| thread.is_running());
    match (running.next(), running.next()) {
        (None, _) => Runners::None,
        (Some(only), None) => only
            .last_switch()
            .map_or(Runners::None, |switch| Runners::One { cpu: switch.cpu, switches: only.switches() }),
        (Some(_), Some(_)) => Runners::Many,
    }
}

/// Has the stack that was captured last count for the instants of `schedule` that have passed since then: as long as a
/// thread waits for its CPU it stands where it was, and no other thread ran. That is so wherever the sampler itself
/// has that CPU.
pub fn sample_again(process: &mut SampledProcess, events: &mut EventWriter<'_>, schedule: &mut Schedule) {
    if process.policy == CapturePolicy::All {
        return;
    }
    let (now, scope) = (clock::now(), process.reporter.scope());
    let Some((queued, exact)) = process.reporter.only_queued() else { return };
    let table = &process.probe.thread_table;
    let few = !table.roster().has_many_resting();
    let (mut stands_still, mut is_alone) = (false, few);
    for thread in table.threads() {
        if thread.slot == queued {
            stands_still = thread.clock_now() == Some(exact);
        } else {
            is_alone = is_alone && !thread.is_running() && thread.slept_since_look();
        }
    }
    if !stands_still || !is_alone {
        return;
    }
    schedule.pass_until(now, &mut |instant| {
        process.reporter.count_again(instant);
        events.not_held(scope, now);
    });
}

/// Reports what is known at the end of sampling of a thread that sleeps as it did at the last look.
pub type ReportAsleep<'a> =
    &'a dyn Fn(&mut SampledProcess, &mut EventWriter<'_>, usize, Option<&GilAddresses>, Timestamp);

/// Reports what is known of the instants since each thread was looked at last: at the end of sampling, at `now`.
pub fn report_unseen(
    process: &mut SampledProcess,
    events: &mut EventWriter<'_>,
    now: Timestamp,
    report_asleep: ReportAsleep<'_>,
) {
    let instant = process.probe.thread_table.roster().instant();
    for index in 0..process.threads().len() {
        let thread = process.thread(index);
        let (slot, unseen) = (thread.slot, thread.looks.instants_since(instant));
        if unseen == 0 {
            continue;
        }
        if thread.slept_since_look() {
            let is_elsewhere = process.probe.elsewhere.contains(&thread.tid);
            let gil = process.probe.thread_table.interpreters[thread.interpreter].gil;
            process.thread_mut(index).looks.count_asleep(unseen - 1);
            if is_elsewhere {
                process.report_unwanted(index, now, events);
                continue;
            }
            report_asleep(process, events, index, gil.as_ref(), now);
        } else {
            let reason = LossReason::CpuLimit;
            let missed = Missed { thread: slot, reason, at: now, count: unseen, clocks: None };
            process.report(Observation::Missed(missed), events);
        }
    }
}

/// What is known at the end of a thread that sleeps, see [`ReportAsleep`].
pub fn report_at_end(
    process: &mut SampledProcess,
    events: &mut EventWriter<'_>,
    index: usize,
    gil: Option<&GilAddresses>,
    now: Timestamp,
) {
    match process.policy == CapturePolicy::All && process.knows_stack(index) {
        true => report_asleep(process, events, index, false, gil, now),
        false => process.report_unwanted(index, now, events),
    }
}
