//! `dump` as text and as JSON, on every interpreter.

use anyhow::{Context, Result, ensure};
use profiler_tests::labyrinth::{Place, judge};
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    DumpedThread, Fixture, Profiler, dumped_json, dumped_text, every_interpreter, wait_until_others_are_still,
};

const LABYRINTH: &str = "labyrinth/labyrinth.py";

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

fn a_running_program_as_text() {
    every_interpreter(|interpreter| {
        let fixture = Fixture::start(interpreter, LABYRINTH, &[])?;
        let mut deepest = 0;
        for _ in 0..5 {
            let text = Profiler::new("dump").pid(&fixture).succeed()?.stdout;
            let version = format!("Python v3.{}.", interpreter.minor);
            ensure!(text.lines().nth(1).is_some_and(|line| line.starts_with(&version)), "{text}");
            let threads = dumped_text(&text, fixture.pid())?;
            ensure!(threads.len() == 1 && main_thread(&threads)?.active, "{text}");
            deepest = deepest.max(depth(&threads)?);
        }
        ensure!(deepest > 1, "never seen in the maze");
        Ok(())
    });
}

fn a_running_program_as_json() {
    every_interpreter(|interpreter| {
        let fixture = Fixture::start(interpreter, LABYRINTH, &["--idle-threads", "20"])?;
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
    });
}

fn a_deep_stack_is_whole() {
    every_interpreter(|interpreter| {
        let source = "import os, sys\n\
                      def down(left):\n    if left:\n        down(left - 1)\n    else:\n        \
                      print('ready', os.getpid(), flush=True); sys.stdin.readline()\n\
                      down(500)\n";
        let fixture = Fixture::inline(interpreter, source)?;
        let json = Profiler::new("dump").words("--json").pid(&fixture).succeed()?.stdout;
        let depth = dumped_json(&json)?[0].frames.len();
        ensure!(depth == 502, "{depth} frames instead of the module and 501 calls");
        Ok(())
    });
}

fn names_that_are_not_ascii() {
    every_interpreter(|interpreter| {
        let source = "import os, sys\n\
                      def gr\u{fc}\u{df}e():\n    def \u{540d}\u{524d}():\n        \
                      print('ready', os.getpid(), flush=True); sys.stdin.readline()\n    \u{540d}\u{524d}()\n\
                      gr\u{fc}\u{df}e()\n";
        let fixture = Fixture::inline(interpreter, source)?;
        let threads = dumped_json(&Profiler::new("dump").words("--json").pid(&fixture).succeed()?.stdout)?;
        let names: Vec<&str> = threads[0].frames.iter().map(|frame| frame.plain_name()).collect();
        ensure!(names.contains(&"\u{540d}\u{524d}") && names.contains(&"gr\u{fc}\u{df}e"), "{names:?}");
        Ok(())
    });
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(a_running_program_as_text),
        test!(a_running_program_as_json),
        test!(a_deep_stack_is_whole),
        test!(names_that_are_not_ascii),
    ]
}
