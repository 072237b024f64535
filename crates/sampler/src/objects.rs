//! Copying what a dump shows beside stacks: the objects that variables lead to.
//!
//! They are copied while everything stands still, in rounds: what a round leads to is fetched by the next one,
//! all of it at once. What is shown is read afterwards, from the copy. Objects can be changed by any thread,
//! so that a thread's own stillness proves its stack and not its objects: nobody may have run Python
//! meanwhile.

use std::sync::Arc;

use profiler_memory::{ReadError, ReadMemory, RoundCopy};
use profiler_model::{LossReason, RemoteAddr, Variable};
use profiler_python::{AsyncioOffsets, GilAddresses, RawFrame, RawStack, ReprLimits, Values, variables};

use crate::Target;
use crate::gil::{self, GilState};
use crate::instant::Instant;
use crate::roster::Roster;
use crate::tasks::{TaskList, TaskReader, task_lists};

/// The most rounds. A value takes some four, and three for each container that it is in.
const MAX_ROUNDS: usize = 24;

/// The most rounds for tasks: each coroutine that awaits the next takes some four, each code object that is new
/// some seven.
const MAX_TASK_ROUNDS: usize = 128;

/// How many frames of a stack have their variables read, from the innermost on: a deeper stack mostly repeats
/// itself, and is not worth standing still for.
pub const MAX_FRAMES_WITH_VARIABLES: usize = 1024;

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
    pub memory: RoundCopy,
    /// Where the tasks are.
    pub tasks: Vec<TaskList>,
    /// Why they may not be believed.
    pub doubt: Option<LossReason>,
}

/// Copies the objects that the stacks of `instant` lead to, and the tasks of its threads.
///
/// # Errors
/// When nothing of the process can be read any more.
pub fn copy_objects(
    target: &Target,
    roster: &Roster,
    wanted: ObjectsWanted,
    instant: &Instant,
) -> Result<ObjectCopy, ReadError> {
    let mut copy = ObjectCopy::default();
    if let Some(asyncio) = &wanted.tasks {
        let threads: Vec<usize> = instant.stacks.iter().map(|(index, _)| *index).collect();
        copy.tasks = task_lists(target, roster, &threads, asyncio);
        copy_tasks(target, &mut copy, asyncio)?;
    }
    let Some(limits) = wanted.variables else { return Ok(copy) };
    let mut places: Vec<_> = instant.read().flat_map(frames_with_variables).collect();
    for _ in 0..MAX_ROUNDS {
        let memory = &copy.memory;
        let values = Values::new(memory, target.offsets(), limits);
        places.retain(|(place, frame)| {
            let before = memory.missing();
            let _ = variables(&values, *place, frame);
            memory.missing() > before
        });
        if !copy.memory.fetch(target.memory())? {
            break;
        }
    }
    Ok(copy)
}

fn copy_tasks(target: &Target, copy: &mut ObjectCopy, asyncio: &AsyncioOffsets) -> Result<(), ReadError> {
    let mut left: Vec<RemoteAddr> = copy.tasks.iter().flat_map(TaskList::addresses).collect();
    for _ in 0..MAX_TASK_ROUNDS {
        let memory = &copy.memory;
        let mut reader = TaskReader::new(target.offsets(), asyncio);
        left.retain(|task| {
            let before = memory.missing();
            let _ = reader.read(memory, *task, &mut Arc::clone);
            memory.missing() > before
        });
        if !copy.memory.fetch(target.memory())? {
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
    roster: &Roster,
    gil: &GilAddresses,
    before: &GilState,
    is_stopped: bool,
) -> Result<bool, ReadError> {
    if is_stopped && before.locked {
        return Ok(true);
    }
    // It may take the GIL again without leaving a trace.
    let last_holder = roster.find(before.last_holder).map(|index| &roster.threads[index]);
    let last_stood = is_stopped || last_holder.is_some_and(|thread| thread.slept_since_look());
    if last_stood {
        return Ok(before.nobody_else_took_it(&gil::read(target.memory(), gil)?));
    }
    Ok(roster.threads.iter().all(|thread| thread.slept_since_look()))
}
