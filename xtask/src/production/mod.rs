//! `cargo xtask soak production`: what a profiler must bear on a host that serves: load, workers that come and go, attaches
//! by the hundred, targets that lie, a full disk, its own death, and a scheduler that does not let it run. Each trial is
//! repeated for its share of the time; the table at the end says what held and what did not.

mod report;
mod trials;
mod under_load;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use profiler_tests::{Scratch, is_root};

use crate::test::PROFILE;
use crate::{run, servers};
use report::{Report, Rounds};

/// The word that makes this program run the trials itself.
pub const TRIALS: &str = "production-trials";

/// The variable that names the binary under test.
const BINARY_VARIABLE: &str = "PROFILER_BIN";

/// What all trials share.
#[derive(Debug)]
pub struct Place {
    /// The environment of the servers.
    pub environment: PathBuf,
    /// Where recordings go.
    pub scratch: Scratch,
}

/// Has this program run the trials as a process of its own, with the binary that was built for the tests unless another one
/// is named.
pub fn run(time: Duration, words: &[String]) -> Result<()> {
    let mut command = Command::new(run::OWN_PROGRAM);
    command.arg(TRIALS).arg(time.as_secs().max(1).to_string()).args(words);
    if std::env::var_os(BINARY_VARIABLE).is_none() {
        command.env(BINARY_VARIABLE, run::target_folder().join(PROFILE).join("profiler"));
    }
    run::insist(&mut command)
}

/// Runs all trials, or those whose names contain one of the words, for so many seconds; prints the table.
pub fn run_trials(arguments: &[String]) -> Result<()> {
    let (seconds, words) = arguments.split_first().context("for how many seconds?")?;
    ensure!(is_root(), "the trials mount, throttle and kill: try `sudo -E cargo xtask soak production`");
    let time = Duration::from_secs(seconds.parse()?);
    let place = Place { environment: servers::prepare()?, scratch: Scratch::new()? };
    let is_wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let trials: Vec<_> = trials::ALL.iter().filter(|trial| is_wanted(trial.name)).collect();
    ensure!(!trials.is_empty(), "no trial has any of {words:?} in its name");
    let share = time / u32::try_from(trials.len())?;
    let mut report = Report::default();
    for trial in trials {
        eprintln!("xtask: production: {} for {:.0} s", trial.name, share.as_secs_f64());
        let mut rounds = Rounds::until(Instant::now() + share);
        let result = (trial.run)(&place, &mut rounds);
        report.add(trial.name, &rounds, result);
    }
    print!("{}", report.table().text());
    let failed = report.failed();
    ensure!(failed.is_empty(), "did not hold: {}", failed.join(", "));
    Ok(())
}
