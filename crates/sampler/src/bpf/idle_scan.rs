//! Threads of one process that are not on a CPU, beside the in-kernel program that samples those that are: looked at
//! from outside at random instants. Nothing is stopped, as what does not run stands still: a thread that sleeps and
//! was not put on a CPU before and after, one that only waits for a CPU and whose exact clock stands. Exact durations of
//! waits are not for here, but for `off_cpu`.

use profiler_memory::ReadError;
use profiler_model::{ClockReading, LossReason, Nanos, ThreadState, Timestamp, WaitReason};
use profiler_os::clock;
use profiler_os::priority::OrdinaryMeanwhile;
use profiler_profile::{CapturePolicy, ThreadRole};
use profiler_python::GilAddresses;
use profiler_stack::KernelStack;

use crate::capture::InstantCopy;
use crate::event_writer::EventWriter;
use crate::observation::{Asleep, Observation};
use crate::probe::GilGroup;
use crate::rota::{cost_of_instant, is_long};
use crate::sampled_process::SampledProcess;
use crate::thread_table::Thread;

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
    /// Runnable threads that wait for a CPU, with their clocks as read.
    queued: Vec<(usize, Nanos)>,
}

/// Reports what threads off the CPU do, as far as they are wanted, at the instant that was due at `due`. Returns whether the
/// lists of threads are as they were.
pub fn scan(process: &mut SampledProcess, events: &mut EventWriter<'_>, due: Timestamp) -> bool {
    let look = Look { due, now: clock::now() };
    let mut stands = true;
    let scanned = look_at_active(process, &mut stands)
        .and_then(|()| report_looked(process, events, look, &mut stands))
        .and_then(|()| scan_resting(process, events, &mut stands));
    scanned.is_ok() && stands
}

/// Looks at what threads are doing that are awake, and at those that rest where these are few, and what holds the GIL.
fn look_at_active(process: &mut SampledProcess, stands: &mut bool) -> Result<(), ReadError> {
    let ended = process.probe.thread_table.look_at_active();
    forget_ended(process, ended, stands);
    let (table, target) = (&mut process.probe.thread_table, &process.probe.target);
    *stands &= table.look(target.memory(), target.runtime())?;
    let ended = table.look_at_holders();
    forget_ended(process, ended, stands);
    Ok(())
}

/// Reports what threads do that rest, as many as have their turn, where there are many.
fn scan_resting(
    process: &mut SampledProcess,
    events: &mut EventWriter<'_>,
    stands: &mut bool,
) -> Result<(), ReadError> {
    if !process.probe.thread_table.roster().has_many_resting() {
        return Ok(());
    }
    let most = cost_of_instant(process.rate_hz);
    let _ordinary = is_long(most).then(OrdinaryMeanwhile::begin);
    let now = clock::now();
    let ended = process.probe.thread_table.look_at_resting(most);
    forget_ended(process, ended, stands);
    report_looked(process, events, Look { due: now, now }, stands)
}

fn forget_ended(process: &mut SampledProcess, mut ended: Vec<usize>, stands: &mut bool) {
    let table = &mut process.probe.thread_table;
    for index in table.looked() {
        if table.threads_mut()[index].count_if_running().is_err() {
            ended.push(index);
        }
    }
    if !ended.is_empty() {
        ended.sort_unstable();
        ended.dedup();
        table.remove(&ended);
        *stands = false;
    }
}

fn report_looked(
    process: &mut SampledProcess,
    events: &mut EventWriter<'_>,
    look: Look,
    stands: &mut bool,
) -> Result<(), ReadError> {
    let unseen = process.probe.thread_table.take_unseen_of_ended();
    events.lose(LossReason::CpuLimit, process.reporter.scope(), look.now, unseen);
    let suspended = process.probe.suspended()?;
    for mut group in GilGroup::looked(&mut process.probe.thread_table) {
        group.threads.iter().for_each(|index| process.report_unknown(*index, look.now, events));
        group.threads.retain(|index| {
            let is_suspended = suspended.contains(index);
            if is_suspended {
                leave_alone(process, *index, look.now);
            }
            !is_suspended
        });
        let wanted = choose(process, events, &group, look);
        if wanted.threads.is_empty() {
            continue;
        }
        for copy in process.probe.capture(group.gil.as_ref(), &wanted.threads)? {
            *stands &= copy.stacks.iter().all(|(_, stack)| *stack != Err(LossReason::ThreadEnded));
            report_copy(process, events, copy, &wanted.queued, group.gil.as_ref(), look.now);
        }
    }
    Ok(())
}

/// Takes note that a thread state is suspended: its time is that of the one in which its kernel thread runs.
fn leave_alone(process: &mut SampledProcess, index: usize, now: Timestamp) {
    let thread = process.thread_mut(index);
    thread.take_unseen_asleep();
    let (slot, schedule) = (thread.slot, thread.schedule);
    process.reporter.account(slot).into_iter().for_each(|account| account.restart(now, Some(&schedule)));
}

