//! asyncio's tasks in a dump: copied with the stacks, named afterwards.

use std::sync::Arc;

use profiler_memory::{ReadError, ReadMemory};
use profiler_model::{Frame, RemoteAddr, Tid};
use profiler_profile::{TaskDump, TaskState};
use profiler_python::{
    AsyncioOffsets, CodeHead, CoroutineState, MAX_TASKS, Offsets, RawFrame, RawTask, ReprLimits, Values,
    read_task, running_task,
};
use profiler_stack::{Describe, Resolver};

use crate::thread_table::ThreadTable;

/// The tasks of one thread.
#[derive(Debug)]
pub struct TaskList {
    /// The thread; `None` of tasks whose thread has ended.
    tid: Option<Tid>,
    /// Where the tasks are.
    tasks: Vec<RemoteAddr>,
    /// The one that runs.
    running: RemoteAddr,
}

impl TaskList {
    /// The tasks of the thread whose thread state is at `state`, if it has any.
    pub fn of_thread(
        memory: &impl ReadMemory,
        asyncio: &AsyncioOffsets,
        state: RemoteAddr,
        tid: Option<Tid>,
    ) -> Option<Self> {
        let tasks = asyncio.thread_tasks(memory, state).ok().filter(|tasks| !tasks.is_empty())?;
        let running = running_task(memory, asyncio, state).unwrap_or_default();
        Some(TaskList { tid, tasks, running })
    }

    /// The tasks of the interpreter at `interpreter` whose thread has ended, if there are any.
    pub fn of_interpreter(
        memory: &impl ReadMemory,
        asyncio: &AsyncioOffsets,
        interpreter: RemoteAddr,
    ) -> Option<Self> {
        let tasks = asyncio.left_tasks(memory, interpreter).ok().filter(|tasks| !tasks.is_empty())?;
        Some(TaskList { tid: None, tasks, running: RemoteAddr::NULL })
    }

    /// Whether there may be more tasks than were read.
    pub fn is_truncated(&self) -> bool {
        self.tasks.len() >= MAX_TASKS
    }

    /// Whether it is the one that runs.
    pub fn is_running(&self, task: RemoteAddr) -> bool {
        self.running == task
    }

    /// Where the tasks are.
    pub fn addresses(&self) -> impl Iterator<Item = RemoteAddr> {
        self.tasks.iter().copied()
    }
}

/// The lists of the threads `wanted`, and of their interpreters.
pub fn task_lists(
    memory: &impl ReadMemory,
    thread_table: &ThreadTable,
    wanted: &[usize],
    asyncio: &AsyncioOffsets,
) -> Vec<TaskList> {
    let mut lists = Vec::new();
    for index in wanted {
        let thread = &thread_table.threads()[*index];
        lists.extend(TaskList::of_thread(memory, asyncio, thread.python.address, Some(thread.tid)));
    }
    for (number, interpreter) in thread_table.interpreters.iter().enumerate() {
        // Without a GIL each thread comes by itself: the first one brings the interpreter's.
        let first = thread_table.threads().iter().position(|thread| thread.interpreter == number);
        if first.is_some_and(|first| wanted.contains(&first)) {
            lists.extend(TaskList::of_interpreter(memory, asyncio, interpreter.address));
        }
    }
    lists
}

/// Reads one task and names its frames.
pub struct TaskReader<'a> {
    offsets: &'a Offsets,
    asyncio: &'a AsyncioOffsets,
    resolver: Resolver<usize>,
    frames: Vec<Frame>,
}

impl<'a> TaskReader<'a> {
    /// A reader that knows no code yet.
    pub fn new(offsets: &'a Offsets, asyncio: &'a AsyncioOffsets) -> Self {
        TaskReader { offsets, asyncio, resolver: Resolver::new(), frames: Vec::new() }
    }

    /// The task at `at` and its frames, leaf first. Where the frame of a coroutine has no name, it and those that it
    /// awaits are left out, and the task is marked as truncated.
    ///
    /// # Errors
    /// When not even the first coroutine can be read.
    pub fn read(
        &mut self,
        memory: &impl ReadMemory,
        at: RemoteAddr,
        shorten: &mut dyn FnMut(&Arc<str>) -> Arc<str>,
    ) -> Result<(RawTask, Vec<Frame>), ReadError> {
        let values = Values::new(memory, self.offsets, ReprLimits { characters: 0 });
        let mut task = read_task(&values, self.asyncio, at)?;
        // All of them, before any is given up: what is missing is to be noted.
        let frames: Vec<_> = task.frames.iter().map(|frame| self.frame(memory, frame, shorten)).collect();
        let all = frames.len();
        let mut named: Vec<Frame> = frames.into_iter().rev().map_while(|frame| frame).collect();
        if named.is_empty() && all > 0 {
            return Err(ReadError::Unmapped(at));
        }
        task.is_truncated |= named.len() < all;
        named.reverse();
        Ok((task, named))
    }

    fn frame(
        &mut self,
        memory: &impl ReadMemory,
        raw: &RawFrame,
        shorten: &mut dyn FnMut(&Arc<str>) -> Arc<str>,
    ) -> Option<Frame> {
        let head = CodeHead::read(memory, self.offsets, raw.code).ok()?;
        let known = &mut self.frames;
        let intern = &mut |frame: &Frame| {
            known.push(frame.clone());
            known.len() - 1
        };
        let describe = &mut Describe { shorten, intern };
        let id = self.resolver.resolve(memory, self.offsets, raw, &head, describe).ok()??;
        self.frames.get(id).cloned()
    }
}

/// The tasks of a list.
pub fn task_dumps(
    reader: &mut TaskReader<'_>,
    memory: &impl ReadMemory,
    list: &TaskList,
    shorten: &mut dyn FnMut(&Arc<str>) -> Arc<str>,
) -> Vec<TaskDump> {
    let dump = |address: &RemoteAddr| {
        let unread = TaskDump {
            address: *address,
            name: None,
            tid: list.tid,
            state: TaskState::Unknown,
            frames: Vec::new(),
            truncated: false,
            awaited_by: Vec::new(),
        };
        let Ok((task, frames)) = reader.read(memory, *address, shorten) else { return unread };
        TaskDump {
            name: task.name,
            state: match task.state {
                _ if *address == list.running => TaskState::Running,
                CoroutineState::Created => TaskState::Created,
                CoroutineState::Running => TaskState::Running,
                CoroutineState::Suspended => TaskState::Suspended,
                CoroutineState::Ended => TaskState::Ended,
            },
            frames,
            truncated: task.is_truncated,
            awaited_by: task.awaited_by,
            ..unread
        }
    };
    list.tasks.iter().map(dump).collect()
}
