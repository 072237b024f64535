//! asyncio's tasks in `dump` of live processes. What each task stands at and which awaits which is read of stored memory of
//! every interpreter in tier 1; here it is the way from a process to what is printed.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use profiler_tests::account::asyncio::{SeenTask, tree_agrees};
use profiler_tests::suite::{Case, On, Test};
use profiler_tests::test;
use profiler_tests::{Fixture, Profiler, wait_until_still};
use serde::Deserialize;

const TREE: &str = "asyncio_tree/asyncio_tree.py";

/// The newest version; tasks can be read since the one before.
const NEWEST: On = On::Minors(&[15]);

/// The versions that run the program, but do not describe their tasks.
const WITHOUT_TASKS: On = On::Minors(&[11, 12, 13]);

/// How often tasks that run are looked at.
const LOOKS: usize = 40;

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
    truncated: bool,
}

#[derive(Debug, Deserialize)]
struct Frame {
    name: String,
}

impl Task {
    fn seen(&self) -> SeenTask {
        SeenTask {
            id: self.id,
            name: self.name.clone(),
            waits: self.state == "waiting",
            functions: self.frames.iter().rev().map(|frame| frame.name.clone()).collect(),
            awaited_by: self.awaited_by.clone(),
        }
    }
}

fn dumped(fixture: &Fixture) -> Result<Vec<Thread>> {
    let json = Profiler::new("dump").words("--json").pid(fixture).succeed()?.stdout;
    serde_json::from_str(&json).context("dump --json")
}

fn tree(case: &Case) -> Result<Fixture> {
    let fixture = Fixture::start(case.interpreter, TREE, &[])?;
    wait_until_still(fixture.pid())?;
    Ok(fixture)
}

fn the_tree_is_what_the_program_made(case: &Case) -> Result<()> {
    let threads = dumped(&tree(case)?)?;
    for name in ["MainThread", "other"] {
        let thread = threads.iter().find(|thread| thread.thread_name.as_deref() == Some(name));
        let tasks: Vec<SeenTask> = thread.context("no such thread")?.tasks.iter().map(Task::seen).collect();
        tree_agrees(name, &tasks).with_context(|| name)?;
    }
    Ok(())
}

fn versions_that_describe_no_tasks_show_none(case: &Case) -> Result<()> {
    let threads = dumped(&tree(case)?)?;
    ensure!(threads.iter().all(|thread| thread.tasks.is_empty()), "tasks are shown");
    Ok(())
}

fn the_text_draws_the_tree_and_commands_no_terminal(case: &Case) -> Result<()> {
    let fixture = tree(case)?;
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
}

/// Three tasks take turns; each stands in one of the few ways in which its functions can call each other.
const TURNS: &str = "\
import asyncio, os
async def leaf():
    await asyncio.sleep(0)
async def left():
    await leaf()
async def right():
    sum(range(50))
    await leaf()
async def turns():
    while True:
        await left()
        await right()
async def main():
    tasks = [asyncio.create_task(turns(), name='turns') for _ in range(3)]
    print('ready', os.getpid(), flush=True)
    await asyncio.gather(*tasks)
asyncio.run(main())
";

fn tasks_that_run_are_read_while_they_stand_still(case: &Case) -> Result<()> {
    let fixture = Fixture::inline(case.interpreter, TURNS)?;
    let mut stacks = BTreeSet::new();
    for _ in 0..LOOKS {
        let threads = dumped(&fixture)?;
        let thread = threads.first().context("no thread")?;
        ensure!(thread.tasks_lost.is_none(), "{:?}", thread.tasks_lost);
        for (task, truncated) in thread.tasks.iter().map(|task| (task.seen(), task.truncated)) {
            let functions = task.own_functions();
            let (whole, other) = (["turns", "left", "leaf"], ["turns", "right", "leaf"]);
            let is_legal = match task.name.as_deref() {
                Some("turns") => whole.starts_with(&functions) || other.starts_with(&functions),
                Some("Task-1") => functions == ["main"],
                _ => false,
            };
            ensure!(is_legal, "{task:?}");
            // One that waits has called as far as it can, and what is missing of that is marked.
            ensure!(!task.waits || truncated || functions.len() != 2, "{task:?}");
            stacks.insert(functions.join(" "));
        }
    }
    ensure!(stacks.len() > 2, "only {stacks:?}");
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(the_tree_is_what_the_program_made).on(NEWEST),
        test!(versions_that_describe_no_tasks_show_none).on(WITHOUT_TASKS),
        test!(the_text_draws_the_tree_and_commands_no_terminal).on(NEWEST),
        test!(tasks_that_run_are_read_while_they_stand_still).on(NEWEST),
    ]
}
