//! Whether samples are true and complete at every rate, on every interpreter: ours only.

use std::time::Instant;

use anyhow::{Context, Result};
use profiler_tests::{Fixture, Interpreter, Scratch};

use crate::bench::judged::Verdict;
use crate::bench::options::Options;
use crate::bench::table::Table;
use crate::bench::tools::{Task, Tool};

/// The samples that are taken on every interpreter at the highest rate, but by `peek`.
const ENOUGH: u64 = 100_000;

/// The most recordings for that, so that a machine which does not keep up comes to an end.
const MOST_RECORDINGS: usize = 5;

/// Sampler, rate, and how long for a quick look and for good. At 10 kHz nearly every second instant of `pause` passes while
/// the thread still stands where it was captured, so that for as many captures it takes nearly twice as long.
const RUNS: &[(Tool, u32, u32, u32)] = &[
    (Tool::Bpf, 100, 1, 5),
    (Tool::Bpf, 1_000, 1, 5),
    (Tool::Bpf, 10_000, 1, 12),
    (Tool::Pause, 100, 1, 5),
    (Tool::Pause, 1_000, 1, 5),
    (Tool::Pause, 10_000, 1, 20),
    (Tool::Peek, 100, 1, 5),
    (Tool::Peek, 1_000, 1, 5),
    (Tool::Peek, 10_000, 1, 5),
];

/// Measures.
pub fn run(options: &Options) -> Result<Vec<Table>> {
    let scratch = Scratch::new()?;
    let header = ["CPython", "sampler", "rate, Hz", "got of asked, %", "lost by its account, %", "torn"];
    let mut table = Table::new("labyrinth on every interpreter", &header);
    for interpreter in options.all_interpreters()? {
        for &(tool, rate, quick, full) in RUNS {
            let task = Task { rate, seconds: options.pick(quick, full), all_threads: false };
            let enough = if tool != Tool::Peek && rate == 10_000 { options.pick(0, ENOUGH) } else { 0 };
            eprintln!("bench: {}: {} at {rate} Hz", interpreter.id, tool.name());
            let cells = match record(interpreter, tool, task, enough, &scratch) {
                Ok(found) => found.cells(rate),
                Err(error) => {
                    table.note(format!("CPython {}, {}, {rate} Hz: {error:#}", interpreter.id, tool.name()));
                    ["failed".to_owned(), String::new(), String::new()]
                }
            };
            let mut row = vec![interpreter.id.clone(), tool.name().to_owned(), rate.to_string()];
            row.extend(cells);
            table.row(row);
        }
    }
    Ok(vec![table])
}

/// What some recordings of one kind came to.
#[derive(Debug, Default)]
struct Found {
    verdict: Verdict,
    seconds: f64,
    attempts: f64,
    lost: f64,
}

impl Found {
    fn cells(&self, rate: u32) -> [String; 3] {
        let asked = f64::from(rate) * self.seconds;
        [
            format!("{:.1}", 100.0 * self.verdict.samples as f64 / asked),
            format!("{:.3}", 100.0 * self.lost / self.attempts.max(1.0)),
            self.verdict.shown(),
        ]
    }
}

/// Records until there are enough samples.
fn record(
    interpreter: &Interpreter,
    tool: Tool,
    task: Task,
    enough: u64,
    scratch: &Scratch,
) -> Result<Found> {
    let mut found = Found::default();
    for _ in 0..MOST_RECORDINGS {
        let fixture = Fixture::start(interpreter, "labyrinth/labyrinth.py", &[])?;
        let started = Instant::now();
        let recorded = tool.record((interpreter, &fixture), task, scratch)?.finish(started)?;
        fixture.finish().context("the walk did not go on")?;
        let samples = recorded.verdict.samples as f64;
        let attempts = samples / (1.0 - recorded.lost).max(f64::MIN_POSITIVE);
        found.seconds += recorded.seconds;
        found.attempts += attempts;
        found.lost += attempts - samples;
        found.verdict.add(recorded.verdict);
        if found.verdict.samples >= enough {
            break;
        }
    }
    Ok(found)
}
