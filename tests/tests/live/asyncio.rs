//! asyncio's tasks in `dump`: what each stands at and who awaits whom, on every version that tells; and reading
//! them survives memory that lies.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result, ensure};
use profiler_memory::{ReadMemory, Recorder};
use profiler_model::{Pid, RemoteAddr};
use profiler_os::{MappedFile, Process, ProcessMemory};
use profiler_python::{
    AsyncioOffsets, COOKIE, MAX_COROUTINES, MAX_DEBUG_OFFSETS_BYTES, Offsets, RawTask, ReprLimits, Values,
    parse_debug_offsets, read_task,
};
use profiler_tests::damage::{CHANGE_BYTES, Damage, Limited};
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{Fixture, Interpreter, Profiler, every_interpreter, wait_until_still};
use serde::Deserialize;

const TREE: &str = "asyncio_tree/asyncio_tree.py";

/// The first version whose tasks can be read from outside.
const FIRST_MINOR: u32 = 14;

/// The first version that can run the fixture.
const FIRST_WITH_GROUPS: u32 = 11;

/// How often the memory of a process is damaged.
const ROUNDS: u64 = 1000;

#[derive(Deserialize)]
struct Thread {
    thread_name: Option<String>,
    #[serde(default)]
    tasks: Vec<Task>,
    tasks_lost: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Task {
    name: Option<String>,
    id: u64,
    state: String,
    awaited_by: Vec<u64>,
    frames: Vec<Frame>,
}

#[derive(Debug, Deserialize)]
struct Frame {
    name: String,
}

impl Task {
    /// Its functions, outermost first, without those of asyncio itself.
    fn functions(&self) -> Vec<&str> {
        let own = self.frames.iter().rev().map(|frame| &*frame.name);
        own.filter(|name| {
            !name.contains("TaskGroup") && !name.ends_with("sleep") && !name.ends_with("sleep0")
        })
        .collect()
    }
}

fn dumped(fixture: &Fixture) -> Result<Vec<Thread>> {
    let json = Profiler::new("dump").words("--json").pid(fixture).succeed()?.stdout;
    serde_json::from_str(&json).context("dump --json")
}

/// Each task's name, state, functions, and the name of the task that awaits it.
type Seen = BTreeSet<(String, String, String, String)>;

fn seen(tasks: &[Task]) -> Result<Seen> {
    let names: HashMap<u64, &str> =
        tasks.iter().filter_map(|task| Some((task.id, task.name.as_deref()?))).collect();
    let one = |task: &Task| {
        let awaited_by: Option<Vec<&str>> = task.awaited_by.iter().map(|id| names.get(id).copied()).collect();
        let awaited_by = awaited_by.context("awaited by a task that is not there")?.join(", ");
        let name = task.name.clone().context("a task without a name")?;
        Ok((name, task.state.clone(), task.functions().join(" "), awaited_by))
    };
    tasks.iter().map(one).collect()
}

fn expected(tasks: &[(&str, &str, &str)]) -> Seen {
    let one = |(name, functions, awaited_by): &(&str, &str, &str)| {
        ((*name).to_owned(), "waiting".to_owned(), (*functions).to_owned(), (*awaited_by).to_owned())
    };
    tasks.iter().map(one).collect()
}

fn the_tree_is_what_the_program_made() {
    every_interpreter(|interpreter| {
        if interpreter.minor < FIRST_WITH_GROUPS {
            return Ok(());
        }
        let fixture = Fixture::start(interpreter, TREE, &[])?;
        wait_until_still(fixture.pid())?;
        let threads = dumped(&fixture)?;
        if interpreter.minor < FIRST_MINOR {
            ensure!(
                threads.iter().all(|thread| thread.tasks.is_empty()),
                "tasks of a version that tells none"
            );
            return Ok(());
        }
        let of = |name: &str| {
            let found = threads.iter().find(|thread| thread.thread_name.as_deref() == Some(name));
            seen(&found.context("no such thread")?.tasks)
        };
        let main = expected(&[
            ("Task-1", "main", ""),
            ("first", "album play", "Task-1"),
            ("second", "album play", "Task-1"),
            ("first/\u{e9}in", "track rest", "first"),
            ("first/zwei", "track rest", "first"),
            ("second/\u{e9}in", "track rest", "second"),
            ("second/zwei", "track rest", "second"),
            ("line\nbreak\u{1b}[2J", "nobody rest", ""),
            ("reader", "read_stdin", ""),
        ]);
        ensure!(of("MainThread")? == main, "{:?}", of("MainThread")?);
        let other = of("other")?;
        let functions: Vec<&str> = other.iter().map(|task| &*task.2).collect();
        ensure!(functions == ["alone rest"], "{other:?}");
        Ok(())
    });
}

fn the_text_draws_it_and_commands_no_terminal() {
    every_interpreter(|interpreter| {
        if interpreter.minor < FIRST_MINOR {
            return Ok(());
        }
        let fixture = Fixture::start(interpreter, TREE, &[])?;
        wait_until_still(fixture.pid())?;
        let text = Profiler::new("dump").words("--async").pid(&fixture).succeed()?.stdout;
        for part in [
            &format!("\nTasks of thread {}:\n", fixture.pid()),
            "\n        awaits task \"first\" (waiting)\n            play (asyncio_tree.py:",
            "\n            awaits task \"first/\u{e9}in\" (waiting)\n                sleep (asyncio/tasks.py:",
            "\n    Task \"line\\nbreak\\u{1b}[2J\" (waiting)\n",
        ] {
            ensure!(text.contains(part), "no {part:?} in\n{text}");
        }
        ensure!(text.chars().all(|char| char == '\n' || !char.is_control()), "{text:?}");
        // py-spy's layout stays as it is where programs read it.
        let plain = Profiler::new("dump").pid(&fixture).succeed()?.stdout;
        ensure!(!plain.contains("Task"), "{plain}");
        Ok(())
    });
}

fn tasks_that_run_are_read_while_they_stand_still() {
    every_interpreter(|interpreter| {
        if interpreter.minor < FIRST_MINOR {
            return Ok(());
        }
        // Three tasks take turns; each stands in one of the few ways that its functions can call each other.
        let source = "import asyncio, os\n\
            async def leaf():\n    await asyncio.sleep(0)\n\
            async def left():\n    await leaf()\n\
            async def right():\n    sum(range(50))\n    await leaf()\n\
            async def turns():\n    while True:\n        await left()\n        await right()\n\
            async def main():\n    tasks = [asyncio.create_task(turns(), name='turns') for _ in range(3)]\n    \
            print('ready', os.getpid(), flush=True)\n    await asyncio.gather(*tasks)\n\
            asyncio.run(main())\n";
        let fixture = Fixture::inline(interpreter, source)?;
        let mut stacks = BTreeSet::new();
        for _ in 0..40 {
            let threads = dumped(&fixture)?;
            let thread = threads.first().context("no thread")?;
            ensure!(thread.tasks_lost.is_none(), "{:?}", thread.tasks_lost);
            for task in &thread.tasks {
                let functions = task.functions();
                let whole = ["turns", "left", "leaf"];
                let other = ["turns", "right", "leaf"];
                let is_legal = match task.name.as_deref() {
                    Some("turns") => whole.starts_with(&functions) || other.starts_with(&functions),
                    Some("Task-1") => functions == ["main"],
                    _ => false,
                };
                ensure!(is_legal, "{task:?}");
                // One that waits has called as far as it can.
                ensure!(task.state != "waiting" || functions.len() != 2, "{task:?}");
                stacks.insert(functions.join(" "));
            }
        }
        ensure!(stacks.len() > 2, "only {stacks:?}");
        Ok(())
    });
}

/// Where asyncio keeps its tasks in this process.
fn asyncio(process: &Process) -> Result<AsyncioOffsets> {
    let executable = process.executable()?.to_string_lossy().into_owned();
    let mappings = process.mappings()?;
    let mut files =
        mappings.iter().filter(|mapping| mapping.path.contains("/_asyncio.") || mapping.path == executable);
    files
        .find_map(|mapping| AsyncioOffsets::of_file(&MappedFile::open(mapping.path.as_ref()).ok()?))
        .context("asyncio does not describe itself")
}

/// The offsets, from the file: finding the runtime is another test's business.
fn offsets(process: &Process) -> Result<Offsets> {
    let file = MappedFile::open(&process.executable()?)?;
    let windows = file.windows(MAX_DEBUG_OFFSETS_BYTES);
    let described = windows.filter(|bytes| bytes.starts_with(COOKIE));
    described.filter_map(|bytes| parse_debug_offsets(bytes).ok()).next().context("no debug offsets")
}

/// SplitMix64: random numbers that are the same in every run.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*state ^ *state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

fn read_all(
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

fn survives(interpreter: &Interpreter) -> Result<()> {
    let fixture = Fixture::start(interpreter, TREE, &[])?;
    wait_until_still(fixture.pid())?;
    let process = Process::new(Pid::new(fixture.pid()));
    let (asyncio, offsets) = (asyncio(&process)?, offsets(&process)?);
    let threads = dumped(&fixture)?;
    let tasks: Vec<RemoteAddr> =
        threads.iter().flat_map(|thread| &thread.tasks).map(|task| RemoteAddr::new(task.id)).collect();
    let recorder = Recorder::new(ProcessMemory::new(Pid::new(fixture.pid())));
    let whole = read_all(&recorder, &offsets, &asyncio, &tasks);
    ensure!(whole.len() == 10 && whole.iter().all(Option::is_some), "{whole:?}");
    let damage = Damage::of(&recorder.into_snapshot());
    let (mut state, mut unlike) = (u64::from(interpreter.minor), 0);
    for _ in 0..ROUNDS {
        let count = 1 + random(&mut state) % 24;
        let changes: Vec<u8> = std::iter::repeat_with(|| random(&mut state).to_le_bytes())
            .flatten()
            .take(count as usize * CHANGE_BYTES)
            .collect();
        let memory = Limited::new(damage.by(&changes));
        unlike += u64::from(read_all(&memory, &offsets, &asyncio, &tasks) != whole);
        // A list may lead anywhere, and round in circles.
        let some = tasks[(random(&mut state) % tasks.len() as u64) as usize];
        let _ = asyncio.thread_tasks(&memory, some);
    }
    // Otherwise the damage would not hit what is read.
    ensure!(unlike > ROUNDS / 2, "only {unlike} of {ROUNDS} are different");
    Ok(())
}

fn memory_that_lies_is_survived() {
    every_interpreter(|interpreter| match interpreter.minor {
        FIRST_MINOR.. => survives(interpreter),
        _ => Ok(()),
    });
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(the_tree_is_what_the_program_made),
        test!(the_text_draws_it_and_commands_no_terminal),
        test!(tasks_that_run_are_read_while_they_stand_still),
        test!(memory_that_lies_is_survived),
    ]
}
