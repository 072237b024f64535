//! Copying what a dump shows beside stacks: the objects that variables lead to.
//!
//! A stop has to be short, and a value can be hundreds of objects, each found by the one before. So they are looked
//! up twice: first in rounds, while everything moves, which tells where the objects are; then, while everything
//! stands still, all that memory is copied in one go, and only what has changed since is looked for again. What is
//! shown is read afterwards, from that copy alone: what is not in it, because it moved in between, is not shown, and
//! the look is repeated. Objects can be changed by any thread,
//! so that a thread's own stillness proves its stack and not its objects: nobody may have run Python
//! meanwhile.

use std::collections::HashSet;
use std::sync::Arc;

use profiler_memory::{BatchedReader, ReadError, ReadMemory};
use profiler_model::{LossReason, Nanos, RemoteAddr, Timestamp, Variable};
use profiler_os::clock;
use profiler_python::{AsyncioOffsets, GilAddresses, RawFrame, RawStack, ReprLimits, Values, variables};
use profiler_target::Target;

use crate::gil::{self, GilState};
use crate::tasks::{TaskList, TaskReader, task_lists};
use crate::thread_table::ThreadTable;

/// The most rounds. A value takes some four, and three for each container that it is in.
const MAX_ROUNDS: usize = 24;

/// The most rounds for tasks: each coroutine that awaits the next takes some four, each code object that is new
/// some seven.
const MAX_TASK_ROUNDS: usize = 128;

/// How many frames of a stack have their variables read, from the innermost on: a deeper stack mostly repeats
/// itself, and is not worth standing still for.
pub const MAX_FRAMES_WITH_VARIABLES: usize = 1024;

/// How many frames whose objects are all there, one after the other from the innermost on, let those below pass as
/// standing still since they were looked up: these change less and less.
const STEADY_FRAMES: usize = 2;

/// How long a stop is prolonged to look for objects again. After that what is missing stays so.
const MAX_SEARCH_IN_STOP: Nanos = Nanos::from_nanos(300_000);

/// How many tasks are looked up together.
const TASKS_AT_ONCE: usize = 16;

/// How many frames of each stack are looked up together: those further out come last, should there be too much.
const FRAMES_AT_ONCE: usize = 32;

/// Which objects are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObjectsWanted {
    /// The values of variables, at most so much of each.
    pub variables: Option<ReprLimits>,
    /// asyncio's tasks.
    pub tasks: Option<AsyncioOffsets>,
}

impl ObjectsWanted {
    /// Whether there are any.
    pub fn is_any(&self) -> bool {
        self.variables.is_some() || self.tasks.is_some()
    }
}

/// Objects as they were at an instant.
#[derive(Debug, Default)]
pub struct ObjectCopy {
    /// Their memory.
    pub memory: BatchedReader,
    /// Where the tasks are.
    pub tasks: Vec<TaskList>,
    /// Why they may not be believed.
    pub doubt: Option<LossReason>,
}

/// Where objects were a moment ago, and what led to them.
#[derive(Debug, Default)]
pub struct ObjectsAhead {
    memory: BatchedReader,
    /// The threads, by their thread states.
    threads: HashSet<RemoteAddr>,
    stacks: Vec<RawStack>,
    tasks: HashSet<RemoteAddr>,
}

impl ObjectsAhead {
    /// What a copy that was of no use still is good for.
    pub fn again(copy: ObjectCopy, thread_table: &ThreadTable, stacks: &[ThreadStack]) -> Self {
        let mut memory = copy.memory;
        memory.arrange();
        let tasks = copy.tasks.iter().flat_map(TaskList::addresses).collect();
        let threads = stacks.iter().map(|(index, _)| address_of(thread_table, *index)).collect();
        ObjectsAhead { memory, threads, stacks: read(stacks).cloned().collect(), tasks }
    }

    /// How many of its threads are among these.
    pub fn threads_in_common(&self, thread_table: &ThreadTable, stacks: &[ThreadStack]) -> usize {
        let is_common = |index| self.threads.contains(&address_of(thread_table, index));
        stacks.iter().filter(|(index, _)| is_common(*index)).count()
    }
}

