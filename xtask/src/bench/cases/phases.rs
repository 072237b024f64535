//! What a sampler costs its target, more exactly than windows of seconds tell on a machine that is not equally fast all
//! the time: it records, and is suspended and goes on in turn every fraction of a second. Only our own can be measured
//! so: when they are suspended by Ctrl-Z they hold nothing of the target, and nothing of theirs ticks on in the kernel.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use profiler_tests::{Fixture, Interpreter, Scratch};

use crate::bench::measured::Measured;
use crate::bench::options::Options;
use crate::bench::pairs::Progress;
use crate::bench::table::Table;
use crate::bench::tools::{Task, Tool};

/// How long the target is watched at a time: longer than the turns of the scheduler, shorter than the machine takes to
/// become faster or slower.
const PHASE: Duration = Duration::from_millis(150);

/// From the signal until the sampler is as it is in a recording that goes on: what it knew of the code objects before it was
/// suspended proves nothing any more, so that its first samples cost more.
const RESUMING: Duration = Duration::from_millis(500);

/// From Ctrl-Z until the sampler is suspended, at most: it looks for that so often.
const SUSPENDING: Duration = Duration::from_millis(60);

/// From its start until it is suspended for the first time.
const SETTLING: Duration = Duration::from_millis(1500);

const RATE: u32 = 1000;

/// Measures.
pub fn run(options: &Options) -> Result<Vec<Table>> {
    let scratch = Scratch::new()?;
    let pairs = options.pick(10, 40 * options.repeat());
    let header = ["CPython", "profiler", "slowdown, %", "pairs of phases, interquartile range"];
    let mut table = Table::new("labyrinth, 1 kHz, in phases", &header);
    for interpreter in options.some_interpreters()? {
        for tool in [Tool::Bpf, Tool::Pause, Tool::Peek] {
            eprintln!("bench: {}: {} in {pairs} pairs of phases", interpreter.id, tool.name());
            let mut slowdowns = measured(interpreter, tool, pairs, &scratch)?;
            slowdowns.sort_by(f64::total_cmp);
            table.row([
                interpreter.id.clone(),
                tool.name().to_owned(),
                median_with_certainty(&slowdowns),
                halves(&slowdowns),
            ]);
        }
    }
    table.note("the median, with its confidence interval at 95 %, whatever the distribution");
    Ok(vec![table])
}

/// By how much each phase with the sampler was slower than those before and after it.
fn measured(interpreter: &Interpreter, tool: Tool, pairs: usize, scratch: &Scratch) -> Result<Vec<f64>> {
    let mut fixture = Fixture::start(interpreter, "labyrinth/labyrinth.py", &[])?;
    let lasts = SETTLING + PHASE + (2 * PHASE + RESUMING + SUSPENDING) * u32::try_from(pairs)?;
    // A tenth more for what comes between the phases.
    let seconds = (lasts.as_secs_f64() * 1.1).ceil() as u32 + 1;
    let task = Task { rate: RATE, seconds, all_threads: false };
    let started = Instant::now();
    let mut recording = tool.record((interpreter, &fixture), task, scratch)?;
    thread::sleep(SETTLING);
    ensure!(recording.process.is_running()?, "it ended too early");
    let slowdowns = in_turn(&recording.process, &mut fixture, pairs);
    // Whatever became of it: what is suspended does not end.
    recording.process.signal(Signal::SIGCONT)?;
    let slowdowns = slowdowns?;
    ensure!(recording.process.is_running()?, "it ended before it was told to");
    recording.process.signal(Signal::SIGINT)?;
    let recorded = recording.finish(started);
    // A recording of `peek` may have proved nothing here.
    if tool != Tool::Peek {
        recorded?;
    }
    Ok(slowdowns)
}

fn in_turn(profiler: &Measured, fixture: &mut Fixture, pairs: usize) -> Result<Vec<f64>> {
    profiler.suspend()?;
    let mut before = speed(fixture)?;
    let mut slowdowns = Vec::with_capacity(pairs);
    for _ in 0..pairs {
        profiler.signal(Signal::SIGCONT)?;
        thread::sleep(RESUMING);
        let with = speed(fixture)?;
        profiler.suspend()?;
        let after = speed(fixture)?;
        slowdowns.push(1.0 - with / ((before + after) / 2.0));
        before = after;
    }
    Ok(slowdowns)
}

/// The target's rounds in a second, from now on.
fn speed(fixture: &mut Fixture) -> Result<f64> {
    let before = Progress::of(fixture).context("the target does not answer")?;
    thread::sleep(PHASE);
    Ok(Progress::of(fixture)?.speed_since(before))
}

/// The median of sorted numbers, between the two whose places in the order are 1.96 standard deviations away from the
/// middle: each number lies above the true median or below it as a coin falls.
fn median_with_certainty(sorted: &[f64]) -> String {
    let count = sorted.len() as f64;
    let away = 1.96 * count.sqrt() / 2.0;
    let at = |place: f64| 100.0 * sorted[(place.round().max(0.0) as usize).min(sorted.len() - 1)];
    let middle = (count - 1.0) / 2.0;
    format!("{:.1} ({:.1} to {:.1})", at(middle), at(middle - away), at(middle + away))
}

/// Between what the middle half of sorted numbers lies.
fn halves(sorted: &[f64]) -> String {
    let at = |part: usize| 100.0 * sorted[(sorted.len() - 1) * part / 4];
    format!("{}: {:.1} to {:.1}", sorted.len(), at(1), at(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_as_certain_as_there_are_numbers() {
        let sorted: Vec<f64> = (0..=100).map(|number| f64::from(number) / 100.0).collect();
        // Of 101 coins, 50 fall on one side, give or take 10 in 95 of a hundred times.
        assert_eq!(median_with_certainty(&sorted), "50.0 (40.0 to 60.0)");
        assert_eq!(halves(&sorted), "101: 25.0 to 75.0");
        assert_eq!(median_with_certainty(&[0.5]), "50.0 (50.0 to 50.0)");
    }
}
