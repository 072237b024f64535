//! A Python that is not CPython: it is told from CPython, named, and left alone.

use std::ffi::OsString;
use std::time::Duration;

use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{Fixture, Profiler, Scratch, fixture_folder, missing};

const PYPY: &str = "pypy3";

fn pypy_is_named_and_refused_and_goes_on() {
    let words: Vec<OsString> = vec![
        PYPY.into(),
        fixture_folder().join("julia/julia.py").into(),
        // A quarter of a minute by PyPy; it is ended before.
        "--size".into(),
        "4000".into(),
    ];
    if std::process::Command::new(PYPY).arg("--version").output().is_err() {
        missing("PyPy, to be refused");
        return;
    }
    let scratch = Scratch::new().unwrap();
    let out = scratch.file("out.svg");
    let fixture = Fixture::start_words(&words).unwrap();
    Profiler::new("dump").pid(&fixture).fail(&["PyPy", "CPython 3.6 to 3.15"]).unwrap();
    for sampler in ["pause", "bpf", "auto"] {
        let record = Profiler::new("record").words(&format!("-d 1 --sampler {sampler} -o"));
        record.arg(&out).pid(&fixture).fail(&["PyPy", "CPython 3.6 to 3.15"]).unwrap();
    }
    assert!(!out.exists(), "a picture of something that was refused");
    Profiler::new("record").arg("-o").arg(&out).command(&words).fail(&["PyPy"]).unwrap();
    fixture.work_for(Duration::from_millis(50)).unwrap();
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(pypy_is_named_and_refused_and_goes_on)]
}