/// The stack of a thread at an instant, proved or lost, with the thread's index in the thread table.
pub type ThreadStack = (usize, Result<RawStack, LossReason>);

/// The stacks that were read.
fn read(stacks: &[ThreadStack]) -> impl Iterator<Item = &RawStack> {
    stacks.iter().filter_map(|(_, stack)| stack.as_ref().ok())
}

fn address_of(thread_table: &ThreadTable, index: usize) -> RemoteAddr {
    thread_table.threads()[index].python.address
}

/// Looks up the objects that `stacks` lead to, and the tasks of the threads `wanted`, while everything moves.
///
/// # Errors
/// When nothing of the process can be read any more.
pub fn look_ahead(
    target: &Target,
    thread_table: &ThreadTable,
    objects: ObjectsWanted,
    wanted: &[usize],
    stacks: Vec<RawStack>,
) -> Result<ObjectsAhead, ReadError> {
    let threads = wanted.iter().map(|index| address_of(thread_table, *index)).collect();
    let mut ahead = ObjectsAhead { threads, ..ObjectsAhead::default() };
    if let Some(asyncio) = &objects.tasks {
        let lists = task_lists(target.memory(), thread_table, wanted, asyncio);
        let tasks: Vec<RemoteAddr> = lists.iter().flat_map(TaskList::addresses).collect();
        look_for_tasks(target, &mut ahead.memory, asyncio, tasks.clone(), None)?;
        // With the list itself, which passes through them.
        for _ in 0..MAX_TASK_ROUNDS {
            let _ = task_lists(&ahead.memory, thread_table, wanted, asyncio);
            tasks.iter().for_each(|task| asyncio.ask_for_node(&ahead.memory, *task));
            if !ahead.memory.fetch(target.memory())? {
                break;
            }
        }
        ahead.tasks = tasks.into_iter().collect();
    }
    if let Some(limits) = objects.variables {
        for start in (0..MAX_FRAMES_WITH_VARIABLES).step_by(FRAMES_AT_ONCE) {
            let some = |stack| frames_with_variables(stack).skip(start).take(FRAMES_AT_ONCE);
            let frames: Vec<_> = stacks.iter().flat_map(some).collect();
            look_for_variables(target, &mut ahead.memory, limits, frames, None)?;
        }
    }
    ahead.memory.arrange();
    ahead.stacks = stacks;
    Ok(ahead)
}

/// Copies the objects that these stacks lead to, and the tasks of its threads. `is_stopped`: a thread is,
/// and must not be for long.
///
/// # Errors
/// When nothing of the process can be read any more.
pub fn copy_objects(
    target: &Target,
    thread_table: &ThreadTable,
    objects: ObjectsWanted,
    stacks: &[ThreadStack],
    ahead: ObjectsAhead,
    is_stopped: bool,
) -> Result<ObjectCopy, ReadError> {
    let mut copy = ObjectCopy { memory: ahead.memory, ..ObjectCopy::default() };
    copy.memory.refresh(target.memory())?;
    let deadline = is_stopped.then(|| clock::now() + MAX_SEARCH_IN_STOP);
    if let Some(asyncio) = &objects.tasks {
        let wanted: Vec<usize> = stacks.iter().map(|(index, _)| *index).collect();
        for _ in 0..MAX_TASK_ROUNDS {
            copy.tasks = task_lists(&copy.memory, thread_table, &wanted, asyncio);
            if !copy.memory.fetch(target.memory())? || is_over(deadline) {
                break;
            }
        }
        // Those first that must have changed.
        let mut tasks: Vec<RemoteAddr> = copy.tasks.iter().flat_map(TaskList::addresses).collect();
        let is_running = |task: &RemoteAddr| copy.tasks.iter().any(|list| list.is_running(*task));
        tasks.sort_by_cached_key(|task| (ahead.tasks.contains(task), !is_running(task)));
        for some in tasks.chunks(TASKS_AT_ONCE) {
            if !is_over(deadline) {
                look_for_tasks(target, &mut copy.memory, asyncio, some.to_vec(), deadline)?;
            }
        }
    }
    let Some(limits) = objects.variables else { return Ok(copy) };
    if !is_stopped {
        let frames = read(stacks).flat_map(frames_with_variables).collect();
        look_for_variables(target, &mut copy.memory, limits, frames, None)?;
        return Ok(copy);
    }
    for stack in read(stacks).filter(|stack| !ahead.stacks.contains(stack)) {
        look_again(target, &mut copy.memory, limits, stack, deadline)?;
    }
    Ok(copy)
}

