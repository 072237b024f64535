//! What the live view costs, drawing included, and how soon it answers a key.

use std::ffi::OsString;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use profiler_tests::{Fixture, Terminal, USUAL_SIZE, cpu_nanos, profiler_path};

use crate::bench::options::Options;
use crate::bench::spread::Spread;
use crate::bench::table::Table;

/// The tabs, by their keys.
const TABS: [(&str, &str); 5] =
    [("1", "functions"), ("2", "lines"), ("3", "threads"), ("4", "calls"), ("5", "flame")];

/// Measures.
pub fn run(options: &Options) -> Result<Vec<Table>> {
    let mut tables = Vec::new();
    for interpreter in options.some_interpreters()? {
        let title = format!("top of the labyrinth at 100 Hz, CPython {}", interpreter.id);
        let mut table = Table::new(title, &["tab", "CPU, % of a core", "key to picture, ms"]);
        let fixture = Fixture::start(interpreter, "labyrinth/labyrinth.py", &[])?;
        let mut terminal = open(&fixture)?;
        for (key, tab) in TABS {
            terminal.press(key)?;
            let (cpu, answers) = measure(&mut terminal, options)?;
            let answers = Spread::of(answers).map_or_else(|| "none".to_owned(), |spread| spread.to_string());
            table.row([tab.to_owned(), format!("{cpu:.1}"), answers]);
        }
        terminal.press("q")?;
        terminal.wait()?;
        tables.push(table);
    }
    Ok(tables)
}

fn open(fixture: &Fixture) -> Result<Terminal> {
    let words = format!("top -r 100 --pid {}", fixture.pid());
    let words: Vec<OsString> =
        [profiler_path().into()].into_iter().chain(words.split(' ').map(OsString::from)).collect();
    let terminal = Terminal::start(&words, USUAL_SIZE)?;
    terminal.wait_for_text("_from_")?;
    Ok(terminal)
}

/// The CPU that it uses while nobody presses anything, and the milliseconds from keys to their pictures.
fn measure(terminal: &mut Terminal, options: &Options) -> Result<(f64, Vec<f64>)> {
    let (before, watch) = (cpu_nanos(terminal.pid())?, Instant::now());
    thread::sleep(options.window());
    let used = Duration::from_nanos(cpu_nanos(terminal.pid())? - before);
    let cpu = 100.0 * used.as_secs_f64() / watch.elapsed().as_secs_f64();
    let mut answers = Vec::new();
    for _ in 0..options.pick(3, 20) {
        // The key after which the words "FROZEN" come and go: they are nowhere else.
        for is_frozen in [true, false] {
            let start = Instant::now();
            terminal.press("f")?;
            terminal.wait_for("an answer", |screen| screen.contains("FROZEN") == is_frozen)?;
            answers.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok((cpu, answers))
}
