//! How long after its time a recording ends: `-d` counts from the line that says that sampling begins, and the end is the end of
//! the process, the file written. Who waits for both has to share the CPUs as well, so this is the longest that it can have been.

use std::time::Duration;

use anyhow::{Context, Result};
use profiler_tests::{Competitors, Fixture, Interpreter, Profiler, Scratch};

use crate::bench::options::Options;
use crate::bench::table::Table;
use crate::bench::tools::Tool;

/// Samples per second.
const RATES: [u32; 3] = [100, 1000, 100_000];

/// Busy processes beside the target, in all.
const LOADS: [usize; 3] = [0, 20, 200];

/// The duration that is asked for, in seconds.
const ASKED: f64 = 0.5;

/// Measures.
pub fn run(options: &Options) -> Result<Vec<Table>> {
    let mut tables = Vec::new();
    for interpreter in options.some_interpreters()? {
        for tool in [Tool::Bpf, Tool::Pause] {
            tables.push(lateness(interpreter, tool, options)?);
        }
    }
    Ok(tables)
}

/// A row a load, a column a rate: the median and the longest delay.
fn lateness(interpreter: &Interpreter, tool: Tool, options: &Options) -> Result<Table> {
    let title =
        format!("end of `-d {ASKED}` by {}, delay in seconds, CPython {}", tool.name(), interpreter.id);
    let rates = RATES.map(|rate| format!("{rate} Hz"));
    let header: Vec<&str> =
        std::iter::once("busy processes").chain(rates.iter().map(String::as_str)).collect();
    let mut table = Table::new(title, &header);
    for load in LOADS {
        let _load = Competitors::anywhere(load)?;
        let mut row = vec![load.to_string()];
        for rate in RATES {
            eprintln!("bench: {} at {rate} Hz beside {load}", tool.name());
            let delays = (0..options.pick(1, 5)).map(|_| delay(interpreter, tool, rate));
            let mut delays = delays.collect::<Result<Vec<f64>>>()?;
            delays.sort_by(f64::total_cmp);
            let longest = delays.last().context("no recording")?;
            row.push(format!("{:.2} (longest {longest:.2})", delays[delays.len() / 2]));
        }
        table.row(row);
    }
    Ok(table)
}

/// By how much one recording ends too late, in seconds.
fn delay(interpreter: &Interpreter, tool: Tool, rate: u32) -> Result<f64> {
    let scratch = Scratch::new()?;
    let fixture = Fixture::start(interpreter, "labyrinth/labyrinth.py", &[])?;
    let words = format!("-f raw -r {rate} -d {ASKED} {} -o", tool.recording_options().join(" "));
    let mut running =
        Profiler::new("record").words(&words).arg(scratch.file("out.txt")).pid(&fixture).spawn()?;
    let begun = running.wait_until_begun()?;
    running.wait()?;
    Ok((begun.elapsed().saturating_sub(Duration::from_secs_f64(ASKED))).as_secs_f64())
}