/// Looks for what the innermost frames of a stack that has changed lead to, until those below have not.
fn look_again(
    target: &Target,
    copy: &mut BatchedReader,
    limits: ReprLimits,
    stack: &RawStack,
    deadline: Option<Timestamp>,
) -> Result<(), ReadError> {
    let mut steady = 0;
    for frame in frames_with_variables(stack) {
        if is_over(deadline) {
            break;
        }
        let rounds = look_for_variables(target, copy, limits, vec![frame], deadline)?;
        steady = if rounds == 0 { steady + 1 } else { 0 };
        if steady == STEADY_FRAMES {
            break;
        }
    }
    Ok(())
}

fn is_over(deadline: Option<Timestamp>) -> bool {
    deadline.is_some_and(|deadline| clock::now() > deadline)
}

/// Fetches what the variables of `frames` lead to; returns in how many rounds.
fn look_for_variables(
    target: &Target,
    copy: &mut BatchedReader,
    limits: ReprLimits,
    mut frames: Vec<(RemoteAddr, &RawFrame)>,
    deadline: Option<Timestamp>,
) -> Result<usize, ReadError> {
    for round in 0..MAX_ROUNDS {
        let memory = &*copy;
        let values = Values::new(memory, target.offsets(), limits);
        frames.retain(|(place, frame)| {
            let before = memory.missing();
            let _ = variables(&values, *place, frame);
            memory.missing() > before
        });
        if frames.is_empty() || is_over(deadline) || !copy.fetch(target.memory())? {
            return Ok(round);
        }
    }
    Ok(MAX_ROUNDS)
}

/// Fetches what the tasks lead to.
fn look_for_tasks(
    target: &Target,
    copy: &mut BatchedReader,
    asyncio: &AsyncioOffsets,
    mut tasks: Vec<RemoteAddr>,
    deadline: Option<Timestamp>,
) -> Result<(), ReadError> {
    for _ in 0..MAX_TASK_ROUNDS {
        let memory = &*copy;
        let mut reader = TaskReader::new(target.offsets(), asyncio);
        tasks.retain(|task| {
            let before = memory.missing();
            let _ = reader.read(memory, *task, &mut Arc::clone);
            memory.missing() > before
        });
        if tasks.is_empty() || is_over(deadline) || !copy.fetch(target.memory())? {
            break;
        }
    }
    Ok(())
}

fn frames_with_variables(stack: &RawStack) -> impl Iterator<Item = (RemoteAddr, &RawFrame)> {
    stack.places().zip(&stack.frames).take(MAX_FRAMES_WITH_VARIABLES)
}

/// The variables of each frame of `stack`, innermost first; `None` of frames that cannot be read.
pub fn stack_variables(
    memory: &impl ReadMemory,
    target: &Target,
    limits: ReprLimits,
    stack: &RawStack,
) -> Vec<Option<Vec<Variable>>> {
    let values = Values::new(memory, target.offsets(), limits);
    frames_with_variables(stack).map(|(place, frame)| variables(&values, place, frame).ok()).collect()
}

/// Whether no thread that shares `gil` can have run Python since `before`, the state of the GIL before objects
/// were copied. `is_stopped`: the thread that held it last is.
pub fn nobody_ran(
    target: &Target,
    thread_table: &ThreadTable,
    gil: &GilAddresses,
    before: &GilState,
    is_stopped: bool,
) -> Result<bool, ReadError> {
    if is_stopped && before.locked {
        return Ok(true);
    }
    // It may take the GIL again without leaving a trace.
    let last_holder = thread_table.find(before.last_holder).map(|index| &thread_table.threads()[index]);
    let last_stood = is_stopped || last_holder.is_some_and(|thread| thread.slept_since_look());
    if last_stood {
        return Ok(before.nobody_else_took_it(&gil::read(target.memory(), gil)?));
    }
    Ok(thread_table.threads().iter().all(|thread| thread.slept_since_look()))
}
