//! asyncio's tasks (3.14 and later). The program is `fixtures/asyncio_tree/asyncio_tree.py`, which makes the tree that is
//! expected here.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result, ensure};
use profiler_memory::ReadMemory;
use profiler_model::RemoteAddr;
use profiler_python::{
    AsyncioOffsets, CodeObject, CoroutineState, MAX_COROUTINES, Offsets, RawTask, ReprLimits, Values,
    read_task, running_task,
};
use serde::{Deserialize, Serialize};

use super::{Account, Anchors};

/// The main thread's tasks: name, functions, and the task that awaits it. All of them wait.
const TREE: [(&str, &str, &str); 9] = [
    ("Task-1", "main", ""),
    ("first", "album play", "Task-1"),
    ("second", "album play", "Task-1"),
    ("first/\u{e9}in", "track rest", "first"),
    ("first/zwei", "track rest", "first"),
    ("second/\u{e9}in", "track rest", "second"),
    ("second/zwei", "track rest", "second"),
    ("line\nbreak\u{1b}[2J", "nobody rest", ""),
    ("reader", "read_stdin", ""),
];

/// The other thread, and the functions of its only task.
const OTHER_THREAD: &str = "other";
const OTHER_TASK: &str = "alone rest";

/// The tasks of the program.
const ALL_TASKS: usize = TREE.len() + 1;

/// A task as it is read.
#[derive(Clone, Debug)]
pub struct SeenTask {
    /// What the tasks that await each other are known by.
    pub id: u64,
    /// Its name.
    pub name: Option<String>,
    /// Whether it waits.
    pub waits: bool,
    /// Its functions, outermost first.
    pub functions: Vec<String>,
    /// The tasks that await it.
    pub awaited_by: Vec<u64>,
}

impl SeenTask {
    /// Its functions without those of asyncio itself.
    pub fn own_functions(&self) -> Vec<&str> {
        let is_own = |name: &&str| {
            !name.contains("TaskGroup") && !name.ends_with("sleep") && !name.ends_with("sleep0")
        };
        self.functions.iter().map(|name| &**name).filter(is_own).collect()
    }
}

/// Whether the tasks of a thread of the program are those that it makes.
///
/// # Errors
/// When any is not as it should be.
pub fn tree_agrees(thread: &str, tasks: &[SeenTask]) -> Result<()> {
    ensure!(tasks.iter().all(|task| task.waits), "a task does not wait: {tasks:?}");
    if thread == OTHER_THREAD {
        let functions: Vec<String> = tasks.iter().map(|task| task.own_functions().join(" ")).collect();
        ensure!(functions == [OTHER_TASK], "{tasks:?}");
        return Ok(());
    }
    let names: HashMap<u64, &str> =
        tasks.iter().filter_map(|task| Some((task.id, task.name.as_deref()?))).collect();
    let mut seen = BTreeSet::new();
    for task in tasks {
        let awaited_by: Option<Vec<&str>> = task.awaited_by.iter().map(|id| names.get(id).copied()).collect();
        let awaited_by = awaited_by.context("awaited by a task that is not there")?.join(", ");
        let name = task.name.as_deref().context("a task without a name")?;
        seen.insert((name, task.own_functions().join(" "), awaited_by));
    }
    let expected = TREE.map(|(name, functions, by)| (name, functions.to_owned(), by.to_owned()));
    ensure!(seen == BTreeSet::from(expected) && tasks.len() == TREE.len(), "{seen:#?}");
    Ok(())
}

/// The program's threads and where asyncio keeps their tasks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AsyncioTree {
    anchors: Anchors,
    /// The section in which asyncio describes itself.
    description: Vec<u8>,
}

impl AsyncioTree {
    /// Of the program's threads and what asyncio says of itself.
    pub fn new(anchors: Anchors, description: Vec<u8>) -> Self {
        AsyncioTree { anchors, description }
    }

    /// Where asyncio keeps its tasks.
    ///
    /// # Errors
    /// When it does not describe itself as it should.
    pub fn asyncio(&self) -> Result<AsyncioOffsets> {
        AsyncioOffsets::parse(&self.description).context("asyncio does not describe itself")
    }

