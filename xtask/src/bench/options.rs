//! What the benchmark is asked for on the command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use profiler_tests::{Interpreter, interpreters, one_interpreter};

use super::cases::Case;

/// What `cargo xtask bench --help` prints.
pub const HELP: &str = "\
Runs py-spy, CPython's own sampler and ours in turn on the same fixtures and prints ratios.

  cargo xtask bench [OPTIONS] [CASE...]

Cases (all of them when none is named):
  labyrinth   slowdown, CPU, lost and torn at 1 kHz, all profilers
  phases      slowdown at 1 kHz, ours, suspended and sampling in turn every 150 ms
  matrix      lost and torn at 100 Hz, 1 kHz and 10 kHz on every interpreter, ours
  threads     160 idle threads beside a busy one, 100 Hz, all threads
  many_threads  271 threads, 30 of them running, 100 Hz, all threads
  tree        100 processes in a tree, 10 of them busy, 100 Hz each
  fleet       50 processes with 4 threads each, 100 Hz each, busy and at work now and then
  storm       1,000 children in 10 s, each living for some milliseconds, 100 Hz
  dump        the time of `dump` on a stack 500 deep
  memory      resident memory of `record` on the labyrinth
  shares      sampled shares of CPU time against the true ones
  lockstep    the same of programs that do things at even intervals, at many rates
  ending      how long after its time `-d` ends, at many rates, on an idle and a crowded machine
  top         CPU of `top` on the labyrinth at 100 Hz, and the time from a key to its picture
  in_kernel   how long the in-kernel program holds up a thread, by depth of its stack, at 1 kHz
  requests    requests a second, CPU a request and latency of web servers under load, 100 Hz and 1 kHz

Options:
  --quick             short and few: to try the benchmark, not to believe it
  --repeat N          turns of each profiler [default: 5]
  --python VERSION    interpreters of the targets, such as 3.11 or 3.13,3.15, where a case has few of them
                      [default: the newest outside a root folder, and the newest with a sampler of its own;
                      many_threads, tree, fleet and storm take the first of them alone]
  --markdown PATH     also put the tables into this file, in place of those of the same cases; in a folder,
                      such as docs/benchmarks/results, into the files that have tables of these cases
";

/// The options.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The cases, in order.
    pub cases: Vec<Case>,
    /// The file or folder that the tables are put into, if any.
    pub markdown: Option<PathBuf>,
    quick: bool,
    repeat: Option<usize>,
    python: Option<String>,
}

impl Options {
    /// Reads the command line; `None` when help is wanted.
    pub fn parse(arguments: &[String]) -> Result<Option<Self>> {
        let mut options = Options::default();
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "--help" | "-h" => return Ok(None),
                "--quick" => options.quick = true,
                "--repeat" => options.repeat = Some(value()?.parse().context("--repeat")?),
                "--python" => options.python = Some(value()?.clone()),
                "--markdown" => options.markdown = Some(value()?.into()),
                name => match Case::ALL.into_iter().find(|case| case.name() == name) {
                    Some(case) => options.cases.push(case),
                    None => bail!("no case {name:?}; `cargo xtask bench --help` lists them"),
                },
            }
        }
        ensure!(options.repeat != Some(0), "--repeat must be at least 1");
        if options.cases.is_empty() {
            options.cases = Case::ALL.to_vec();
        }
        Ok(Some(options))
    }

    /// How often each profiler takes its turn.
    pub fn repeat(&self) -> usize {
        self.repeat.unwrap_or(if self.quick { 1 } else { 5 })
    }

    /// How long a target is watched at a time.
    pub fn window(&self) -> Duration {
        Duration::from_secs(if self.quick { 1 } else { 4 })
    }

    /// One of two values, by whether speed matters more.
    pub fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// The interpreters for a case that does not need them all.
    pub fn some_interpreters(&self) -> Result<Vec<&'static Interpreter>> {
        let Some(python) = &self.python else {
            let newest = interpreters().last().context("no interpreter found")?;
            let mut some = vec![one_interpreter()];
            if newest.id != some[0].id {
                some.push(newest);
            }
            return Ok(some);
        };
        python.split(',').map(|version| named(version)).collect()
    }

    /// The first of these, for a case that takes long; all that were asked for by name.
    pub fn first_interpreter(&self) -> Result<Vec<&'static Interpreter>> {
        let mut some = self.some_interpreters()?;
        if self.python.is_none() {
            some.truncate(1);
        }
        Ok(some)
    }

    /// All interpreters, or those that were asked for.
    pub fn all_interpreters(&self) -> Result<Vec<&'static Interpreter>> {
        match &self.python {
            None => Ok(interpreters().iter().collect()),
            Some(_) => self.some_interpreters(),
        }
    }
}

/// The interpreter of this id or version.
fn named(version: &str) -> Result<&'static Interpreter> {
    let minor: Option<u32> = version.strip_prefix("3.").and_then(|minor| minor.parse().ok());
    let mut found = interpreters().iter();
    let exact = found.clone().find(|interpreter| interpreter.id == version);
    exact.or_else(|| found.find(|interpreter| Some(interpreter.minor) == minor)).with_context(|| {
        let known: Vec<&str> = interpreters().iter().map(|interpreter| interpreter.id.as_str()).collect();
        format!("no interpreter {version:?} here, but {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Options>> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn cases_and_options() {
        let options = parse("dump --quick --repeat 3 shares").unwrap().unwrap();
        assert_eq!(options.cases, [Case::Dump, Case::Shares]);
        assert_eq!((options.repeat(), options.window()), (3, Duration::from_secs(1)));
        assert_eq!(parse("").unwrap().unwrap().cases, Case::ALL);
        assert!(parse("--help").unwrap().is_none());
    }

    #[test]
    fn what_is_unknown_is_refused() {
        for line in ["--repeat", "--repeat 0", "--repeat x", "speed", "--fast"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
