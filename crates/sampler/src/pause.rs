//! The `pause` sampler: stops one thread, and lets the GIL prove all others.
//!
//! While a process has a GIL, only the thread that holds it can change any Python stack. It alone is
//! stopped, and only if it runs. Nothing else needs a stop:
//! - while the stopped thread holds the GIL, nobody can change any stack;
//! - otherwise a thread whose stack changed has taken the GIL, which leaves a trace in the count of
//!   switches unless it had held it last, and the one that held it last is the one that is stopped;
//! - a thread that is asleep and has not been put on a CPU since has not run.
//!
//! Without a GIL each running thread is stopped for itself.

use profiler_memory::ReadError;
use profiler_model::{LossReason, Nanos};
use profiler_os::{StopError, StoppedThread, Tracer, clock};
use profiler_python::GilAddresses;

use crate::Target;
use crate::capture::StackReader;
use crate::gil::{self, GilState};
use crate::instant::{Instant, read_stacks};
use crate::objects::{copy_objects, nobody_ran};
use crate::roster::Roster;

/// How often the stop is tried anew when it came at a moment that cannot be used: the GIL has passed to
/// another thread before it took effect, or a frame is just being unlinked.
const MAX_ATTEMPTS: usize = 3;

/// How long a thread that was let go is left alone before it is stopped again: it takes some microseconds
/// until it runs.
const TIME_TO_MOVE: Nanos = Nanos::from_nanos(30_000);

/// Captures the stacks of the threads `wanted` (indices into the roster) that share `gil`, whose state was
/// `before` a moment ago.
///
/// # Errors
/// When nothing of the process can be read any more.
pub fn capture(
    target: &Target,
    roster: &Roster,
    gil: &GilAddresses,
    mut before: GilState,
    wanted: &[usize],
    reader: &mut StackReader,
    tracer: &mut Tracer,
) -> Result<Instant, ReadError> {
    let mut stops = Vec::new();
    for attempt in 1..=MAX_ATTEMPTS {
        let last_holder = roster.find(before.last_holder);
        let stop = stop_last_holder(roster, last_holder, tracer);
        let now = reader.begin_with_gil(target.memory(), gil)?;
        if now.last_holder != before.last_holder {
            // It passed on before the stop took effect: another one is to be stopped.
            stops.extend(release(roster, last_holder, stop.ok().flatten()));
            before = now;
            continue;
        }
        let proof_of_holder = match &stop {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(LossReason::Moved),
            Err(reason) => Err(*reason),
        };
        let mut instant = read_stacks(target, roster, wanted, reader)?;
        if reader.objects.is_any() {
            let is_stopped = matches!(stop, Ok(Some(_)));
            let mut objects = copy_objects(target, reader.objects, instant.read())?;
            let stood_still = nobody_ran(target, roster, gil, &now, is_stopped)?;
            objects.doubt = (!stood_still).then_some(LossReason::GilMoved);
            instant.objects = Some(objects);
        }
        let nobody_can_move = proof_of_holder.is_ok() && now.locked;
        let proof_of_others =
            match nobody_can_move || now.nobody_else_took_it(&gil::read(target.memory(), gil)?) {
                true => Ok(()),
                false => Err(LossReason::GilMoved),
            };
        stops.extend(release(roster, last_holder, stop.ok().flatten()));
        for index in wanted {
            let proof = if Some(*index) == last_holder { proof_of_holder } else { proof_of_others };
            if let Err(reason) = proof
                && !roster.threads[*index].slept_since_look()
            {
                instant.lose(*index, reason);
            }
        }
        finish(target, &mut instant, reader)?;
        let is_between_frames = instant.stacks.iter().any(|(_, stack)| *stack == Err(LossReason::Invalid));
        if is_between_frames && attempt < MAX_ATTEMPTS {
            // Stopped again at once, it would not have moved.
            clock::sleep_until(clock::now() + TIME_TO_MOVE);
            continue;
        }
        return Ok(Instant { holder: now.holder(), stops, ..instant });
    }
    Ok(Instant { stops, ..Instant::lost(wanted, LossReason::GilMoved) })
}

/// Stops the thread that holds the GIL or held it last, if it runs: asleep it cannot move.
fn stop_last_holder(
    roster: &Roster,
    last_holder: Option<usize>,
    tracer: &mut Tracer,
) -> Result<Option<StoppedThread>, LossReason> {
    match last_holder.map(|index| &roster.threads[index]) {
        Some(thread) if thread.is_running() => tracer.stop(thread.tid).map(Some).map_err(refusal),
        _ => Ok(None),
    }
}

/// Captures the stack of the thread `index`, which no GIL protects: stops it, if it runs.
///
/// # Errors
/// When nothing of the process can be read any more.
pub fn capture_alone(
    target: &Target,
    roster: &Roster,
    index: usize,
    reader: &mut StackReader,
    tracer: &mut Tracer,
) -> Result<Instant, ReadError> {
    let thread = &roster.threads[index];
    let stopped = match thread.is_running().then(|| tracer.stop(thread.tid)).transpose() {
        Ok(stopped) => stopped,
        Err(error) => return Ok(Instant::lost(&[index], refusal(error))),
    };
    reader.begin(target.memory())?;
    let mut instant = read_stacks(target, roster, &[index], reader)?;
    if reader.objects.is_any() {
        let mut objects = copy_objects(target, reader.objects, instant.read())?;
        // No GIL keeps the others from changing them.
        let others_slept =
            (0..roster.threads.len()).all(|other| other == index || roster.threads[other].slept_since_look());
        objects.doubt = (!others_slept).then_some(LossReason::Moved);
        instant.objects = Some(objects);
    }
    if stopped.is_none() && !thread.slept_since_look() {
        instant.lose(index, LossReason::Moved);
    }
    instant.stops.extend(release(roster, Some(index), stopped));
    finish(target, &mut instant, reader)?;
    Ok(instant)
}

/// What can wait until nothing is stopped any more.
fn finish(target: &Target, instant: &mut Instant, reader: &mut StackReader) -> Result<(), ReadError> {
    instant.capture.complete(target.memory(), target.offsets())?;
    reader.learn(instant.read());
    Ok(())
}

/// Lets the thread `index` run on; returns how long it stood still.
fn release(roster: &Roster, index: Option<usize>, stopped: Option<StoppedThread>) -> Option<Nanos> {
    let thread = &roster.threads[index?];
    stopped.map(|stopped| stopped.release(&thread.files, &thread.schedule))
}

fn refusal(error: StopError) -> LossReason {
    match error {
        StopError::Ended => LossReason::ThreadEnded,
        StopError::NotPermitted | StopError::TimedOut => LossReason::NotStopped,
        StopError::StoppedBySignal => LossReason::StoppedByOther,
    }
}
