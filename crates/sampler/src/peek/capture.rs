//! The `peek` sampler: reads without stopping anything, and keeps only what it can prove.
//!
//! Threads that sleep, and threads that cannot have taken the GIL meanwhile, are proved as `pause` proves
//! them. The thread that held the GIL last has nothing that proves it while it runs: its stack is kept only
//! if several complete readings in a row are the same to the last instruction.

use profiler_memory::ReadError;
use profiler_model::LossReason;
use profiler_os::clock;
use profiler_python::{GilAddresses, RawStack};
use profiler_target::Target;

use crate::capture::{InstantCopy, read_stacks};
use crate::gil;
use crate::objects::nobody_ran;
use crate::stack_reader::StackReader;
use crate::stop_bound::StopBound;
use crate::thread_table::ThreadTable;

/// How many readings must be the same. A stack that changes while it is read can look the same twice; each
/// further reading would have to meet the same two halves again.
const EQUAL_READINGS: usize = 4;

/// How often that is tried.
const MAX_ATTEMPTS: usize = 2;

/// Captures the stacks of the first of the threads `wanted` (indices into the thread table) that share `gil`, or have
/// none: as many as one instant may take.
///
/// # Errors
/// When nothing of the process can be read any more.
pub fn capture(
    target: &Target,
    thread_table: &ThreadTable,
    gil: Option<&GilAddresses>,
    wanted: &[usize],
    reader: &mut StackReader,
) -> Result<InstantCopy, ReadError> {
    let mut attempt = 1;
    loop {
        let mut instant = capture_once(target, thread_table, gil, wanted, reader)?;
        let lost = instant.stacks.iter().any(|(_, stack)| stack.is_err());
        if !lost || attempt == MAX_ATTEMPTS {
            return Ok(instant);
        }
        reader.try_again(thread_table, &instant.stacks, instant.objects.take());
        attempt += 1;
    }
}

fn capture_once(
    target: &Target,
    thread_table: &ThreadTable,
    gil: Option<&GilAddresses>,
    wanted: &[usize],
    reader: &mut StackReader,
) -> Result<InstantCopy, ReadError> {
    let read_gil = || gil.map(|gil| gil::read(target.memory(), gil)).transpose();
    let before = read_gil()?;
    reader.begin(target.memory())?;
    let mut instant = read_stacks(target, thread_table, wanted, reader, &StopBound::new(clock::now(), None))?;
    // One that sleeps stands still, and is proved far more often than one that runs: it would show too much of its time.
    instant.lose_unproved(|index| match thread_table.threads()[index].has_fallen_asleep_since_look() {
        true => Err(LossReason::Moved),
        false => Ok(()),
    });
    if reader.objects.is_any() {
        let mut objects = reader.copy_objects(target, thread_table, &instant.stacks, false)?;
        let stood_still = match (gil, &before) {
            (Some(gil), Some(before)) => nobody_ran(target, thread_table, gil, before, false)?,
            _ => thread_table.threads().iter().all(|thread| thread.slept_since_look()),
        };
        objects.doubt = (!stood_still).then_some(LossReason::Moved);
        instant.objects = Some(objects);
    }
    let after = read_gil()?;
    let nobody_else_moved =
        before.zip(after).is_some_and(|(before, after)| before.nobody_else_took_it(&after));
    let last_holder = before.and_then(|state| thread_table.find(state.last_holder));
    for (index, stack) in &mut instant.stacks {
        let Ok(read) = stack else { continue };
        let thread = &thread_table.threads()[*index];
        let proved = nobody_else_moved && Some(*index) != last_holder
            || thread.slept_since_look()
            || stays_the_same(target, thread_table, *index, read, reader)?;
        if !proved {
            *stack = Err(LossReason::Moved);
        }
    }
    reader.learn(instant.read());
    // Who held the GIL is true of the instant only if it is still the same one.
    instant.holder = before
        .filter(|before| nobody_else_moved && after.is_some_and(|after| after.locked == before.locked))
        .and_then(|state| state.holder());
    Ok(instant)
}

/// Whether further readings of the thread's stack are all the same as `first`, and in each of them the frames are marked
/// as executed.
fn stays_the_same(
    target: &Target,
    thread_table: &ThreadTable,
    index: usize,
    first: &RawStack,
    reader: &mut StackReader,
) -> Result<bool, ReadError> {
    let (memory, offsets) = (target.memory(), target.offsets());
    if !reader.is_executed(memory, offsets, first)? {
        return Ok(false);
    }
    for _ in 1..EQUAL_READINGS {
        reader.begin_again(memory)?;
        let again = reader.stack(memory, offsets, &thread_table.threads()[index].python);
        if again.as_ref() != Ok(first) || !reader.is_executed(memory, offsets, first)? {
            return Ok(false);
        }
    }
    Ok(true)
}
