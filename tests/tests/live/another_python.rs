//! A Python that is not CPython is recognized, named and refused, and runs on.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Result, ensure};
use profiler_tests::suite::{Case, Sampler, Test};
use profiler_tests::{Fixture, Profiler, Scratch, fixture_folder, missing, test};

const PYPY: &str = "pypy3";

/// What the refusal says: what it is, and what could be sampled.
const REFUSAL: [&str; 2] = ["PyPy", "CPython 3.6 to 3.15"];

/// A program that PyPy runs for a quarter of a minute; it is ended before.
fn command() -> Vec<OsString> {
    vec![PYPY.into(), fixture_folder().join("julia/julia.py").into(), "--size".into(), "4000".into()]
}

/// Whether there is a PyPy; reports when there is none.
fn has_pypy() -> bool {
    let is_there = std::process::Command::new(PYPY).arg("--version").output().is_ok();
    if !is_there {
        missing("PyPy, to be refused");
    }
    is_there
}

fn dump_names_pypy_which_runs_on() -> Result<()> {
    if !has_pypy() {
        return Ok(());
    }
    let fixture = Fixture::start_words(&command())?;
    Profiler::new("dump").pid(&fixture).fail(&REFUSAL)?;
    fixture.work_for(Duration::from_millis(50))
}

fn record_names_pypy_which_runs_on(case: &Case) -> Result<()> {
    if !has_pypy() {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let out = scratch.file("out.svg");
    let fixture = Fixture::start_words(&command())?;
    let record = || Profiler::new("record").words(&case.sampler_words()).arg("-o").arg(&out);
    record().pid(&fixture).fail(&REFUSAL)?;
    record().command(&command()).fail(&["PyPy"])?;
    ensure!(!out.exists(), "a picture of a process that was refused");
    fixture.work_for(Duration::from_millis(50))
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(dump_names_pypy_which_runs_on),
        test!(record_names_pypy_which_runs_on).by(&[Sampler::Pause, Sampler::Bpf, Sampler::Peek]),
    ]
}
