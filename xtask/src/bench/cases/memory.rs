//! The memory that `record` needs at most, with what it writes unless told otherwise, in a whole run.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Result, ensure};
use profiler_tests::{Fixture, Interpreter, Scratch};

use crate::bench::measured::{Ended, Measured};
use crate::bench::options::Options;
use crate::bench::table::Table;
use crate::bench::tools::Tool;

/// How much longer than the recording a profiler may take.
const OVERTIME: Duration = Duration::from_secs(10);

/// Measures.
pub fn run(options: &Options) -> Result<Vec<Table>> {
    let seconds = options.pick(3, 60);
    let scratch = Scratch::new()?;
    let mut tables = Vec::new();
    for interpreter in options.some_interpreters()?.into_iter().take(1) {
        let title =
            format!("record of the labyrinth, {seconds} s at 1 kHz, flame graph, CPython {}", interpreter.id);
        let mut table =
            Table::new(title, &["profiler", "memory at most, MB", "CPU of the whole run, % of a core"]);
        let tools = [Tool::Bpf, Tool::Pause, Tool::Peek, Tool::PySpy];
        for tool in tools {
            eprintln!("bench: {} for {seconds} s", tool.name());
            match record(interpreter, tool, seconds, &scratch) {
                Ok(ended) => table.row([
                    tool.name().to_owned(),
                    format!("{:.1}", ended.usage.most_memory as f64 / 1e6),
                    format!("{:.1}", 100.0 * ended.usage.cpu / ended.usage.wall),
                ]),
                Err(error) => {
                    table.row([tool.name(), "failed"]);
                    table.note(format!("{}: {error:#}", tool.name()));
                }
            }
        }
        tables.push(table);
    }
    Ok(tables)
}

fn record(interpreter: &Interpreter, tool: Tool, seconds: u32, scratch: &Scratch) -> Result<Ended> {
    let fixture = Fixture::start(interpreter, "labyrinth/labyrinth.py", &[])?;
    let mut words = tool.words_before(interpreter)?;
    let options = format!("record -r 1000 -d {seconds} -p {}", fixture.pid());
    words.extend(options.split(' ').map(OsString::from));
    words.extend(tool.recording_options().iter().map(OsString::from));
    words.extend(["-o".into(), scratch.file("flame.svg").into()]);
    let ended = Measured::start(&words)?.finish(Duration::from_secs(seconds.into()) + OVERTIME)?;
    ensure!(ended.usage.success, "{}", ended.last_words());
    Ok(ended)
}
