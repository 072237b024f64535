//! `cargo xtask test`: prepares, builds, runs the tests tier by tier, and reports what was skipped.
//!
//! The tiers: 1, deterministic, in parallel; 2, on live processes, two at a time; 3, statistical, alone on the machine.
//! cargo-nextest runs them where it is installed, `cargo test` elsewhere.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use profiler_tests::statistics::{STATEMENTS_VARIABLE, judge_run};
use profiler_tests::suite::{TIER_VARIABLE, Tier};

use crate::prepare::{self, Options};
use crate::run;

/// The profile that everything is built in: see `Cargo.toml`.
pub const PROFILE: &str = "ci";

/// What the command line asks for.
#[derive(Debug)]
struct Plan {
    prepare: Options,
    tiers: Vec<Tier>,
    words: Vec<String>,
}

impl Plan {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut plan = Plan { prepare: Options::parse(arguments), tiers: Vec::new(), words: Vec::new() };
        let mut arguments = arguments.iter();
        while let Some(word) = arguments.next() {
            match word.as_str() {
                "--no-skip" | "--from-nothing" => {}
                "--tier" => {
                    let number = arguments.next().context("--tier: expected 1, 2 or 3")?;
                    let tier = Tier::ALL.into_iter().find(|tier| tier.name() == number);
                    plan.tiers.push(tier.with_context(|| format!("--tier {number}: expected 1, 2 or 3"))?);
                }
                flag if flag.starts_with('-') => bail!("no option {flag}; `cargo xtask help` lists them"),
                name => plan.words.push(name.to_owned()),
            }
        }
        if plan.tiers.is_empty() {
            plan.tiers.extend(Tier::ALL);
        }
        Ok(plan)
    }
}

/// Runs all tests, or those of some tiers, or those whose name contains one of the words.
pub fn run(arguments: &[String]) -> Result<()> {
    let plan = Plan::parse(arguments)?;
    prepare_and_build(&plan.prepare)?;
    let runner = Runner::new(plan.prepare.no_skip)?;
    let mut failed = Vec::new();
    for tier in &plan.tiers {
        let start = Instant::now();
        let passed = runner.run(*tier, &plan.words);
        eprintln!("xtask: tier {}: {:.0} s", tier.name(), start.elapsed().as_secs_f64());
        if !passed {
            failed.push(format!("tier {}", tier.name()));
        }
    }
    if let Err(error) = runner.judge_statements() {
        failed.push(format!("{error:#}; the statistical statements"));
    }
    let skipped = runner.skipped()?;
    ensure!(failed.is_empty(), "{} failed", failed.join(" and "));
    report_skipped(&skipped);
    Ok(())
}

