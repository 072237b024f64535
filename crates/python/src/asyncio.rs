//! asyncio's tasks (3.14 and later): which there are, what each stands at, and who awaits whom.
//!
//! The C part of asyncio describes itself as the interpreter does, in a section of its own. Each thread keeps
//! a list of its tasks, and the interpreter one of tasks whose thread has ended; a task knows its coroutine
//! and who awaits it; a coroutine that awaits another one has it on top of its stack. True only of memory
//! that stands still.

use object::LittleEndian;

use object::read::elf::{ElfFile64, SectionHeader};
use profiler_memory::{Field, ReadError, ReadMemory, Scalar};
use profiler_model::RemoteAddr;

use crate::RawFrame;
use crate::repr::Values;

/// The most tasks of one list. Services have some thousand; walking a list takes a read for each.
pub const MAX_TASKS: usize = 16_384;

/// The most coroutines that are followed from a task: each that awaits the next.
pub const MAX_COROUTINES: usize = 256;

/// The most tasks and futures that are followed from a task to find which others await it.
const MAX_AWAITING: usize = 64;

/// The longest name of a task that is read whole.
const MAX_NAME: usize = 255;

/// The section in which asyncio describes itself.
pub const ASYNCIO_SECTION: &[u8] = b".AsyncioDebug";

/// How many numbers there are in it.
const NUMBERS: usize = 13;

/// Sizes of structures that can be: tasks measure under 200 bytes, thread states under 8 KB, interpreters some
/// 350 KB.
const MAX_TASK_BYTES: u64 = 8 << 10;
const MAX_THREAD_BYTES: u64 = 64 << 10;
const MAX_INTERPRETER_BYTES: u64 = 6 << 20;

/// The types whose instances have a frame of their own.
const COROUTINES: [&str; 3] = ["coroutine", "generator", "async_generator"];

/// Where asyncio keeps what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsyncioOffsets {
    task_name: Field<RemoteAddr>,
    awaited_by: Field<RemoteAddr>,
    awaited_by_is_set: Field<u8>,
    is_task: Field<u8>,
    coroutine: Field<RemoteAddr>,
    task_node: u64,
    interpreter_tasks: u64,
    running_task: Field<RemoteAddr>,
    thread_tasks: u64,
}

impl AsyncioOffsets {
    /// What the file says that holds the C part of asyncio; `None` of any other file.
    pub fn of_file(file: &[u8]) -> Option<Self> {
        let elf = ElfFile64::<LittleEndian>::parse(file).ok()?;
        let (_, section) = elf.elf_section_table().section_by_name(LittleEndian, ASYNCIO_SECTION)?;
        Self::parse(section.data(LittleEndian, file).ok()?)
    }

    /// From the numbers of that section: size and fields of a task, of an interpreter, of a thread state; `None` where they
    /// cannot be right.
    pub fn parse(section: &[u8]) -> Option<Self> {
        let numbers: [u64; NUMBERS] =
            std::array::from_fn(|index| Field::at(index as u32 * 8).get(section).unwrap_or(u64::MAX));
        let [task, name, awaited_by, is_task, is_set, coroutine, node, rest @ ..] = numbers;
        let [interpreter, interpreter_tasks, thread, _loop, running, thread_tasks] = rest;
        let sizes =
            [(task, MAX_TASK_BYTES), (interpreter, MAX_INTERPRETER_BYTES), (thread, MAX_THREAD_BYTES)];
        if sizes.iter().any(|(size, limit)| size > limit) {
            return None;
        }
        Some(AsyncioOffsets {
            task_name: field(name, task)?,
            awaited_by: field(awaited_by, task)?,
            awaited_by_is_set: field(is_set, task)?,
            is_task: field(is_task, task)?,
            coroutine: field(coroutine, task)?,
            task_node: field::<u64>(node, task)?.offset().into(),
            interpreter_tasks: field::<u64>(interpreter_tasks, interpreter)?.offset().into(),
            running_task: field(running, thread)?,
            thread_tasks: field::<u64>(thread_tasks, thread)?.offset().into(),
        })
    }

