//! `dump` as text and as JSON.

use anyhow::{Context, Result, ensure};
use profiler_tests::labyrinth::{Place, judge};
use profiler_tests::suite::{Case, On, Test};
use profiler_tests::{
    DumpedThread, Fixture, Profiler, dumped_json, dumped_text, test, wait_until_others_are_still,
};

const LABYRINTH: &str = "labyrinth/labyrinth.py";

/// Stops within 501 calls.
const DEEP: &str = "\
import os, sys
def down(left):
    if left:
        down(left - 1)
    else:
        print('ready', os.getpid(), flush=True); sys.stdin.readline()
down(500)
";

/// Functions with names of one and of two bytes a character.
const NAMES: &str = "\
import os, sys
def gr\u{fc}\u{df}e():
    def \u{540d}\u{524d}():
        print('ready', os.getpid(), flush=True); sys.stdin.readline()
    \u{540d}\u{524d}()
gr\u{fc}\u{df}e()
";

fn main_thread(threads: &[DumpedThread]) -> Result<&DumpedThread> {
    let found = threads.iter().find(|thread| thread.name.as_deref() == Some("MainThread"));
    found.with_context(|| format!("no MainThread in {threads:?}"))
}

/// How deep in the maze the main thread is; the stack must be possible.
fn depth(threads: &[DumpedThread]) -> Result<usize> {
    match judge(&main_thread(threads)?.root_first())? {
        Place::Maze { depth } => Ok(depth),
        _ => Ok(0),
    }
}

fn running_program_as_text(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, LABYRINTH, &[])?;
    let mut deepest = 0;
    for _ in 0..5 {
        let text = Profiler::new("dump").pid(&fixture).succeed()?.stdout;
        let version = format!("Python v3.{}.", case.interpreter.minor);
        ensure!(text.lines().nth(1).is_some_and(|line| line.starts_with(&version)), "{text}");
        let threads = dumped_text(&text, fixture.pid())?;
        ensure!(threads.len() == 1 && main_thread(&threads)?.active, "{text}");
        deepest = deepest.max(depth(&threads)?);
    }
    ensure!(deepest > 1, "never seen in the maze");
    Ok(())
}

fn running_program_as_json(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, LABYRINTH, &["--idle-threads", "20"])?;
    // The last of them may still be on its way to where it waits.
    wait_until_others_are_still(fixture.pid())?;
    let json = Profiler::new("dump").words("--json").pid(&fixture).succeed()?.stdout;
    let threads = dumped_json(&json)?;
    ensure!(threads.len() == 21, "{} threads", threads.len());
    ensure!(threads.iter().all(|thread| thread.pid == Some(fixture.pid())), "{json}");
    depth(&threads)?;
    for thread in threads.iter().filter(|thread| thread.leaf() == "idle") {
        ensure!(!thread.active && !thread.owns_gil, "{thread:?}");
        ensure!(thread.name.as_deref().is_some_and(|name| name.starts_with("idle-")), "{thread:?}");
    }
    ensure!(threads.iter().filter(|thread| thread.leaf() == "idle").count() == 20, "{json}");
    Ok(())
}

fn deep_stack_is_whole(case: &Case) -> Result<()> {
    let fixture = Fixture::inline(case.interpreter, DEEP)?;
    let json = Profiler::new("dump").words("--json").pid(&fixture).succeed()?.stdout;
    let depth = dumped_json(&json)?[0].frames.len();
    ensure!(depth == 502, "{depth} frames instead of the module and 501 calls");
    Ok(())
}

fn names_that_are_not_ascii(case: &Case) -> Result<()> {
    let fixture = Fixture::inline(case.interpreter, NAMES)?;
    let threads = dumped_json(&Profiler::new("dump").words("--json").pid(&fixture).succeed()?.stdout)?;
    let names: Vec<&str> = threads[0].frames.iter().map(|frame| frame.plain_name()).collect();
    ensure!(names.contains(&"\u{540d}\u{524d}") && names.contains(&"gr\u{fc}\u{df}e"), "{names:?}");
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(running_program_as_text).on(On::Every),
        test!(running_program_as_json).on(On::Layouts),
        test!(deep_stack_is_whole).on(On::Every),
        test!(names_that_are_not_ascii).on(On::Every),
    ]
}
