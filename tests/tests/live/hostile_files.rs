//! Targets whose mapped files are a trap: a pipe is mounted over the path of one. (What is cut short while it is read has a
//! test in `profiler_os::file`.)

use anyhow::{Result, ensure};
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Test};
use profiler_tests::{Fixture, Profiler, Scratch, read_speedscope, test};

const FILES: &str = "hostile/pipe.py";

/// The target is dumped, diagnosed and recorded as if its files were ordinary, and lives on.
fn pipe_over_mapped_file_is_not_opened(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, FILES, &[])?;
    let scratch = Scratch::new()?;
    let dumped = Profiler::new("dump").pid(&fixture).succeed()?;
    ensure!(dumped.stdout.contains("work ("), "no thread in `work`: {}", dumped.stdout);
    let found = Profiler::new("doctor").pid(&fixture).run()?;
    ensure!(found.stdout.contains("Python 3."), "no Python: {}{}", found.stdout, found.stderr);
    let file = scratch.file("out.json");
    let words = format!("-f speedscope -r 200 -d 0.5 -s {} -o", case.sampler_words());
    Profiler::new("record").words(&words).arg(&file).pid(&fixture).succeed()?;
    let samples = read_speedscope(&std::fs::read_to_string(&file)?)?;
    ensure!(samples.iter().any(|sample| sample.has("work")), "`work` was not recorded");
    fixture.finish().map(drop)
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(pipe_over_mapped_file_is_not_opened).on(On::One).by(PAUSE_AND_BPF)]
}
