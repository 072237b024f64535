//! What profilers cost servers under load: requests a second, latency, and CPU time for each request, against the same
//! server right before and right after without a profiler.

use std::ffi::OsString;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use profiler_tests::{Scratch, cpu_nanos, one_interpreter};

use crate::bench::measured::Measured;
use crate::bench::options::Options;
use crate::bench::spread::Spread;
use crate::bench::table::Table;
use crate::bench::tools::Tool;
use crate::servers::{self, Kind, Load, Server};

/// From a profiler's start until it is measured: by then each of them samples.
const SETTLING: Duration = Duration::from_millis(1500);

/// How long a profiler may take to end after it was asked to.
const FAREWELL: Duration = Duration::from_secs(20);

/// Each profiler, and how many samples a second it takes of each process.
const TURNS: [(Tool, u32); 8] = [
    (Tool::Bpf, 100),
    (Tool::Pause, 100),
    (Tool::Peek, 100),
    (Tool::PySpy, 100),
    (Tool::Bpf, 1000),
    (Tool::Pause, 1000),
    (Tool::Peek, 1000),
    (Tool::PySpy, 1000),
];

const HEADER: &[&str] = &[
    "profiler",
    "rate, Hz",
    "requests a second, ratio",
    "server's CPU a request, ratio",
    "median latency, ratio",
    "99th percentile, ratio",
    "worst, ms",
    "profiler's CPU, % of a core",
];

/// One window with a profiler between two without.
#[derive(Clone, Copy, Debug)]
struct Pair {
    before: Load,
    with: Load,
    after: Load,
    /// CPU of the profiler, in cores.
    cpu: f64,
}

impl Pair {
    /// A figure of the window with the profiler, against the mean of those without.
    fn ratio(&self, figure: impl Fn(&Load) -> f64) -> f64 {
        2.0 * figure(&self.with) / (figure(&self.before) + figure(&self.after))
    }
}

/// Measures.
pub fn run(options: &Options) -> Result<Vec<Table>> {
    let environment = servers::prepare()?;
    Kind::ALL.into_iter().map(|kind| of_server(kind, &environment, options)).collect()
}

fn of_server(kind: Kind, environment: &Path, options: &Options) -> Result<Table> {
    let seconds = options.pick(1, 2);
    let mut pairs: Vec<Result<Vec<Pair>>> = TURNS.iter().map(|_| Ok(Vec::new())).collect();
    let mut bare = Vec::new();
    for turn in 1..=options.repeat() {
        // A fresh server each time: its layout in memory has a speed of its own.
        let server = Server::start(kind, environment, &[])?;
        server.load(1)?;
        let mut before = server.load(seconds)?;
        for ((tool, rate), pairs) in TURNS.into_iter().zip(&mut pairs) {
            eprintln!("bench: {turn} of {}: {}, {} at {rate} Hz", options.repeat(), kind.name(), tool.name());
            let with = with_profiler(tool, rate, &server, seconds);
            let after = server.load(seconds)?;
            match (with, pairs.as_mut()) {
                (Ok((with, cpu)), Ok(pairs)) => pairs.push(Pair { before, with, after, cpu }),
                (Err(error), Ok(_)) => *pairs = Err(error),
                (_, Err(_)) => {}
            }
            bare.push(before);
            before = after;
        }
    }
    Ok(table(kind, seconds, &pairs, &bare))
}

/// The load that the server bears while a profiler records it, and the profiler's CPU meanwhile, in cores.
fn with_profiler(tool: Tool, rate: u32, server: &Server, seconds: u32) -> Result<(Load, f64)> {
    let scratch = Scratch::new()?;
    let mut words = tool.words_before(one_interpreter())?;
    let longest = seconds + SETTLING.as_secs_f64().ceil() as u32 + 60;
    let told = format!("record -s -f raw -r {rate} -d {longest} -p {}", server.pid());
    words.extend(told.split(' ').map(OsString::from));
    words.extend(tool.recording_options().iter().map(OsString::from));
    words.extend(["-o".into(), scratch.file("out.txt").into()]);
    let mut profiler = Measured::start(&words)?;
    thread::sleep(SETTLING);
    let used = |profiler: &mut Measured| -> Result<(u64, Instant)> {
        ensure!(profiler.is_running()?, "it ended too early");
        Ok((cpu_nanos(profiler.pid())?, Instant::now()))
    };
    let (cpu, began) = used(&mut profiler)?;
    let load = server.load(seconds)?;
    let (cpu_after, ended) = used(&mut profiler)?;
    profiler.signal(nix::sys::signal::Signal::SIGINT)?;
    profiler.finish(FAREWELL)?;
    Ok((load, (cpu_after - cpu) as f64 / (ended - began).as_nanos() as f64))
}

fn table(kind: Kind, seconds: u32, pairs: &[Result<Vec<Pair>>], bare: &[Load]) -> Table {
    let mut table = Table::new(format!("requests: {}, windows of {seconds} s", kind.name()), HEADER);
    for ((tool, rate), pairs) in TURNS.into_iter().zip(pairs) {
        let name = tool.name().to_owned();
        match pairs {
            Ok(pairs) => table.row(row(name, rate, pairs)),
            Err(error) => {
                table.row([name.clone(), rate.to_string(), "failed".to_owned()]);
                table.note(format!("{name}: {error:#}"));
            }
        }
    }
    let spread = |figure: &dyn Fn(&Load) -> f64| {
        Spread::of(bare.iter().map(figure)).map_or_else(String::new, |spread| spread.to_string())
    };
    table.note(format!(
        "without a profiler: {} requests a second, {} µs of CPU a request, worst latency {} ms",
        spread(&Load::rate),
        spread(&|load| 1e6 * load.cpu_per_request()),
        spread(&|load| load.worst / 1e3),
    ));
    table
}

fn row(name: String, rate: u32, pairs: &[Pair]) -> Vec<String> {
    let spread = |figure: &dyn Fn(&Pair) -> f64, decimals: usize| {
        let spread = Spread::of(pairs.iter().map(figure));
        spread.map_or_else(String::new, |spread| format!("{spread:.decimals$}"))
    };
    vec![
        name,
        rate.to_string(),
        spread(&|pair| pair.ratio(Load::rate), 2),
        spread(&|pair| pair.ratio(Load::cpu_per_request), 2),
        spread(&|pair| pair.ratio(|load| load.median), 2),
        spread(&|pair| pair.ratio(|load| load.p99), 2),
        spread(&|pair| pair.with.worst / 1e3, 0),
        spread(&|pair| 100.0 * pair.cpu, 1),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_is_held_against_the_mean_of_its_neighbours() {
        let load = |requests, cpu| Load {
            requests,
            seconds: 2.0,
            median: 1.0,
            p99: 2.0,
            worst: 3.0,
            failed: 0,
            cpu,
        };
        let pair = Pair { before: load(900, 0.9), with: load(500, 1.0), after: load(1100, 1.1), cpu: 0.1 };
        assert!((pair.ratio(Load::rate) - 0.5).abs() < 1e-9);
        assert!((pair.ratio(Load::cpu_per_request) - 2.0).abs() < 1e-9);
    }
}
