//! Trees of processes: many at once, and many one after the other.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use profiler_tests::{Collapsed, Fixture, Interpreter, Scratch, process_state, tracer_of};

use crate::bench::measured::{Ended, Measured};
use crate::bench::options::Options;
use crate::bench::table::Table;
use crate::bench::tools::Tool;

const RATE: u32 = 100;

/// How much longer than the recording a profiler may take.
const OVERTIME: Duration = Duration::from_secs(20);

/// From a profiler's start until each of them samples.
const SETTLING: Duration = Duration::from_secs(2);

const TOOLS: [Tool; 4] = [Tool::Bpf, Tool::Pause, Tool::Peek, Tool::PySpy];

/// A hundred processes, ten of them busy.
pub fn hundred_processes(options: &Options) -> Result<Vec<Table>> {
    const PROCESSES: u32 = 100;
    let seconds: u32 = options.pick(3, 10);
    let mut tables = Vec::new();
    for interpreter in options.some_interpreters()?.into_iter().take(1) {
        let title = format!(
            "{PROCESSES} processes in a tree, 10 of them busy, {RATE} Hz each, {seconds} s, CPython {}",
            interpreter.id
        );
        let header =
            ["profiler", "CPU, % of a core", "memory, MB", "of the busy: got of asked, %", "ran over by, s"];
        let mut table = Table::new(title, &header);
        for tool in TOOLS {
            let fixture = Fixture::start(interpreter, "tree/tree.py", &["idle", &PROCESSES.to_string()])?;
            let scratch = Scratch::new()?;
            let limit = Duration::from_secs(seconds.into());
            let recorded = start(tool, interpreter, &fixture, &format!("-d {seconds}"), &scratch)
                .and_then(|process| process.finish(limit + OVERTIME))
                .and_then(|ended| Ok((stacks(&ended, &scratch)?, ended)));
            match recorded {
                Ok((profile, ended)) => {
                    let got = profile.count(|stack| stack.contains("work_of_fork"));
                    let asked = PROCESSES / 10 * RATE * seconds;
                    table.row([
                        tool.name().to_owned(),
                        format!("{:.1}", 100.0 * ended.usage.cpu / ended.usage.wall),
                        format!("{:.1}", ended.usage.most_memory as f64 / 1e6),
                        format!("{:.1}", 100.0 * got as f64 / f64::from(asked)),
                        format!("{:.1}", ended.usage.wall - f64::from(seconds)),
                    ]);
                    note(&mut table, tool, &ended);
                }
                Err(error) => failed(&mut table, tool, &error),
            }
        }
        tables.push(table);
    }
    Ok(tables)
}

/// A thousand children, one after the other.
pub fn storm(options: &Options) -> Result<Vec<Table>> {
    let (children, seconds) = options.pick(("200", "2"), ("1000", "10"));
    let mut tables = Vec::new();
    for interpreter in options.some_interpreters()?.into_iter().take(1) {
        let title = format!("{children} children in {seconds} s, {RATE} Hz, CPython {}", interpreter.id);
        let header = ["profiler", "CPU, s", "the storm took, s", "children with samples", "left behind"];
        let mut table = Table::new(title, &header);
        let program = ["storm", children, "--seconds", seconds];
        let mut alone = Fixture::start(interpreter, "tree/tree.py", &program)?;
        table.row(["none", "", &format!("{:.1}", weather(&mut alone)?)]);
        for tool in TOOLS {
            let scratch = Scratch::new()?;
            let mut fixture = Fixture::start(interpreter, "tree/tree.py", &program)?;
            match stormed(tool, interpreter, &mut fixture, &scratch) {
                Ok((took, profile, ended)) => {
                    let in_children = profile.stacks.iter().filter(|stack| stack.contains("short_work"));
                    let seen: BTreeSet<_> = in_children.filter_map(|stack| stack.processes.last()).collect();
                    table.row([
                        tool.name().to_owned(),
                        format!("{:.2}", ended.usage.cpu),
                        format!("{took:.1}"),
                        seen.len().to_string(),
                        left_behind(fixture.pid())?,
                    ]);
                    note(&mut table, tool, &ended);
                }
                Err(error) => failed(&mut table, tool, &error),
            }
        }
        tables.push(table);
    }
    Ok(tables)
}

fn stormed(
    tool: Tool,
    interpreter: &Interpreter,
    fixture: &mut Fixture,
    scratch: &Scratch,
) -> Result<(f64, Collapsed, Ended)> {
    let process = start(tool, interpreter, fixture, "", scratch)?;
    thread::sleep(SETTLING);
    let took = weather(fixture)?;
    let ended = process.finish(Duration::ZERO)?;
    Ok((took, stacks(&ended, scratch)?, ended))
}

/// Has the storm happen; how many seconds it took.
fn weather(fixture: &mut Fixture) -> Result<f64> {
    let began = Instant::now();
    let answer = fixture.ask("go")?;
    ensure!(answer.starts_with("done"), "{answer:?}");
    Ok(began.elapsed().as_secs_f64())
}

fn start(
    tool: Tool,
    interpreter: &Interpreter,
    fixture: &Fixture,
    more: &str,
    scratch: &Scratch,
) -> Result<Measured> {
    let mut words = tool.words_before(interpreter)?;
    let options = format!("record -s -f raw -r {RATE} -p {} {more}", fixture.pid());
    words.extend(options.split_whitespace().map(OsString::from));
    words.extend(tool.recording_options().iter().map(OsString::from));
    words.extend(["-o".into(), scratch.file("out.txt").into()]);
    Measured::start(&words)
}

fn stacks(ended: &Ended, scratch: &Scratch) -> Result<Collapsed> {
    ensure!(ended.usage.success, "{}", ended.last_words());
    Collapsed::parse(&fs::read_to_string(scratch.file("out.txt"))?)
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

/// Our own account, or what a peer complained of.
fn note(table: &mut Table, tool: Tool, ended: &Ended) {
    let said = ended.said.iter().map(|(_, line)| line.as_str());
    let wanted = |line: &&str| match tool.is_ours() {
        true => ["Hz asked", "processes: ", "target stopped"].iter().any(|word| line.contains(word)),
        false => line.contains("behind") || line.contains("rror"),
    };
    let told: Vec<&str> = said.filter(wanted).collect();
    let (first, more) = told.split_at(told.len().min(3));
    if !first.is_empty() {
        let more = if more.is_empty() { String::new() } else { format!(" and {} lines more", more.len()) };
        table.note(format!("{}: {}{more}", tool.name(), first.join("; ")));
    }
}

fn failed(table: &mut Table, tool: Tool, error: &anyhow::Error) {
    table.row([tool.name(), "failed"]);
    table.note(format!("{}: {error:#}", tool.name()));
}
