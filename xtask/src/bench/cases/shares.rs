//! Whether sampled shares of CPU time are the true ones, as far as chance lets them be.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use profiler_tests::statistics::{bound, deviations_for, effective_number};
use profiler_tests::{Interpreter, Scratch, expectation, read_speedscope};
use serde_json::Value;

use crate::bench::measured::Measured;
use crate::bench::options::Options;
use crate::bench::table::Table;
use crate::bench::tools::Tool;

/// How much longer than the program's CPU time a run may take: the program gets the CPU only in part.
const OVERTIME: Duration = Duration::from_secs(60);

/// Measures.
pub fn run(options: &Options) -> Result<Vec<Table>> {
    let seconds = options.pick(2, 20);
    let mut tables = Vec::new();
    for interpreter in options.some_interpreters()? {
        let title = format!("shares, {seconds} s of CPU time at 1 kHz, CPython {}", interpreter.id);
        let header = ["profiler", "function", "true share, %", "error", "bound at 99 %"];
        let mut table = Table::new(title, &header);
        for tool in [Tool::Bpf, Tool::Pause, Tool::Peek, Tool::PySpy] {
            eprintln!("bench: {} for {seconds} s", tool.name());
            match compare(interpreter, tool, seconds) {
                Ok(rows) => rows.into_iter().for_each(|row| table.row(row)),
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

/// A row for every function.
fn compare(interpreter: &Interpreter, tool: Tool, seconds: u32) -> Result<Vec<Vec<String>>> {
    let expected = expectation("shares")?;
    let functions = expected["functions"].as_array().context("functions")?;
    let functions: Vec<&str> = functions.iter().filter_map(Value::as_str).collect();
    let (spent, sampled) = record(interpreter, tool, seconds, &functions)?;
    let all: Vec<f64> = sampled.values().flatten().copied().collect();
    let (number, total) = (effective_number(&all), all.iter().sum::<f64>());
    ensure!(number > 100.0, "only {number:.0} effective samples");
    let confidence = expected["confidence"].as_f64().context("confidence")?;
    let deviations = deviations_for((1.0 - confidence) / functions.len() as f64);
    let burnt: f64 = functions.iter().filter_map(|name| spent[*name].as_f64()).sum();
    let row = |name: &&str| {
        let truth = spent[*name].as_f64().with_context(|| (*name).to_owned())? / burnt;
        let share = sampled.get(*name).map_or(0.0, |weights| weights.iter().sum::<f64>()) / total;
        let (error, bound) = (share - truth, bound(truth, number, deviations));
        let broken = if error.abs() > bound { " (outside)" } else { "" };
        Ok(vec![
            tool.name().to_owned(),
            (*name).to_owned(),
            format!("{:.2}", 100.0 * truth),
            format!("{:+.2}{broken}", 100.0 * error),
            format!("{:.2}", 100.0 * bound),
        ])
    };
    functions.iter().map(row).collect()
}

/// What the functions really burnt, and the weights of their samples.
fn record(
    interpreter: &Interpreter,
    tool: Tool,
    seconds: u32,
    functions: &[&str],
) -> Result<(Value, BTreeMap<String, Vec<f64>>)> {
    let scratch = Scratch::new()?;
    let file = scratch.file("shares.json");
    let mut words = tool.words_before(interpreter)?;
    words.extend("record -f speedscope -r 1000".split(' ').map(OsString::from));
    words.extend(tool.recording_options().iter().map(OsString::from));
    words.extend(["-o".into(), file.clone().into(), "--".into()]);
    words.extend(interpreter.fixture_words("shares/shares.py", &["--seconds", &seconds.to_string()]));
    let ended = Measured::start(&words)?.finish(Duration::from_secs(seconds.into()) + OVERTIME)?;
    let account = ended.said.iter().find(|(_, line)| line.starts_with('{'));
    let (_, account) = account.with_context(|| ended.last_words().to_owned())?;
    let account: Value = serde_json::from_str(account)?;
    let mut sampled: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for sample in read_speedscope(&fs::read_to_string(&file)?)? {
        let burner = sample.frames.iter().rev().find(|frame| functions.contains(&frame.plain_name()));
        if let Some(burner) = burner {
            sampled.entry(burner.plain_name().to_owned()).or_default().push(sample.weight);
        }
    }
    Ok((account["spent"].clone(), sampled))
}
