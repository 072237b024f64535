//! How long the in-kernel program holds up the thread that it samples: on stacks of known depth, by its own clock.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use profiler_tests::{Fixture, Interpreter, Scratch};

use crate::bench::measured::Measured;
use crate::bench::options::Options;
use crate::bench::spread::Spread;
use crate::bench::table::Table;
use crate::bench::tools::{Tool, interrupted};

/// The depths of the stacks, in frames.
const DEPTHS: [u32; 5] = [3, 12, 100, 200, 500];

/// Between these, growth is linear.
const GROWTH: [u32; 2] = [12, 500];

/// How much longer than the recording a profiler may take.
const OVERTIME: Duration = Duration::from_secs(10);

/// Sleeps never: descends so deep, and runs there until stdin is closed.
const PROGRAM: &str = "\
import os, select, sys
sys.setrecursionlimit(10000)
def descend(depth):
    if depth > 0:
        return descend(depth - 1)
    print('ready %d' % os.getpid(), flush=True)
    while not select.select([0], [], [], 0)[0]:
        for _ in range(10000):
            pass
descend(DEPTH)
";

/// Measures.
pub fn run(options: &Options) -> Result<Vec<Table>> {
    let seconds = options.pick(1, 4);
    let scratch = Scratch::new()?;
    let mut tables = Vec::new();
    for interpreter in options.some_interpreters()? {
        let title = format!("in-kernel time per sample, 1 kHz, CPython {}", interpreter.id);
        let mut table = Table::new(title, &["depth, frames", "time per sample, µs"]);
        let mut medians = Vec::new();
        for depth in DEPTHS {
            let times: Vec<f64> = (0..options.repeat())
                .map(|_| mean_time(interpreter, depth, seconds, &scratch))
                .collect::<Result<_>>()?;
            let spread = Spread::of(times).context("no turns")?;
            medians.push((depth, spread.median));
            table.row([depth.to_string(), spread.times(1e6).to_string()]);
        }
        let at = |wanted| medians.iter().find(|(depth, _)| *depth == wanted).map_or(0.0, |(_, time)| *time);
        let growth = (at(GROWTH[1]) - at(GROWTH[0])) / f64::from(GROWTH[1] - GROWTH[0]);
        table.note(format!("from {} to {} frames: {:.3} µs a frame", GROWTH[0], GROWTH[1], growth * 1e6));
        tables.push(table);
    }
    Ok(tables)
}

/// The mean time of a sample on a stack so deep, in seconds.
fn mean_time(interpreter: &Interpreter, depth: u32, seconds: u32, scratch: &Scratch) -> Result<f64> {
    // The module is a frame as well, and so is the one at the bottom.
    let source = PROGRAM.replace("DEPTH", &depth.saturating_sub(2).to_string());
    let fixture = Fixture::inline(interpreter, &source)?;
    let mut words = Tool::Bpf.words_before(interpreter)?;
    let options = format!("record -f raw -r 1000 -d {seconds} -p {}", fixture.pid());
    words.extend(options.split(' ').map(OsString::from));
    words.extend(Tool::Bpf.recording_options().iter().map(OsString::from));
    words.extend(["-o".into(), scratch.file("out.txt").into()]);
    let ended = Measured::start(&words)?.finish(Duration::from_secs(seconds.into()) + OVERTIME)?;
    ensure!(ended.usage.success, "{}", ended.last_words());
    interrupted(&ended.text()).with_context(|| ended.text())
}
