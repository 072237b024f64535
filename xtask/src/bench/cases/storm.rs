//! A storm of short-lived processes, one after the other.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use profiler_tests::{Fixture, Interpreter, Scratch, process_state, tracer_of};

use super::recorded_tree::{RATE, SETTLING, failed, note, spread, stacks, start};
use crate::bench::measured::Ended;
use crate::bench::options::Options;
use crate::bench::table::Table;
use crate::bench::tools::Tool;

const TOOLS: [Tool; 4] = [Tool::Bpf, Tool::Pause, Tool::Peek, Tool::PySpy];

/// One turn of a profiler.
#[derive(Debug)]
struct Turn {
    storm: f64,
    children_seen: usize,
    left_behind: String,
    ended: Ended,
}

/// A thousand children, one after the other.
pub fn run(options: &Options) -> Result<Vec<Table>> {
    let (children, seconds) = options.pick(("200", "2"), ("1000", "10"));
    let program = ["storm", children, "--seconds", seconds];
    let mut tables = Vec::new();
    for interpreter in options.first_interpreter()? {
        let title = format!("{children} children in {seconds} s, {RATE} Hz, CPython {}", interpreter.id);
        let header = ["profiler", "CPU, s", "the storm took, s", "children with samples", "left behind"];
        let mut table = Table::new(title, &header);
        let mut alone = Fixture::start(interpreter, "tree/tree.py", &program)?;
        table.row(["none", "", &format!("{:.1}", weather(&mut alone)?)]);
        for tool in TOOLS {
            match turns(tool, interpreter, &program, options.repeat()) {
                Ok(turns) => {
                    let left: BTreeSet<&str> = turns.iter().map(|turn| turn.left_behind.as_str()).collect();
                    table.row([
                        tool.name().to_owned(),
                        spread(&turns, |turn| turn.ended.usage.cpu),
                        spread(&turns, |turn| turn.storm),
                        spread(&turns, |turn| turn.children_seen as f64),
                        left.into_iter().collect::<Vec<_>>().join("; "),
                    ]);
                    turns.last().into_iter().for_each(|last| note(&mut table, tool, &last.ended));
                }
                Err(error) => failed(&mut table, tool, &error),
            }
        }
        tables.push(table);
    }
    Ok(tables)
}

fn turns(tool: Tool, interpreter: &Interpreter, program: &[&str], repeat: usize) -> Result<Vec<Turn>> {
    let mut turns = Vec::new();
    for number in 1..=repeat {
        eprintln!("bench: {number} of {repeat}: {}", tool.name());
        let mut fixture = Fixture::start(interpreter, "tree/tree.py", program)?;
        turns.push(turn(tool, interpreter, &mut fixture)?);
    }
    Ok(turns)
}

fn turn(tool: Tool, interpreter: &Interpreter, fixture: &mut Fixture) -> Result<Turn> {
    let scratch = Scratch::new()?;
    let process = start(tool, interpreter, fixture, "", &scratch)?;
    thread::sleep(SETTLING);
    let storm = weather(fixture)?;
    let ended = process.finish(Duration::ZERO)?;
    let profile = stacks(&ended, &scratch)?;
    let in_children = profile.stacks.iter().filter(|stack| stack.contains("short_work"));
    let seen: BTreeSet<_> = in_children.filter_map(|stack| stack.processes.last()).collect();
    Ok(Turn { storm, children_seen: seen.len(), left_behind: left_behind(fixture.pid())?, ended })
}

/// Has the storm happen; how many seconds it took.
fn weather(fixture: &mut Fixture) -> Result<f64> {
    let began = Instant::now();
    let answer = fixture.ask("go")?;
    ensure!(answer.starts_with("done"), "{answer:?}");
    Ok(began.elapsed().as_secs_f64())
}

/// What of a profiler is left in the process and its children.
fn left_behind(pid: u32) -> Result<String> {
    let mut left = Vec::new();
    let state = process_state(pid)?;
    if matches!(state, 'T' | 't') || tracer_of(pid)? != 0 {
        left.push(format!("state {state}"));
    }
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().count();
    if children > 0 {
        left.push(format!("{children} children"));
    }
    Ok(if left.is_empty() { "nothing".to_owned() } else { left.join(", ") })
}
