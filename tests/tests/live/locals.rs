//! `dump --locals` and `dump --source` of live processes. Values and parameters are read of stored memory of every
//! interpreter in tier 1; here it is the way from a process to what is printed.

use anyhow::{Context, Result, ensure};
use profiler_tests::account::locals::{LONG, SHORT, Shown, parameters_are_marked, reported};
use profiler_tests::suite::{Case, On, Test};
use profiler_tests::test;
use profiler_tests::{Fixture, Profiler, wait_until_still};
use serde::Deserialize;

const LOCALS: &str = "locals/locals.py";

/// How often a program that runs is looked at.
const LOOKS: usize = 20;

#[derive(Deserialize)]
struct Thread {
    frames: Vec<DumpedFrame>,
}

#[derive(Deserialize)]
struct DumpedFrame {
    name: String,
    locals: Option<Vec<Local>>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Local {
    name: String,
    addr: u64,
    arg: bool,
    repr: Option<String>,
}

impl DumpedFrame {
    fn variables(&self) -> Result<&[Local]> {
        self.locals.as_deref().with_context(|| format!("no variables of {}", self.name))
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.locals.iter().flatten().find(|local| local.name == name)?.repr.as_deref()
    }
}

impl Local {
    fn shown(&self) -> Shown<'_> {
        Shown { name: &self.name, address: self.addr, value: self.repr.as_deref() }
    }
}

fn dumped(fixture: &Fixture, words: &str) -> Result<Vec<DumpedFrame>> {
    let json = Profiler::new("dump").words("--json").words(words).pid(fixture).succeed()?.stdout;
    let threads: Vec<Thread> = serde_json::from_str(&json)?;
    threads.into_iter().next().map(|thread| thread.frames).context("no thread")
}

fn values_and_parameters_agree_with_the_program(case: &Case) -> Result<()> {
    let mut fixture = Fixture::start(case.interpreter, LOCALS, &[])?;
    let reported = reported(&fixture.ask("")?)?;
    wait_until_still(fixture.pid())?;
    for (words, limit) in [("--locals", SHORT), ("-ll", LONG), ("-l --nonblocking", SHORT)] {
        let frames = dumped(&fixture, words)?;
        ensure!(frames.len() == reported.len(), "{} frames, {} reported", frames.len(), reported.len());
        // The innermost frame and the outermost have no variables of their own.
        for (frame, reported) in frames.iter().zip(&reported).skip(1).take(reported.len() - 2) {
            let name = frame.name.rsplit('.').next();
            ensure!(name == Some(&reported.function), "{} instead of {}", frame.name, reported.function);
            let shown = frame.variables()?.iter().map(Local::shown);
            reported.agrees(shown, limit).with_context(|| words.to_owned())?;
        }
        parameters_are_marked(|function| {
            let frame = frames.iter().find(|frame| frame.name == function)?;
            let locals = frame.variables().ok()?.iter();
            Some(locals.map(|local| (local.name.clone(), local.arg)).collect())
        })?;
    }
    Ok(())
}

fn text_is_laid_out_as_py_spy_does(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, LOCALS, &[])?;
    let text = Profiler::new("dump").words("-l").pid(&fixture).succeed()?.stdout;
    let expected = ")\n        Arguments:\n            first: 1\n            second: 3\n";
    ensure!(text.contains(expected), "{text}");
    ensure!(text.contains("\n        Locals:\n            after: 1\n    loses (locals.py:"), "{text}");
    // Nothing of a value commands the terminal.
    ensure!(text.chars().all(|char| char == '\n' || !char.is_control()), "{text:?}");
    ensure!(text.contains(r"escape: '\x1b[31mred\x1b[0m'"), "{text}");
    Ok(())
}

fn source_lines_mark_the_expression_that_runs(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, LOCALS, &[])?;
    let text = Profiler::new("dump").words("--source=always").pid(&fixture).succeed()?.stdout;
    let marked = "        return holds()\n               ^^^^^^^\n    main";
    let expected = if case.interpreter.minor >= 11 { marked } else { "        return holds()\n    main" };
    ensure!(text.contains(expected), "{text}");
    ensure!(text.contains("        stands()\n    loses"), "{text}");
    let plain = Profiler::new("dump").pid(&fixture).succeed()?.stdout;
    ensure!(!plain.contains("sys.stdin"), "not at a terminal: {plain}");
    let frames = dumped(&fixture, "--source")?;
    let source = frames.first().and_then(|frame| frame.source.as_deref());
    ensure!(source == Some("    for _ in sys.stdin:"), "{source:?}");
    Ok(())
}

/// Whenever it is looked at, the list and the number are of the same round, or the frame is between.
const TURNS: &str = "\
import os
def turn(count):
    items = [count, count + 1]
    pair = (count, items)
    return pair
print('ready', os.getpid(), flush=True)
count = 0
while True:
    turn(count)
    count += 1
";

fn variables_of_a_running_program_are_of_one_instant(case: &Case) -> Result<()> {
    let fixture = Fixture::inline(case.interpreter, TURNS)?;
    let mut seen = 0;
    for _ in 0..LOOKS {
        for frame in dumped(&fixture, "-l")?.iter().filter(|frame| frame.name == "turn") {
            frame.variables()?;
            let count: u64 = frame.value("count").context("no count")?.parse()?;
            let items = format!("[{count}, {}]", count + 1);
            let pair = format!("({count}, {items})");
            for (name, expected) in [("items", items), ("pair", pair)] {
                let value = frame.value(name);
                ensure!(value.is_none_or(|value| value == expected), "{name} is {value:?}, not {expected}");
            }
            seen += 1;
        }
    }
    ensure!(seen > 0, "never seen in `turn`");
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(values_and_parameters_agree_with_the_program).on(On::Layouts),
        test!(text_is_laid_out_as_py_spy_does),
        test!(source_lines_mark_the_expression_that_runs).on(On::Layouts),
        test!(variables_of_a_running_program_are_of_one_instant).on(On::Layouts),
    ]
}
