//! Trees of many processes at once: few of them busy, or many of them with several threads each.

use anyhow::Result;
use profiler_tests::{Fixture, Interpreter};

use super::recorded_tree::{RATE, Watched, failed, note, spread, watch};
use crate::bench::options::Options;
use crate::bench::table::Table;
use crate::bench::tools::Tool;

/// A hundred processes, ten of them busy.
pub fn hundred_processes(options: &Options) -> Result<Vec<Table>> {
    const PROCESSES: u32 = 100;
    const BUSY: u32 = 10;
    let seconds: u32 = options.pick(3, 10);
    let mut tables = Vec::new();
    for interpreter in options.first_interpreter()? {
        let title = format!(
            "{PROCESSES} processes in a tree, {BUSY} of them busy, {RATE} Hz each, {seconds} s, CPython {}",
            interpreter.id
        );
        let shape = Shape { arguments: &["idle", &PROCESSES.to_string()], at_once: f64::from(BUSY) };
        let tools = [Tool::Bpf, Tool::Pause, Tool::Peek, Tool::PySpy];
        tables.push(table_of(title, interpreter, shape, &tools, (seconds, options.repeat()))?);
    }
    Ok(tables)
}

/// Fifty processes with four threads each: all of them busy, and all of them at work now and then.
pub fn fleet(options: &Options) -> Result<Vec<Table>> {
    const PROCESSES: u32 = 50;
    let seconds: u32 = options.pick(3, 7);
    let mut tables = Vec::new();
    for interpreter in options.first_interpreter()? {
        for (what, rest, at_once) in
            [("busy", "0", f64::from(PROCESSES)), ("each working 1 ms of 250", "0.25", f64::NAN)]
        {
            let title = format!(
                "{PROCESSES} processes with 4 threads each, {what}, {RATE} Hz each, {seconds} s, CPython {}",
                interpreter.id
            );
            let number = PROCESSES.to_string();
            let shape = Shape { arguments: &["fleet", &number, "--threads", "4", "--rest", rest], at_once };
            let tools = [Tool::Bpf, Tool::Pause, Tool::PySpy];
            tables.push(table_of(title, interpreter, shape, &tools, (seconds, options.repeat()))?);
        }
    }
    Ok(tables)
}

/// What is recorded.
#[derive(Clone, Copy, Debug)]
struct Shape<'a> {
    /// The arguments of the fixture.
    arguments: &'a [&'a str],
    /// How many threads are there to be shown at each instant by who looks at all; not a number where that
    /// changes all the time.
    at_once: f64,
}

fn table_of(
    title: String,
    interpreter: &Interpreter,
    shape: Shape<'_>,
    tools: &[Tool],
    (seconds, repeat): (u32, usize),
) -> Result<Table> {
    let header = ["profiler", "CPU, % of a core", "memory, MB", "got of asked, %", "ran over by, s"];
    let mut table = Table::new(title, &header);
    for &tool in tools {
        let mut turns = Vec::new();
        let mut failure = None;
        for turn in 0..repeat {
            eprintln!("bench: {} of {repeat}: {}", turn + 1, tool.name());
            let fixture = Fixture::start(interpreter, "tree/tree.py", shape.arguments)?;
            match watch(tool, interpreter, &fixture, seconds) {
                Ok(watched) => turns.push(watched),
                Err(error) => failure = Some(error),
            }
        }
        if let Some(error) = failure {
            failed(&mut table, tool, &error);
        } else if let Some(last) = turns.last() {
            let got = |turn: &Watched| {
                // Ticks of CPUs are asked for where these are at work, everything else where a thread wants to be.
                let at_once = if tool == Tool::Bpf { turn.cpu_of_children } else { shape.at_once };
                let got = turn.stacks.count(|stack| stack.contains("work_of_fork")) as f64;
                100.0 * got / (at_once * f64::from(RATE * seconds))
            };
            let is_known = turns.iter().all(|turn| got(turn).is_finite());
            table.row([
                tool.name().to_owned(),
                spread(&turns, |turn| 100.0 * turn.cpu),
                spread(&turns, |turn| turn.ended.usage.most_memory as f64 / 1e6),
                if is_known { spread(&turns, got) } else { String::new() },
                spread(&turns, |turn| turn.overtime),
            ]);
            note(&mut table, tool, &last.ended);
        }
    }
    Ok(table)
}
