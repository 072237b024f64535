//! A Python that is not CPython, or not of 64 bits, is recognized, named and refused, and runs on.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
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

/// A 32-bit program of x86 that sleeps for ever: file header, one segment, `pause()` again and again.
fn sleeper_of_32_bits() -> Vec<u8> {
    const START: u32 = 0x0804_8000;
    const CODE: &[u8] = &[0xB8, 29, 0, 0, 0, 0xCD, 0x80, 0xEB, 0xF7];
    const HEADERS: u32 = 52 + 32;
    let size = HEADERS + CODE.len() as u32;
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // Executable, for x86; its entry, where the segment's header is, the sizes of both headers, one segment.
    let header = [0x0003_0002, 1, START + HEADERS, 52, 0, 0, 0x0020_0034, 1, 0];
    let segment = [1, 0, START, START, size, size, 5, 0x1000];
    file.extend(header.iter().chain(&segment).flat_map(|word: &u32| word.to_le_bytes()));
    file.extend(CODE);
    file
}

fn python_of_32_bits_is_named() -> Result<()> {
    let scratch = Scratch::new()?;
    let program = scratch.file("python3.8");
    std::fs::write(&program, sleeper_of_32_bits())?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    let Ok(fixture) = Fixture::spawn(&[program.clone().into()]) else {
        missing("a kernel that runs 32-bit programs");
        return Ok(());
    };
    Profiler::new("dump").pid(&fixture).fail(&["built for 32 bits"])?;
    let out = scratch.file("out.svg");
    let record = || Profiler::new("record").words("--sampler pause -o").arg(&out);
    record().pid(&fixture).fail(&["built for 32 bits"])?;
    record().command(&[&program]).fail(&["built for 32 bits"]).map(drop)
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(dump_names_pypy_which_runs_on),
        test!(python_of_32_bits_is_named),
        test!(record_names_pypy_which_runs_on).by(&[Sampler::Pause, Sampler::Bpf, Sampler::Peek]),
    ]
}