    /// The offsets of the interpreter.
    ///
    /// # Errors
    /// When it does not describe itself as it should.
    pub fn offsets(&self, memory: &impl ReadMemory) -> Result<Offsets> {
        self.anchors.offsets(memory)
    }

    /// The tasks of all threads.
    ///
    /// # Errors
    /// When they cannot be listed, or are not as many as the program has.
    pub fn tasks(&self, memory: &impl ReadMemory) -> Result<Vec<RemoteAddr>> {
        let asyncio = self.asyncio()?;
        let mut tasks = Vec::new();
        for (_, thread) in &self.anchors.threads {
            tasks.extend(asyncio.thread_tasks(memory, RemoteAddr::new(*thread))?);
        }
        ensure!(tasks.len() == ALL_TASKS, "{} tasks", tasks.len());
        Ok(tasks)
    }

    /// The threads with their tasks.
    ///
    /// # Errors
    /// When a task cannot be read.
    pub fn seen(&self, memory: &impl ReadMemory) -> Result<Vec<(String, Vec<SeenTask>)>> {
        let (asyncio, offsets) = (self.asyncio()?, self.offsets(memory)?);
        let thread = |(name, thread): &(String, u64)| {
            let tasks = asyncio.thread_tasks(memory, RemoteAddr::new(*thread))?.into_iter();
            let tasks = tasks.map(|at| seen(memory, &offsets, &asyncio, at));
            Ok((name.clone(), tasks.collect::<Result<_>>()?))
        };
        self.anchors.threads.iter().map(thread).collect()
    }
}

impl Account for AsyncioTree {
    const TOPIC: &'static str = "asyncio";

    fn check(&self, memory: &impl ReadMemory, _: &impl ReadMemory) -> Result<()> {
        let asyncio = self.asyncio()?;
        ensure!(self.tasks(memory)?.len() == ALL_TASKS && self.anchors.threads.len() == 2, "too few");
        for (name, thread) in &self.anchors.threads {
            let running = running_task(memory, &asyncio, RemoteAddr::new(*thread))?;
            ensure!(running.is_null(), "a task runs in {name}");
        }
        for (name, tasks) in self.seen(memory)? {
            tree_agrees(&name, &tasks).with_context(|| name)?;
        }
        Ok(())
    }

    fn walked(&self) -> Option<&Anchors> {
        None
    }
}

fn seen(
    memory: &impl ReadMemory,
    offsets: &Offsets,
    asyncio: &AsyncioOffsets,
    at: RemoteAddr,
) -> Result<SeenTask> {
    let values = Values::new(memory, offsets, ReprLimits { characters: 0 });
    let task = read_task(&values, asyncio, at)?;
    let names = task.frames.iter().rev().map(|frame| {
        let code = CodeObject::read(memory, offsets, frame.code)?;
        Ok(code.qualified_name.as_deref().unwrap_or(&code.name).to_owned())
    });
    Ok(SeenTask {
        id: at.as_u64(),
        waits: task.state == CoroutineState::Suspended,
        functions: names.collect::<Result<_>>()?,
        awaited_by: task.awaited_by.iter().map(|by| by.as_u64()).collect(),
        name: task.name,
    })
}

/// The tasks, as far as they can be read.
///
/// # Panics
/// When what is read is longer than promised.
pub fn read_what_there_is(
    memory: &impl ReadMemory,
    offsets: &Offsets,
    asyncio: &AsyncioOffsets,
    tasks: &[RemoteAddr],
) -> Vec<Option<RawTask>> {
    let values = Values::new(memory, offsets, ReprLimits { characters: 0 });
    let tasks: Vec<_> = tasks.iter().map(|task| read_task(&values, asyncio, *task).ok()).collect();
    for task in tasks.iter().flatten() {
        assert!(task.frames.len() <= MAX_COROUTINES);
        assert!(task.name.as_ref().is_none_or(|name| name.chars().count() <= 300));
    }
    tasks
}