    /// The tasks of the thread whose thread state is at `thread`.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub fn thread_tasks(
        &self,
        memory: &impl ReadMemory,
        thread: RemoteAddr,
    ) -> Result<Vec<RemoteAddr>, ReadError> {
        self.list(memory, thread.offset(self.thread_tasks))
    }

    /// The tasks of the interpreter at `interpreter` whose thread has ended.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub fn left_tasks(
        &self,
        memory: &impl ReadMemory,
        interpreter: RemoteAddr,
    ) -> Result<Vec<RemoteAddr>, ReadError> {
        self.list(memory, interpreter.offset(self.interpreter_tasks))
    }

    /// Reads the part of the task at `task` that links it with the next one, so that `memory` takes note of it.
    pub fn ask_for_node(&self, memory: &impl ReadMemory, task: RemoteAddr) {
        let _ = memory.scalar::<u64>(task.offset(self.task_node));
    }

    /// A circle of nodes, each in a task, that starts at `head`; at most [`MAX_TASKS`] of them.
    fn list(&self, memory: &impl ReadMemory, head: RemoteAddr) -> Result<Vec<RemoteAddr>, ReadError> {
        let mut tasks = Vec::new();
        let mut node: RemoteAddr = memory.scalar(head)?;
        // A list that was never used may be null.
        while node != head && !node.is_null() && tasks.len() < MAX_TASKS {
            tasks.push(node.offset(self.task_node.wrapping_neg()));
            node = memory.scalar(node)?;
        }
        Ok(tasks)
    }
}

/// A field inside a structure of `size` bytes.
fn field<T: Scalar>(offset: u64, size: u64) -> Option<Field<T>> {
    let end = offset.checked_add(T::WIDTH as u64)?;
    let fits = end <= size && offset.is_multiple_of(T::WIDTH as u64);
    fits.then(|| u32::try_from(offset).ok().map(Field::at)).flatten()
}

/// Where a generator, coroutine or asynchronous generator keeps its frame (3.14+).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneratorOffsets {
    /// The frame: a part of the object.
    pub frame: u32,
    /// What it is doing, an `enum _framestate`.
    pub state: Field<u8>,
    /// The states in which it waits for another one.
    pub delegating: &'static [u8],
    /// The state in which it has not started.
    pub created: u8,
    /// The state in which it runs.
    pub executing: u8,
    /// The states in which it has ended.
    pub ended: &'static [u8],
    /// The stack pointer of its frame.
    pub stack_pointer: Field<RemoteAddr>,
    /// How many entries below the stack pointer the one is that it waits for.
    pub awaited_depth: u64,
}

/// What a task is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoroutineState {
    /// Its coroutine has not started.
    Created,
    /// It runs.
    Running,
    /// It waits.
    Suspended,
    /// Its coroutine has ended.
    Ended,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTask {
    /// Its name.
    pub name: Option<String>,
    /// What it is doing.
    pub state: CoroutineState,
    /// The frames of the coroutines that await each other, leaf first. Of a task that runs only those of
    /// coroutines that wait and the one that runs: the others are on the thread's stack.
    pub frames: Vec<RawFrame>,
    /// Whether there are more coroutines than are followed, or than could be read.
    pub is_truncated: bool,
    /// The tasks that await it, themselves or through other futures.
    pub awaited_by: Vec<RemoteAddr>,
}

/// Reads the task at `at`.
///
/// # Errors
/// When it cannot be read.
pub fn read_task<M: ReadMemory>(
    values: &Values<'_, M>,
    asyncio: &AsyncioOffsets,
    at: RemoteAddr,
) -> Result<RawTask, ReadError> {
    let memory = values.memory;
    let name = memory.field(at, asyncio.task_name).and_then(|name| values.task_name(name, MAX_NAME));
    let awaited_by = awaited_by(values, asyncio, at);
    let mut task = RawTask {
        name: name.ok(),
        state: CoroutineState::Ended,
        frames: Vec::new(),
        is_truncated: false,
        awaited_by: awaited_by.unwrap_or_default(),
    };
    let coroutine = memory.field(at, asyncio.coroutine)?;
    match follow(values, coroutine, &mut task) {
        Err(error) if task.frames.is_empty() => return Err(error),
        // What is known of the beginning of the chain is true all the same.
        Err(_) => task.is_truncated = true,
        Ok(()) => {}
    }
    task.frames.reverse();
    Ok(task)
}