/// Prepares and builds beside each other: the one waits for the network and the disk, the other for the CPUs.
pub fn prepare_and_build(options: &Options) -> Result<()> {
    let start = Instant::now();
    thread::scope(|scope| {
        let prepared = scope.spawn(|| prepare::prepare(options));
        // In one go, so that nothing is built twice, once with the features of some and once with those of all.
        let all = ["build", "--profile", PROFILE, "--workspace", "--all-targets", "--quiet"];
        let built = run::insist(run::cargo().args(all));
        let prepared = prepared.join().unwrap_or_else(|_| bail!("preparing panicked"));
        built.and(prepared)
    })?;
    eprintln!("xtask: prepared and built: {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Runs test programs with all that they need to know.
#[derive(Debug)]
pub struct Runner {
    has_nextest: bool,
    environment: Vec<(&'static str, OsString)>,
    skipped: PathBuf,
    statements: PathBuf,
}

impl Runner {
    /// Finds the interpreters once, for all tests.
    ///
    /// # Errors
    /// When one is missing and nothing may be skipped.
    pub fn new(no_skip: bool) -> Result<Self> {
        let target = run::target_folder();
        let skipped = target.join("tests-skipped.txt");
        fs::write(&skipped, "")?;
        let statements = target.join("tests-statements.jsonl");
        fs::write(&statements, "")?;
        let binary = std::env::var_os("PROFILER_BIN");
        let binary = binary.unwrap_or_else(|| target.join(PROFILE).join("profiler").into());
        let mut environment = vec![
            ("PROFILER_BIN", binary),
            ("PROFILER_TESTS_SKIPPED", skipped.clone().into()),
            (STATEMENTS_VARIABLE, statements.clone().into()),
        ];
        if no_skip {
            environment.push(("PROFILER_TESTS_NO_SKIP", "1".into()));
        }
        let list = target.join("interpreters.json");
        profiler_tests::write_list(&list)?;
        environment.push((profiler_tests::LIST_VARIABLE, list.into()));
        let has_nextest = run::succeeds(run::cargo().args(["nextest", "--version"]));
        Ok(Runner { has_nextest, environment, skipped, statements })
    }

    /// Sets one more variable of the test programs.
    pub fn set(&mut self, name: &'static str, value: impl Into<OsString>) {
        self.environment.retain(|(other, _)| *other != name);
        self.environment.push((name, value.into()));
    }

    /// Runs a tier; returns whether all of it passed.
    pub fn run(&self, tier: Tier, words: &[String]) -> bool {
        run::insist(&mut self.command(&[], tier, words)).is_ok()
    }

    /// Runs a tier for so long at most; returns whether all that came to its end passed.
    pub fn run_for(&self, tier: Tier, words: &[String], time: Duration) -> Result<bool> {
        /// What `timeout` exits with when the time was over.
        const TIME_IS_OVER: i32 = 124;
        let seconds = time.as_secs().max(1).to_string();
        let mut command = self.command(&["timeout", &seconds], tier, words);
        let status = command.status().context("timeout")?;
        Ok(status.success() || status.code() == Some(TIME_IS_OVER))
    }

    /// The command of a tier behind some words, with all signals as they are by default: tests send them, and who is
    /// started in the background or by `nohup` would have all that they start ignore some.
    fn command(&self, words_before: &[&str], tier: Tier, words: &[String]) -> Command {
        let tests = if self.has_nextest { nextest(tier, words) } else { cargo_test(tier, words) };
        let mut command = Command::new("env");
        command.arg("--default-signal").args(words_before).arg(tests.get_program()).args(tests.get_args());
        command.current_dir(run::workspace()).env(TIER_VARIABLE, tier.name());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Judges what the statistical statements say together.
    fn judge_statements(&self) -> Result<()> {
        let lines = fs::read_to_string(&self.statements)?;
        for line in judge_run(&lines)? {
            eprintln!("xtask: {line}");
        }
        Ok(())
    }

    fn skipped(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.skipped)?)
    }
}

/// cargo-nextest, which runs each test case as a process of its own.
fn nextest(tier: Tier, words: &[String]) -> Command {
    let mut command = run::cargo();
    command.args(["nextest", "run", "--cargo-profile", PROFILE, "--workspace", "--cargo-quiet"]);
    command.args(["--no-fail-fast", "--no-tests", "pass"]);
    if tier != Tier::Deterministic {
        command.args(["-E", &format!("binary({})", tier.program())]);
    }
    if let Some(threads) = tier.threads() {
        command.arg(format!("--test-threads={threads}"));
    }
    command.args(words);
    command
}

/// `cargo test`, which runs one test program after the other.
fn cargo_test(tier: Tier, words: &[String]) -> Command {
    let mut command = run::cargo();
    command.args(["test", "--profile", PROFILE, "--workspace", "--quiet", "--no-fail-fast"]);
    if tier != Tier::Deterministic {
        command.args(["--test", tier.program()]);
    }
    command.arg("--");
    if let Some(threads) = tier.threads() {
        command.arg(format!("--test-threads={threads}"));
    }
    command.args(words);
    command
}

/// Reports what the tests could not do on this machine.
fn report_skipped(skipped: &str) {
    let mut reasons: Vec<&str> = skipped.lines().collect();
    let count = reasons.len();
    reasons.sort_unstable();
    reasons.dedup();
    eprintln!("xtask: all tests passed; {count} skipped");
    for reason in reasons {
        eprintln!("  {reason}");
    }
}
