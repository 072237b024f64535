//! How long a look at a deep stack takes, from the start of the command to its end.

use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};
use profiler_tests::{Fixture, Interpreter};

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
        let walking = Fixture::start(interpreter, "labyrinth/labyrinth.py", &["--deep", &DEEP.to_string()])?;
        let title = format!("dump of the labyrinth behind a corridor {DEEP} deep, CPython {id}");
        tables.push(table(options, interpreter, &walking, title)?);
    }
    Ok(tables)
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
