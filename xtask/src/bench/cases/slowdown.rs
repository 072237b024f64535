//! What profilers cost and give: the labyrinth alone, and beside many idle threads.

use anyhow::Result;
use profiler_tests::{Interpreter, Scratch};

use crate::bench::judged::Verdict;
use crate::bench::options::Options;
use crate::bench::pairs::{Comparison, Turn, Turns};
use crate::bench::spread::Spread;
use crate::bench::table::Table;
use crate::bench::tools::Tool;

const HEADER: &[&str] = &[
    "profiler",
    "slowdown, %",
    "CPU, % of a core",
    "memory, MB",
    "got of asked, %",
    "lost by its account, %",
    "torn",
];

/// One busy thread at 1 kHz.
pub fn labyrinth(options: &Options) -> Result<Vec<Table>> {
    let tables = options.some_interpreters()?.into_iter().map(|interpreter| {
        let comparison = Comparison { rate: 1000, ..comparison(options, interpreter) };
        let title = format!("labyrinth, 1 kHz, CPython {}", interpreter.id);
        table_of(title, &comparison, &Tool::for_what_runs(interpreter), 1)
    });
    tables.collect()
}

/// One busy thread and 160 idle ones at 100 Hz, all of them asked for.
pub fn idle_threads(options: &Options) -> Result<Vec<Table>> {
    const IDLE: u32 = 160;
    let shape = ["--idle-threads", &IDLE.to_string()];
    let tables = options.some_interpreters()?.into_iter().map(|interpreter| {
        let usual = comparison(options, interpreter);
        let comparison = Comparison { rate: 100, shape: &shape, all_threads: true, ..usual };
        let title = format!("{IDLE} idle threads beside a busy one, 100 Hz, CPython {}", interpreter.id);
        table_of(title, &comparison, &Tool::for_target(interpreter), IDLE + 1)
    });
    tables.collect()
}

/// 30 threads that all want to run and 240 idle ones beside the main thread, 100 Hz, all of them asked for.
pub fn many_threads(options: &Options) -> Result<Vec<Table>> {
    const THREADS: u32 = 271;
    const TOOLS: [Tool; 4] = [Tool::Bpf, Tool::Pause, Tool::Peek, Tool::PySpy];
    let shape = ["--threads", "30", "--idle-threads", "240"];
    let tables = options.first_interpreter()?.into_iter().map(|interpreter| {
        let usual = comparison(options, interpreter);
        let comparison = Comparison { rate: 100, shape: &shape, all_threads: true, ..usual };
        let title = format!("{THREADS} threads, 30 of them running, 100 Hz, CPython {}", interpreter.id);
        table_of(title, &comparison, &TOOLS, THREADS)
    });
    tables.collect()
}

fn comparison<'a>(options: &Options, interpreter: &'a Interpreter) -> Comparison<'a> {
    Comparison {
        interpreter,
        shape: &[],
        rate: 0,
        all_threads: false,
        window: options.window(),
        repeat: options.repeat(),
    }
}

fn table_of(title: String, comparison: &Comparison, tools: &[Tool], threads: u32) -> Result<Table> {
    let scratch = Scratch::new()?;
    let mut table = Table::new(title, HEADER);
    for turns in comparison.run(tools, &scratch)? {
        table.row(row(&turns, f64::from(comparison.rate), f64::from(threads)));
        if let Some(note) = note(&turns) {
            table.note(note);
        }
    }
    Ok(table)
}

fn row(turns: &Turns, rate: f64, threads: f64) -> Vec<String> {
    let spread = |value: &dyn Fn(&Turn) -> f64| Spread::of(turns.turns.iter().map(value));
    let Some(slowdown) = spread(&|turn| turn.slowdown) else {
        return vec![turns.tool.name().to_owned(), "failed".to_owned()];
    };
    let shown = |value: &dyn Fn(&Turn) -> f64, decimals: usize| {
        spread(value).map_or_else(String::new, |spread| format!("{:.decimals$}", spread.median))
    };
    let mut verdict = Verdict::default();
    turns.turns.iter().for_each(|turn| verdict.add(turn.recorded.verdict.clone()));
    vec![
        turns.tool.name().to_owned(),
        slowdown.times(100.0).to_string(),
        spread(&|turn| turn.cpu).map_or_else(String::new, |cpu| cpu.times(100.0).to_string()),
        shown(&|turn| turn.recorded.ended.usage.most_memory as f64 / 1e6, 1),
        shown(
            &|turn| {
                // Ticks of CPUs are asked for while the target has one, the others for each thread.
                let at_once = if turns.tool == Tool::Bpf { turn.cpu_of_target } else { threads };
                let asked = rate * at_once * turn.recorded.seconds;
                100.0 * turn.recorded.verdict.samples as f64 / asked
            },
            1,
        ),
        shown(&|turn| 100.0 * turn.recorded.lost, 2),
        verdict.shown(),
    ]
}

/// Why a profiler was given up, else our own account of what we did to the target.
fn note(turns: &Turns) -> Option<String> {
    let name = turns.tool.name();
    if let Some(failure) = &turns.failure {
        return Some(format!("{name}: {}", failure.replace('\n', " ")));
    }
    let last = turns.turns.last().filter(|_| turns.tool.is_ours())?;
    let account = last.recorded.ended.said.iter().map(|(_, line)| line.as_str());
    let account: Vec<&str> =
        account.filter(|line| line.contains("Hz asked") || line.starts_with("target ")).collect();
    Some(format!("{name}, last turn: {}", account.join("; ")))
}
