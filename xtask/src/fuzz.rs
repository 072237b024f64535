//! `cargo xtask fuzz`: builds the fuzz targets and runs each for its share of the time, one on each CPU.
//!
//! libFuzzer comes with the crate `libfuzzer-sys`, the instrumentation with every rustc: no nightly compiler
//! and no cargo-fuzz is needed. What only a nightly has, the sanitisers, is not missed in code that has no
//! `unsafe`. What was learnt stays in `target/fuzz/`, so that the next run begins where this one ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use profiler_tests::snapshot::StoredProcess;

use crate::run;

const TARGETS: [&str; 5] = ["walk", "line_table", "debug_offsets", "find_elf", "core_file"];

const DEFAULT_SECONDS: u64 = 60;

/// Counters for every edge of the code, and the operands of its comparisons: what libFuzzer learns from.
const INSTRUMENTATION: [&str; 6] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// What a target may use. The stored snapshots and the corpus take some 100 MB of it.
const MEMORY_MEGABYTES: u32 = 1024;

/// One input takes a millisecond; this long means that it never ends.
const TIMEOUT_SECONDS: u32 = 20;

/// Fuzzes: `--seconds N` for all targets together, and the names of targets, otherwise all.
pub fn run(arguments: &[String]) -> Result<()> {
    let (seconds, targets) = options(arguments)?;
    let binaries = build()?;
    let each = (seconds / targets.len() as u64).max(1);
    run::side_by_side(&targets, |target| fuzz(&binaries.join(target), target, each))
}

fn options(arguments: &[String]) -> Result<(u64, Vec<&str>)> {
    let (mut seconds, mut targets) = (DEFAULT_SECONDS, Vec::new());
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match (word.as_str(), TARGETS.iter().find(|target| *target == word)) {
            ("--seconds", _) => {
                let number = words.next().context("--seconds of what?")?;
                seconds = number.parse().with_context(|| format!("--seconds {number}"))?;
            }
            (_, Some(target)) => targets.push(*target),
            (unknown, None) => bail!("{unknown:?}: there are --seconds N, {}", TARGETS.join(", ")),
        }
    }
    Ok((seconds, if targets.is_empty() { TARGETS.to_vec() } else { targets }))
}

/// Builds all targets; returns the folder that they are in.
fn build() -> Result<PathBuf> {
    let about = run::output(Command::new("rustc").arg("-vV"))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let folder = run::target_folder().join("fuzz");
    let manifest = run::workspace().join("fuzz/Cargo.toml");
    let mut command = run::cargo();
    // With --target, the flags are not for build scripts, which have no fuzzer to link to.
    command
        .args(["build", "--release", "--locked", "--target", host, "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(&folder)
        .env("CARGO_ENCODED_RUSTFLAGS", INSTRUMENTATION.join("\x1f"));
    run::insist(&mut command)?;
    Ok(folder.join(host).join("release"))
}

fn fuzz(binary: &Path, target: &str, seconds: u64) -> Result<()> {
    let folder = run::target_folder().join("fuzz");
    let corpus = folder.join("corpus").join(target);
    let found = folder.join("found").join(target);
    fs::create_dir_all(&corpus).with_context(|| corpus.display().to_string())?;
    fs::create_dir_all(&found).with_context(|| found.display().to_string())?;
    seed(target, &corpus)?;
    let output = Command::new(binary)
        .arg(&corpus)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-rss_limit_mb={MEMORY_MEGABYTES}"))
        .arg(format!("-timeout={TIMEOUT_SECONDS}"))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .arg("-print_final_stats=1")
        .output()
        .with_context(|| binary.display().to_string())?;
    let report = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{target} fails, on the input in {}:\n{report}", found.display());
    let inputs = report.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    println!("fuzz: {target} survived {} inputs", inputs.context("libFuzzer does not say how many")?.trim());
    Ok(())
}

/// The inputs that a target starts from.
fn seed(target: &str, corpus: &Path) -> Result<()> {
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    match target {
        "walk" => seeds.extend((0..=u8::MAX).step_by(8).map(|choice| vec![choice; 1 + 4 * 13])),
        "debug_offsets" => {
            let folder = run::workspace().join("crates/python/tests/data/debug-offsets");
            for entry in fs::read_dir(folder)? {
                seeds.push(fs::read(entry?.path())?);
            }
        }
        "find_elf" => {
            for (choice, process) in (0..).zip(StoredProcess::all()?) {
                let modules = process.modules()?;
                let file = modules.last().context("a process without modules")?.file();
                seeds.push([&[choice], file].concat());
            }
        }
        // A library that says that it is a core file.
        "core_file" => {
            for process in StoredProcess::all()? {
                let modules = process.modules()?;
                let mut file = modules.last().context("a process without modules")?.file().to_vec();
                *file.get_mut(16).context("an empty module")? = 4;
                seeds.push(file);
            }
        }
        _ => seeds.extend((0..3).map(|format| [[format, 1, 0, 0, 0], [2, 1, 4, 255, 6]].concat())),
    }
    ensure!(!seeds.is_empty(), "nothing to start from");
    for (number, seed) in seeds.iter().enumerate() {
        fs::write(corpus.join(format!("seed-{number}")), seed)?;
    }
    Ok(())
}