/// Of the threads of `group`, those whose stacks have to be read. Reports those whose stack is known: they sleep, as
/// they did before.
fn choose(
    process: &mut SampledProcess,
    events: &mut EventWriter<'_>,
    group: &GilGroup,
    Look { due, now }: Look,
) -> Wanted {
    let table = &process.probe.thread_table;
    let gil = group.gil.as_ref().and_then(|gil| table.gil_state(gil)).filter(|state| state.exists);
    let holder = gil.and_then(|state| table.find(state.holder()?));
    let mut wanted = Wanted::default();
    for index in group.threads.iter().copied() {
        let thread = process.thread(index);
        // The state of the GIL was read after the thread was seen asleep: it may have woken and taken it.
        let holds_gil = holder == Some(index) && (thread.is_running() || thread.slept_since_look());
        // A thread that lost its CPU to this look was on it. To ask a clock can interrupt a CPU, to ask for switches cannot.
        let was_queued = thread.is_running() && !thread.was_on_cpu(due);
        let clock = if was_queued { thread.clock_while_queued() } else { None };
        let state = match clock {
            Some(_) => ThreadState::Waiting(WaitReason::Cpu),
            None => thread.state(group.gil.as_ref()),
        };
        note_look(process, events, index, ThreadRole { state, holds_gil }, now);
        let is_wanted_asleep = match process.policy {
            CapturePolicy::Running => false,
            CapturePolicy::RunningAndGilHolder => holds_gil,
            CapturePolicy::All => true,
        };
        if let Some(clock) = clock {
            if process.policy == CapturePolicy::All || holds_gil {
                wanted.threads.push(index);
                wanted.queued.push((index, clock));
            }
        } else if state.is_running() || !is_wanted_asleep {
            process.thread_mut(index).take_unseen_asleep();
        } else if process.knows_stack(index) {
            report_asleep(process, events, index, ThreadRole { state, holds_gil }, now);
        } else {
            wanted.threads.push(index);
        }
    }
    wanted
}

/// Reports what a thread is doing, for views of what threads do.
fn note_look(
    process: &mut SampledProcess,
    events: &mut EventWriter<'_>,
    index: usize,
    role: ThreadRole,
    at: Timestamp,
) {
    let thread = process.thread(index);
    let (slot, schedule, sees_queue) = (thread.slot, thread.schedule, thread.sees_queue());
    if let Some(account) = process.reporter.account(slot) {
        account.note_look(at, &schedule, sees_queue);
    }
    if events.wants_looks() {
        process.report(Observation::Look { thread: slot, at, role, schedule }, events);
    }
}

/// Reports a thread that sleeps where it did when its stack was captured.
fn report_asleep(
    process: &mut SampledProcess,
    events: &mut EventWriter<'_>,
    index: usize,
    ThreadRole { state, holds_gil }: ThreadRole,
    at: Timestamp,
) {
    let clocks = off_cpu_clocks(process.thread(index), process.policy);
    let thread = process.thread_mut(index);
    let count = 1 + thread.take_unseen_asleep();
    let asleep = Asleep { thread: thread.slot, at, count, state, holds_gil, clocks };
    process.report(Observation::Asleep(asleep), events);
}

/// Reports what is known at the end of sampling of a thread that sleeps.
pub fn report_sleeper(
    process: &mut SampledProcess,
    events: &mut EventWriter<'_>,
    index: usize,
    gil: Option<&GilAddresses>,
    now: Timestamp,
) {
    if process.policy == CapturePolicy::All && process.knows_stack(index) {
        let role = ThreadRole { state: process.thread(index).state(gil), holds_gil: false };
        report_asleep(process, events, index, role, now);
    }
}

/// Reports the stacks that were copied, with what their threads do in the kernel if that is wanted.
fn report_copy(
    process: &mut SampledProcess,
    events: &mut EventWriter<'_>,
    copy: InstantCopy,
    queued: &[(usize, Nanos)],
    gil: Option<&GilAddresses>,
    now: Timestamp,
) {
    let indices: Vec<usize> = copy.stacks.iter().map(|(index, _)| *index).collect();
    let clock_of = |index: usize| queued.iter().find(|(queued, _)| *queued == index).map(|(_, clock)| *clock);
    let describe = &mut |process: &SampledProcess, index: usize| {
        let thread = process.thread(index);
        let state = match clock_of(index) {
            Some(_) => ThreadState::Waiting(WaitReason::Cpu),
            None => thread.state(gil),
        };
        (state, off_cpu_clocks(thread, process.policy))
    };
    let mut instant = process.captures(copy, now, describe);
    (instant.stops, instant.may_wait) = (None, false);
    for (capture, index) in instant.captures.iter_mut().zip(indices) {
        let has_run = clock_of(index).is_some_and(|clock| process.thread(index).clock_now() != Some(clock));
        if has_run && capture.is_whole() {
            capture.python = Some(Err(LossReason::Moved));
        }
        capture.may_have_no_state = false;
        if capture.is_whole() {
            capture.kernel = kernel_stack(process, index);
        }
    }
    process.report(Observation::Instant(instant), events);
}

/// Where in the kernel a thread sleeps, if that was asked for. It is not known of a thread that waits for a CPU.
pub fn kernel_stack(process: &SampledProcess, index: usize) -> Option<KernelStack> {
    let thread = process.thread(index);
    if !process.reporter.kernel_frames.are_wanted() || thread.is_running() {
        return None;
    }
    let functions = thread.files.kernel_stack().ok();
    // If it has moved since, this may be of another wait.
    Some(KernelStack::Functions(functions.filter(|_| thread.slept_since_look())))
}

/// What the scheduler's counters said of a thread, as the clocks of an event that is about its time off the CPU.
fn off_cpu_clocks(thread: &Thread, policy: CapturePolicy) -> ClockReading {
    let only_since_look = policy == CapturePolicy::RunningAndGilHolder;
    ClockReading::OffCpu { schedule: thread.schedule, only_since_look }
}
