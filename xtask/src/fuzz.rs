//! `cargo xtask fuzz`: builds the fuzz targets and runs each for its share of the time, one on each CPU.
//!
//! libFuzzer comes with the crate `libfuzzer-sys`, the instrumentation with every rustc: no nightly compiler
//! and no cargo-fuzz is needed. What only a nightly has, the sanitisers, is not missed in code that has no
//! `unsafe`. What was learnt stays in `target/fuzz/`, so that the next run begins where this one ended; `--store` puts
//! what matters of it into `fuzz/corpora/`, which a test of tier 1 replays without any of this.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use profiler_tests::fuzzing::{self, TARGETS};
use profiler_tests::snapshot::StoredProcess;

use crate::run;

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

/// The most bytes of the stored corpus of a target.
const MAX_STORED_BYTES: u64 = 100 << 10;

/// What the command line asks for.
struct Plan {
    /// For all targets together.
    seconds: u64,
    /// Whether what was learnt is stored.
    store: bool,
    targets: Vec<&'static str>,
}

impl Plan {
    fn parse(arguments: &[String]) -> Result<Self> {
        let names = TARGETS.map(|(name, _)| name);
        let mut plan = Plan { seconds: DEFAULT_SECONDS, store: false, targets: Vec::new() };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            match (word.as_str(), names.iter().find(|name| *name == word)) {
                ("--seconds", _) => {
                    let number = words.next().context("--seconds: expected a number")?;
                    plan.seconds = number.parse().with_context(|| format!("--seconds {number}"))?;
                }
                ("--store", _) => plan.store = true,
                (_, Some(target)) => plan.targets.push(target),
                (unknown, None) => {
                    bail!("{unknown:?}: expected --seconds N, --store, {}", names.join(", "))
                }
            }
        }
        if plan.targets.is_empty() {
            plan.targets.extend(names);
        }
        Ok(plan)
    }
}

/// Fuzzes: `--seconds N` for all targets together, and the names of targets, otherwise all.
pub fn run(arguments: &[String]) -> Result<()> {
    let plan = Plan::parse(arguments)?;
    let binaries = build()?;
    let each = (plan.seconds / plan.targets.len() as u64).max(1);
    run::side_by_side(&plan.targets, |target| {
        fuzz(&binaries.join(target), target, each)?;
        if plan.store { store(&binaries.join(target), target) } else { Ok(()) }
    })
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
    let (corpus, found) = (folder("corpus", target)?, folder("found", target)?);
    seed(target, &corpus)?;
    let output = Command::new(binary)
        .arg(&corpus)
        .args(Some(fuzzing::corpus(target)).filter(|stored| stored.is_dir()))
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

/// A folder for a target under `target/fuzz/`.
fn folder(kind: &str, target: &str) -> Result<PathBuf> {
    let folder = run::target_folder().join("fuzz").join(kind).join(target);
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// Stores the fewest inputs that cover what the corpus covers, the smallest ones first, as many as there is room for.
fn store(binary: &Path, target: &str) -> Result<()> {
    let (corpus, fewest) = (folder("corpus", target)?, folder("fewest", target)?);
    fs::remove_dir_all(&fewest)?;
    fs::create_dir(&fewest)?;
    let mut command = Command::new(binary);
    command
        .args(["-set_cover_merge=1", &format!("-rss_limit_mb={MEMORY_MEGABYTES}")])
        .arg(&fewest)
        .arg(&corpus);
    let output = command.output().with_context(|| binary.display().to_string())?;
    ensure!(output.status.success(), "{target}: {}", String::from_utf8_lossy(&output.stderr));
    let mut inputs: Vec<(u64, PathBuf)> = fs::read_dir(&fewest)?
        .map(|entry| entry.and_then(|entry| Ok((entry.metadata()?.len(), entry.path()))))
        .collect::<Result<_, _>>()?;
    inputs.sort();
    let stored = fuzzing::corpus(target);
    if stored.is_dir() {
        fs::remove_dir_all(&stored)?;
    }
    fs::create_dir_all(&stored)?;
    let (mut bytes, mut count) = (0, 0);
    for (length, path) in &inputs {
        bytes += length;
        if bytes > MAX_STORED_BYTES {
            break;
        }
        count += 1;
        fs::copy(path, stored.join(path.file_name().context("an input without a name")?))?;
    }
    println!("fuzz: {target}: {count} of {} inputs stored", inputs.len());
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