/// Adds the coroutine at `awaited` to the task, and those that await each other from there on.
fn follow<M: ReadMemory>(
    values: &Values<'_, M>,
    mut awaited: RemoteAddr,
    task: &mut RawTask,
) -> Result<(), ReadError> {
    let memory = values.memory;
    let Some(generators) = &values.offsets.generators else { return Ok(()) };
    while !awaited.is_null() && values.is_one_of(awaited, &COROUTINES)? {
        if task.frames.len() == MAX_COROUTINES {
            task.is_truncated = true;
            break;
        }
        let state = memory.field(awaited, generators.state)?;
        let place = awaited.offset(generators.frame.into());
        let is_first = task.frames.is_empty();
        if !generators.ended.contains(&state) {
            task.frames.push(RawFrame::read(memory, values.offsets, place)?);
        }
        if is_first {
            task.state = generators.meaning(state);
        }
        if !generators.delegating.contains(&state) {
            break;
        }
        let top = memory.field(place, generators.stack_pointer)?;
        let below: RemoteAddr = memory.scalar(top.offset((8 * generators.awaited_depth).wrapping_neg()))?;
        awaited = below.without_tag(values.offsets.frame.code_tag_bits);
    }
    Ok(())
}

/// The tasks that await the one at `at`: itself, or through futures such as those of `gather`.
fn awaited_by<M: ReadMemory>(
    values: &Values<'_, M>,
    asyncio: &AsyncioOffsets,
    at: RemoteAddr,
) -> Result<Vec<RemoteAddr>, ReadError> {
    let (mut tasks, mut next, mut looked_at) = (Vec::new(), vec![at], 0);
    while let Some(future) = next.pop() {
        looked_at += 1;
        if looked_at > MAX_AWAITING {
            break;
        }
        for awaiting in awaiting(values, asyncio, future)? {
            match values.memory.field(awaiting, asyncio.is_task)? {
                0 => next.push(awaiting),
                _ if tasks.contains(&awaiting) => {}
                _ => tasks.push(awaiting),
            }
        }
    }
    Ok(tasks)
}

/// The tasks and futures that await the one at `at`.
fn awaiting<M: ReadMemory>(
    values: &Values<'_, M>,
    asyncio: &AsyncioOffsets,
    at: RemoteAddr,
) -> Result<Vec<RemoteAddr>, ReadError> {
    let awaiting = values.memory.field(at, asyncio.awaited_by)?;
    if awaiting.is_null() {
        return Ok(Vec::new());
    }
    match values.memory.field(at, asyncio.awaited_by_is_set)? {
        0 => Ok(vec![awaiting]),
        _ => values.set_items(awaiting),
    }
}

impl GeneratorOffsets {
    fn meaning(&self, state: u8) -> CoroutineState {
        match state {
            _ if state == self.created => CoroutineState::Created,
            _ if state == self.executing => CoroutineState::Running,
            _ if self.ended.contains(&state) => CoroutineState::Ended,
            _ => CoroutineState::Suspended,
        }
    }
}

/// The task that the thread runs; null where it runs none.
///
/// # Errors
/// When the thread state cannot be read.
pub fn running_task(
    memory: &impl ReadMemory,
    asyncio: &AsyncioOffsets,
    thread: RemoteAddr,
) -> Result<RemoteAddr, ReadError> {
    memory.field(thread, asyncio.running_task)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What CPython 3.15.2 says.
    const REAL: [u64; NUMBERS] = [168, 136, 96, 108, 109, 128, 152, 226_240, 10_856, 1104, 1024, 1032, 1048];

    fn parsed(numbers: &[u64]) -> Option<AsyncioOffsets> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        AsyncioOffsets::parse(&bytes)
    }

    #[test]
    fn a_real_description_is_understood() {
        let offsets = parsed(&REAL).unwrap();
        assert_eq!((offsets.task_name.offset(), offsets.task_node), (136, 152));
        assert_eq!((offsets.interpreter_tasks, offsets.thread_tasks), (10_856, 1048));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(parsed(&REAL[..NUMBERS - 1]), None);
        for (index, value) in [(0, 1 << 40), (1, 137), (2, 168), (5, u64::MAX), (7, 1), (12, 1100)] {
            let mut numbers = REAL;
            numbers[index] = value;
            assert_eq!(parsed(&numbers), None, "{index}: {value}");
        }
        assert_eq!(AsyncioOffsets::of_file(b"\x7fELF"), None);
    }
}
