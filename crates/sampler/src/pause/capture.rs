//! The `pause` sampler: stops one thread, and lets the GIL prove all others.
//!
//! While a process has a GIL, only the thread that holds it can change any Python stack. It alone is
//! stopped, and only if it runs. Nothing else needs a stop:
//! - while the stopped thread holds the GIL, nobody can change any stack;
//! - otherwise a thread whose stack changed has taken the GIL, which leaves a trace in the count of
//!   switches unless it had held it last, and the one that held it last is the one that is stopped;
//! - a thread that is asleep and has not been put on a CPU since has not run; neither has one that waits for a
//!   CPU, while its exact clock stands.
//!
//! Without a GIL each running thread is stopped for itself.

use profiler_memory::ReadError;
use profiler_model::{LossReason, Nanos};
use profiler_os::priority::RealTimeMeanwhile;
use profiler_os::{StopError, StoppedThread, Tracer, clock};
use profiler_python::GilAddresses;
use profiler_target::Target;

use crate::capture::{InstantCopy, Runnable, read_stacks};
use crate::gil::{self, GilState};
use crate::objects::nobody_ran;
use crate::stack_reader::StackReader;
use crate::stop_bound::StopBound;
use crate::thread_table::ThreadTable;

/// How often the stop is tried anew when it came at a moment that cannot be used: the GIL has passed to
/// another thread before it took effect, or a frame is just being unlinked.
const MAX_ATTEMPTS: usize = 3;

/// How long a thread that was let go is left alone before it is stopped again: it takes some microseconds
/// until it runs.
const TIME_TO_MOVE: Nanos = Nanos::from_nanos(30_000);

/// Captures the stacks of the first of the threads `wanted` (indices into the thread table) that share `gil`, whose
/// state was `before` a moment ago: as many as one instant may take.
///
/// # Errors
/// When nothing of the process can be read any more.
pub fn capture(
    target: &Target,
    thread_table: &ThreadTable,
    gil: &GilAddresses,
    mut before: GilState,
    wanted: &[usize],
    reader: &mut StackReader,
    tracer: &mut Tracer,
) -> Result<InstantCopy, ReadError> {
    let _ahead = RealTimeMeanwhile::begin();
    let mut stops = Vec::new();
    for attempt in 1..=MAX_ATTEMPTS {
        let last_holder = thread_table.find(before.last_holder);
        let still = hold(thread_table, last_holder, tracer);
        let bound = still.bound(reader);
        let now = reader.begin_with_gil(target.memory(), gil)?;
        if now.last_holder != before.last_holder {
            // It passed on before the stop took effect: another one is to be stopped.
            stops.extend(release(thread_table, last_holder, still));
            before = now;
            continue;
        }
        let mut instant = read_stacks(target, thread_table, wanted, reader, &bound)?;
        if reader.objects.is_any() {
            let is_held = matches!(still, Hold::Stopped(_));
            let mut objects = reader.copy_objects(target, thread_table, &instant.stacks, is_held)?;
            let is_stopped = still.proof(thread_table, last_holder).is_ok();
            let stood_still = nobody_ran(target, thread_table, gil, &now, is_stopped)?;
            objects.doubt = (!stood_still).then_some(LossReason::GilMoved);
            instant.objects = Some(objects);
        }
        let proof_of_holder = still.proof(thread_table, last_holder);
        if matches!(still, Hold::Runnable(_)) && proof_of_holder.is_err() && attempt < MAX_ATTEMPTS {
            // It has got a CPU meanwhile, and there it is quickly stopped.
            reader.try_again(thread_table, &instant.stacks, instant.objects.take());
            continue;
        }
        let nobody_can_move = proof_of_holder.is_ok() && now.locked;
        let proof_of_others =
            match nobody_can_move || now.nobody_else_took_it(&gil::read(target.memory(), gil)?) {
                true => Ok(()),
                false => Err(LossReason::GilMoved),
            };
        instant.queued = still.queued(last_holder);
        stops.extend(release(thread_table, last_holder, still));
        instant.lose_unproved(|index| {
            let proof = if Some(index) == last_holder { proof_of_holder } else { proof_of_others };
            if proof.is_err() && thread_table.threads()[index].slept_since_look() { Ok(()) } else { proof }
        });
        reader.learn(instant.read());
        let is_between_frames = instant.stacks.iter().any(|(_, stack)| *stack == Err(LossReason::Invalid));
        if is_between_frames && attempt < MAX_ATTEMPTS {
            // Stopped again at once, it would not have moved.
            reader.try_again(thread_table, &instant.stacks, instant.objects.take());
            clock::sleep_until(clock::now() + TIME_TO_MOVE);
            continue;
        }
        return Ok(InstantCopy { holder: now.holder(), stops, ..instant });
    }
    Ok(InstantCopy { stops, ..InstantCopy::lost(wanted, LossReason::GilMoved) })
}

/// Why a thread stands still, as far as it does.
enum Hold {
    /// It was stopped.
    Stopped(StoppedThread),
    /// It waits for a CPU; its clock said this before anything was read.
    Runnable(Nanos),
    /// It sleeps, or there is none.
    Asleep,
    /// It could not be stopped.
    Not(LossReason),
}

