//! Whether a sampler keeps step with its target: a program that goes through five functions in cycles of an even length, from
//! a quarter of a millisecond to twenty, at rates from 100 Hz to 10 kHz.

use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use profiler_tests::{Interpreter, Scratch, expectation, read_speedscope};
use serde_json::Value;

use crate::bench::measured::Measured;
use crate::bench::options::Options;
use crate::bench::table::Table;
use crate::bench::tools::Tool;

/// The lengths of cycles, in milliseconds.
const CYCLES: [&str; 8] = ["0.25", "0.5", "1", "2", "2.03", "4", "10", "20"];

/// Samples per second.
const RATES: [u32; 5] = [100, 500, 1000, 2000, 10_000];

/// How much longer than the program's CPU time a run may take.
const OVERTIME: Duration = Duration::from_secs(60);

/// A share of which so few samples stand is known to a few hundredths only.
const SAMPLES: u32 = 4000;

/// Measures.
pub fn run(options: &Options) -> Result<Vec<Table>> {
    let mut tables = Vec::new();
    for interpreter in options.some_interpreters()? {
        for tool in [Tool::Bpf, Tool::Pause, Tool::PySpy] {
            tables.push(grid(interpreter, tool, options)?);
        }
    }
    Ok(tables)
}

/// A row a cycle, a column a rate: the largest error of a share, in standard deviations of as many independent samples.
fn grid(interpreter: &Interpreter, tool: Tool, options: &Options) -> Result<Table> {
    let title = format!(
        "cycles by {}, largest error in standard deviations, CPython {}",
        tool.name(),
        interpreter.id
    );
    let rates = RATES.map(|rate| format!("{rate} Hz"));
    let header: Vec<&str> = std::iter::once("cycle, ms").chain(rates.iter().map(String::as_str)).collect();
    let mut table = Table::new(title, &header);
    for cycle in CYCLES {
        let mut row = vec![cycle.to_owned()];
        for rate in RATES {
            let seconds = (SAMPLES / rate).clamp(options.pick(1, 3), options.pick(4, 40));
            eprintln!("bench: {} at {rate} Hz, {cycle} ms, for {seconds} s", tool.name());
            row.push(match largest_error(interpreter, tool, cycle, rate, seconds) {
                Ok((deviations, points)) => format!("{deviations:.1} ({points:.1} points)"),
                Err(error) => {
                    table.note(format!("{cycle} ms at {rate} Hz: {error:#}"));
                    "failed".to_owned()
                }
            });
        }
        table.row(row);
    }
    Ok(table)
}

/// The largest error of a function's share: in standard deviations, and in hundredths.
fn largest_error(
    interpreter: &Interpreter,
    tool: Tool,
    cycle: &str,
    rate: u32,
    seconds: u32,
) -> Result<(f64, f64)> {
    let functions: Vec<String> = serde_json::from_value(expectation("amounts")?["cycles"].clone())?;
    let part = format!("cycle_{cycle}ms");
    let (account, samples) = record(interpreter, tool, rate, seconds, &part)?;
    let sampled = |name: &str| -> f64 {
        samples.iter().filter(|sample| sample.has(name)).map(|sample| sample.weight).sum()
    };
    let counted = |name: &str| account[&part][name].as_f64().with_context(|| name.to_owned());
    let all: f64 = functions.iter().map(|name| sampled(name)).sum();
    let burnt = functions.iter().map(|name| counted(name)).sum::<Result<f64>>()?;
    let number = f64::from(rate) * burnt;
    ensure!(all > 0.0, "nothing was sampled");
    let (mut deviations, mut points) = (0.0f64, 0.0f64);
    for name in &functions {
        let (truth, share) = (counted(name)? / burnt, sampled(name) / all);
        let error = (share - truth).abs();
        deviations = deviations.max(error / (truth * (1.0 - truth) / number).sqrt());
        points = points.max(100.0 * error);
    }
    Ok((deviations, points))
}

/// The account of the program and its samples.
fn record(
    interpreter: &Interpreter,
    tool: Tool,
    rate: u32,
    seconds: u32,
    part: &str,
) -> Result<(Value, Vec<profiler_tests::WeightedSample>)> {
    let scratch = Scratch::new()?;
    let file = scratch.file("cycles.json");
    let mut words = tool.words_before(interpreter)?;
    words.extend(format!("record -f speedscope -r {rate}").split(' ').map(OsString::from));
    words.extend(tool.recording_options().iter().map(OsString::from));
    words.extend(["-o".into(), file.clone().into(), "--".into()]);
    words.extend(interpreter.fixture_words("amounts/amounts.py", &[&format!("{part}={seconds}")]));
    let ended = Measured::start(&words)?.finish(Duration::from_secs(seconds.into()) + OVERTIME)?;
    let account = ended.said.iter().find(|(_, line)| line.starts_with('{'));
    let (_, account) = account.with_context(|| ended.last_words().to_owned())?;
    Ok((serde_json::from_str(account)?, read_speedscope(&fs::read_to_string(&file)?)?))
}
