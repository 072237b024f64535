//! `cargo xtask test`: prepares, builds, runs all tests, and says what was skipped.

use std::fs;
use std::process::Command;

use anyhow::Result;

use crate::{prepare, run};

/// Runs all tests, or those whose name contains one of the words.
pub fn run(arguments: &[String]) -> Result<()> {
    let no_skip = prepare::forbids_skipping(arguments);
    let words: Vec<&String> = arguments.iter().filter(|word| *word != "--no-skip").collect();
    prepare::prepare(no_skip)?;
    run::insist(run::cargo().args(["build", "--release", "--package", "profiler-cli"]))?;
    // The tests themselves are hardly optimised: fifty programs would take longer to build than to run.
    let skipped = run::target_folder().join("tests-skipped.txt");
    fs::write(&skipped, "")?;
    let mut test = with_usual_signals(&run::cargo());
    // One after the other: each of those of the binary runs a target and the profiler, which want a core each. All
    // with one command, so that nothing is built twice, once with the features of some and once with those of all.
    test.args(["test", "--workspace", "--no-fail-fast", "--", "--test-threads=1"]).args(&words);
    test.env("PROFILER_TESTS_SKIPPED", &skipped);
    if no_skip {
        test.env("PROFILER_TESTS_NO_SKIP", "1");
    }
    run::insist(&mut test)?;
    report_skipped(&fs::read_to_string(&skipped)?);
    Ok(())
}

/// The same command with all signals as they are by default: tests send them, and who is started in the background or by
/// `nohup` would have all that they start ignore some.
fn with_usual_signals(command: &Command) -> Command {
    let mut usual = Command::new("env");
    usual.arg("--default-signal").arg(command.get_program()).args(command.get_args());
    usual.current_dir(run::workspace());
    usual
}

/// Says what the tests could not do on this machine.
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