impl Hold {
    /// Whether the thread `index` has stood still until now.
    fn proof(&self, thread_table: &ThreadTable, index: Option<usize>) -> Result<(), LossReason> {
        match self {
            Hold::Stopped(_) => Ok(()),
            Hold::Runnable(before) => {
                let now = index.and_then(|index| thread_table.threads()[index].clock_now());
                if now == Some(*before) { Ok(()) } else { Err(LossReason::Moved) }
            }
            Hold::Asleep => Err(LossReason::Moved),
            Hold::Not(reason) => Err(*reason),
        }
    }

    /// How long it may stand still from now on on account of the `reader`.
    fn bound(&self, reader: &StackReader) -> StopBound {
        let longest = matches!(self, Hold::Stopped(_)).then_some(reader.longest_stop);
        StopBound::new(clock::now(), longest.flatten())
    }

    /// The thread `index`, if it waits for a CPU.
    fn queued(&self, index: Option<usize>) -> Option<Runnable> {
        match self {
            Hold::Runnable(clock) => index.map(|thread| Runnable { thread, clock: *clock }),
            Hold::Stopped(_) | Hold::Asleep | Hold::Not(_) => None,
        }
    }
}

/// Holds the thread `index`, which holds the GIL or held it last: asleep it cannot move, and waiting for a CPU it
/// does not. Otherwise stops it. A thread that waits for a CPU could only be stopped when its turn comes, which
/// takes longer than the time between two samples where many threads want to run.
fn hold(thread_table: &ThreadTable, index: Option<usize>, tracer: &mut Tracer) -> Hold {
    let Some(thread) = index.map(|index| &thread_table.threads()[index]) else { return Hold::Asleep };
    if !thread.is_running() {
        return Hold::Asleep;
    }
    if let Some(clock) = thread.clock_while_queued() {
        return Hold::Runnable(clock);
    }
    match tracer.stop(thread.tid) {
        Ok(stopped) => {
            if stopped.had_to_be_waited_for() {
                thread.shares_its_cpu();
            }
            Hold::Stopped(stopped)
        }
        Err(error) => Hold::Not(refusal(error)),
    }
}

/// Captures the stack of the thread `index`, which no GIL protects: stops it, if it runs.
///
/// # Errors
/// When nothing of the process can be read any more.
pub fn capture_alone(
    target: &Target,
    thread_table: &ThreadTable,
    index: usize,
    reader: &mut StackReader,
    tracer: &mut Tracer,
) -> Result<InstantCopy, ReadError> {
    let _ahead = RealTimeMeanwhile::begin();
    let thread = &thread_table.threads()[index];
    let mut attempt = 1;
    loop {
        let still = hold(thread_table, Some(index), tracer);
        if let Hold::Not(reason) = still {
            return Ok(InstantCopy::lost(&[index], reason));
        }
        let mut instant = read_alone(target, thread_table, index, &still, reader)?;
        let proof = still.proof(thread_table, Some(index));
        if matches!(still, Hold::Runnable(_)) && proof.is_err() && attempt < MAX_ATTEMPTS {
            // It has got a CPU meanwhile, and there it is quickly stopped.
            reader.try_again(thread_table, &instant.stacks, instant.objects.take());
            attempt += 1;
            continue;
        }
        if proof.is_err() && !thread.slept_since_look() {
            instant.lose_unproved(|_| proof);
        }
        instant.queued = still.queued(Some(index));
        instant.stops.extend(release(thread_table, Some(index), still));
        reader.learn(instant.read());
        return Ok(instant);
    }
}

/// Copies the stack of the thread `index`, and its objects where they are wanted.
fn read_alone(
    target: &Target,
    thread_table: &ThreadTable,
    index: usize,
    still: &Hold,
    reader: &mut StackReader,
) -> Result<InstantCopy, ReadError> {
    let bound = still.bound(reader);
    reader.begin(target.memory())?;
    let mut instant = read_stacks(target, thread_table, &[index], reader, &bound)?;
    if reader.objects.is_any() {
        let is_stopped = matches!(still, Hold::Stopped(_));
        let mut objects = reader.copy_objects(target, thread_table, &instant.stacks, is_stopped)?;
        // No GIL keeps the others from changing them.
        let others_slept = (0..thread_table.threads().len())
            .all(|other| other == index || thread_table.threads()[other].slept_since_look());
        objects.doubt = (!others_slept).then_some(LossReason::Moved);
        instant.objects = Some(objects);
    }
    Ok(instant)
}

/// Lets the thread `index` run on; returns how long it stood still.
fn release(thread_table: &ThreadTable, index: Option<usize>, still: Hold) -> Option<Nanos> {
    let thread = &thread_table.threads()[index?];
    match still {
        Hold::Stopped(stopped) => Some(stopped.release(&thread.files, &thread.schedule)),
        Hold::Runnable(_) | Hold::Asleep | Hold::Not(_) => None,
    }
}

/// Why a thread could not be stopped, as a loss.
pub fn refusal(error: StopError) -> LossReason {
    match error {
        StopError::Ended => LossReason::ThreadEnded,
        StopError::NotPermitted | StopError::TimedOut => LossReason::NotStopped,
        StopError::StoppedBySignal => LossReason::StoppedByOther,
    }
}
