//! How long a look at a deep stack takes, from the start of the command to its end.

use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};
use profiler_tests::{Fixture, Interpreter, Profiler};
use serde_json::Value;

use crate::bench::measured::error_line;
use crate::bench::options::Options;
use crate::bench::spread::Spread;
use crate::bench::table::Table;
use crate::bench::tools::Tool;

/// How deep the labyrinth's corridor is.
const DEEP: usize = 500;

/// A target at rest, as deep as the labyrinth's corridor and with as many different functions: every
/// profiler can show it whole at any time.
const RESTING: &str = "
import sys
sys.setrecursionlimit(2000)
names = {}
for room in range(500):
    exec('def room%d_from_%d(): room%d_from_%d()' % (room + 1, room, room + 2, room + 1), names)
def rest():
    print('ready', flush=True)
    sys.stdin.read()
names['room501_from_500'] = rest
names['room1_from_0']()
";

/// A target that runs, 500 functions deep, each with ten variables: numbers, text, containers of containers; the
/// innermost one has a hundred dictionaries of two hundred entries.
const FULL: &str = "
import sys
sys.setrecursionlimit(2000)
big = [{'k%d' % i: [i, str(i), (i, float(i)), {'x': i, 'y': [1, 2, 3]}] for i in range(200)} for _ in range(100)]
class Plain: pass
names = {'Plain': Plain}
for room in range(500):
    exec('''def room%d_from_%d(depth):
    a = depth; b = float(depth); c = 'text %%d' %% depth; d = [depth, depth + 1, 'x']; e = (depth, {'k': depth})
    f = {'one': 1, 'two': [1, 2, 3], 'three': {'deep': (True, None)}}; g = Plain(); h = b'bytes'; i = {1, 2, depth}
    j = None; room%d_from_%d(depth + 1)
''' % (room + 1, room, room + 2, room + 1), names)
def run(depth):
    mine = big; also = list(big); third = dict(enumerate(big))
    print('ready', flush=True)
    while True: depth = depth + 1 & 0xffff
names['room501_from_500'] = run
names['room1_from_0'](0)
";

/// Measures.
pub fn run(options: &Options) -> Result<Vec<Table>> {
    let mut tables = Vec::new();
    for interpreter in options.some_interpreters()? {
        let id = &interpreter.id;
        let resting = Fixture::inline(interpreter, RESTING)?;
        tables.push(table(
            options,
            interpreter,
            &resting,
            format!("dump of a stack {DEEP} deep at rest, CPython {id}"),
        )?);
        drop(resting);
        let full = Fixture::inline(interpreter, FULL)?;
        tables.push(stops(options, &full, format!("stop of a dump {DEEP} deep that runs, CPython {id}"))?);
        drop(full);
        let walking = Fixture::start(interpreter, "labyrinth/labyrinth.py", &["--deep", &DEEP.to_string()])?;
        let title = format!("dump of the labyrinth behind a corridor {DEEP} deep, CPython {id}");
        tables.push(table(options, interpreter, &walking, title)?);
    }
    Ok(tables)
}

/// What a dump says itself of how long it kept the target standing still, with ever more of its values.
fn stops(options: &Options, target: &Fixture, title: String) -> Result<Table> {
    let columns = ["what is shown", "longest stop, µs", "stops", "no stop needed", "values not read"];
    let mut table = Table::new(title, &columns);
    for (shown, words) in [("stacks", ""), ("values (-l)", "-l"), ("longer values (-llll)", "-llll")] {
        let (mut longest, mut count, mut without, mut unread) = (Vec::new(), 0, 0, 0);
        for _ in 0..options.pick(5, 40) {
            let json = Profiler::new("dump").words("--json").words(words).pid(target).succeed()?.stdout;
            let threads: Value = serde_json::from_str(&json)?;
            let stops = &threads[0]["process_info"]["stops"];
            match stops["count"].as_u64().unwrap_or(0) {
                0 => without += 1,
                some => {
                    count += some;
                    longest.push(stops["longest_ns"].as_f64().unwrap_or(0.0) / 1e3);
                }
            }
            unread += json.matches("<not read>").count() + json.matches("\"repr\": null").count();
        }
        let longest = Spread::of(longest).map_or_else(|| "none".to_owned(), |spread| spread.to_string());
        table.row([shown.to_owned(), longest, count.to_string(), without.to_string(), unread.to_string()]);
    }
    Ok(table)
}

/// The runs of one profiler.
#[derive(Debug)]
struct Runs {
    tool: Tool,
    /// The times of those that met the target at the corridor's end or beyond.
    deep: Vec<f64>,
    /// How many met it on its way through the corridor.
    shallow: usize,
    failures: Vec<String>,
}

/// All profilers in turn; in one turn each is run once.
fn table(options: &Options, interpreter: &Interpreter, target: &Fixture, title: String) -> Result<Table> {
    let mut table = Table::new(title, &["command", "time, ms", "deep", "on the way there", "failed"]);
    let mut all: Vec<Runs> = Tool::for_target(interpreter)
        .into_iter()
        .map(|tool| Runs { tool, deep: Vec::new(), shallow: 0, failures: Vec::new() })
        .collect();
    for _ in 0..options.pick(5, 40) {
        for runs in &mut all {
            match timed(&runs.tool.dump_words(interpreter, target.pid())?) {
                Ok((rooms, millis)) if rooms >= DEEP => runs.deep.push(millis),
                Ok(_) => runs.shallow += 1,
                Err(error) => runs.failures.push(error.to_string()),
            }
        }
    }
    for runs in all {
        let deep = runs.deep.len().to_string();
        let time = Spread::of(runs.deep).map_or_else(|| "none".to_owned(), |spread| spread.to_string());
        let (shallow, failed) = (runs.shallow.to_string(), runs.failures.len().to_string());
        table.row([runs.tool.name().to_owned(), time, deep, shallow, failed]);
        if let Some(failure) = runs.failures.first() {
            table.note(format!("{}: {failure}", runs.tool.name()));
        }
    }
    Ok(table)
}

/// The rooms that a command shows, and its milliseconds.
fn timed(words: &[OsString]) -> Result<(usize, f64)> {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::null());
    let start = Instant::now();
    let output = command.output()?;
    let millis = start.elapsed().as_secs_f64() * 1e3;
    let rooms = String::from_utf8_lossy(&output.stdout).matches("_from_").count();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && rooms > 0, "{}", error_line(said.lines()));
    Ok((rooms, millis))
}
