//! `cargo xtask soak`: what takes too long for every run of the tests, or fails by chance once in some hundred runs: kills by
//! the hundred, storms of threads and processes, 100 kHz, ten thousand threads, CPU hotplug, all tables on all
//! interpreters, a production host, long fuzzing, other kernels. It ends by itself after the time that it is given.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use profiler_tests::suite::Tier;

use crate::prepare::Options;
use crate::test::{Runner, prepare_and_build};
use crate::{fuzz, kernels, production};

/// How long it takes without `--minutes`.
const DEFAULT_MINUTES: f64 = 20.0;

/// How long one soak test loops, at most: the variable that they read.
const SECONDS_VARIABLE: &str = "PROFILER_TESTS_SOAK_SECONDS";

/// The parts, each with its share of the time.
const PARTS: [(&str, f64); 4] = [("tests", 0.4), ("production", 0.2), ("fuzz", 0.2), ("kernels", 0.2)];

/// Runs the parts that are named, or all of them.
pub fn run(arguments: &[String]) -> Result<()> {
    let (minutes, parts, words) = options(arguments)?;
    let prepare = Options::parse(arguments);
    prepare_and_build(&prepare)?;
    let shares: f64 = parts.iter().map(|(_, share)| share).sum();
    let start = Instant::now();
    let mut failed = Vec::new();
    for (part, share) in parts {
        let time = Duration::from_secs_f64(60.0 * minutes * share / shares);
        eprintln!("xtask: soak: {part} for {:.0} s", time.as_secs_f64());
        let result = match part {
            "tests" => tests(&prepare, time, &words),
            "production" => production::run(time, &words),
            "fuzz" => fuzz::run(&["--seconds".to_owned(), time.as_secs().max(1).to_string()]),
            _ => kernels::run_until(Instant::now() + time),
        };
        if let Err(error) = result {
            eprintln!("xtask: soak: {part}: {error:#}");
            failed.push(part);
        }
    }
    eprintln!("xtask: soak: {:.0} s", start.elapsed().as_secs_f64());
    ensure!(failed.is_empty(), "{} failed", failed.join(" and "));
    Ok(())
}

/// A part and its share of the time.
type Part = (&'static str, f64);

/// The minutes, the parts and the words that choose among the tests.
fn options(arguments: &[String]) -> Result<(f64, Vec<Part>, Vec<String>)> {
    let (mut minutes, mut parts, mut words) = (DEFAULT_MINUTES, Vec::new(), Vec::new());
    let mut arguments = arguments.iter();
    while let Some(word) = arguments.next() {
        if let Some(part) = PARTS.iter().find(|(name, _)| name == word) {
            parts.push(*part);
            continue;
        }
        match word.as_str() {
            "--no-skip" => {}
            "--minutes" => {
                let number = arguments.next().context("--minutes: expected a number")?;
                minutes = number.parse().with_context(|| format!("--minutes {number}: expected a number"))?;
            }
            flag if flag.starts_with('-') => bail!("no option {flag}; `cargo xtask help` lists them"),
            name => words.push(name.to_owned()),
        }
    }
    Ok((minutes, if parts.is_empty() { PARTS.to_vec() } else { parts }, words))
}

/// Runs the soak tests again and again until the time is over; each loops for a part of it.
fn tests(prepare: &Options, time: Duration, words: &[String]) -> Result<()> {
    let end = Instant::now() + time;
    let mut runner = Runner::new(prepare.no_skip)?;
    let mut rounds = 0;
    while rounds == 0 || Instant::now() < end {
        let left = end.saturating_duration_since(Instant::now());
        runner.set(SECONDS_VARIABLE, (left.as_secs() / 10).clamp(1, 60).to_string());
        ensure!(runner.run_for(Tier::Soak, words, left.max(Duration::from_secs(60)))?, "round {rounds}");
        rounds += 1;
    }
    eprintln!("xtask: soak: {rounds} rounds of the tests");
    Ok(())
}
