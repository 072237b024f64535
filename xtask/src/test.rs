//! `cargo xtask test`: prepares, builds, runs all tests, and says what was skipped.

use std::fs;

use anyhow::Result;

use crate::{prepare, run};

/// Runs all tests, or those whose name contains one of the words.
pub fn run(arguments: &[String]) -> Result<()> {
    let no_skip = prepare::forbids_skipping(arguments);
    let words: Vec<&String> = arguments.iter().filter(|word| *word != "--no-skip").collect();
    prepare::prepare(no_skip)?;
    run::insist(run::cargo().args(["build", "--release", "--package", "profiler-cli"]))?;
    // The tests themselves are not optimised as far: thirty programs would take longer to build than to run.
    let skipped = run::target_folder().join("tests-skipped.txt");
    fs::write(&skipped, "")?;
    let test = |arguments: &[&str]| {
        let mut command = run::cargo();
        command.args(["test", "--no-fail-fast"]).args(arguments).env("PROFILER_TESTS_SKIPPED", &skipped);
        if no_skip {
            command.env("PROFILER_TESTS_NO_SKIP", "1");
        }
        command
    };
    run::insist(test(&["--workspace", "--exclude", "profiler-tests", "--"]).args(&words))?;
    // One after the other: each of them runs a target and the profiler, which want a core each.
    run::insist(test(&["--package", "profiler-tests", "--", "--test-threads=1"]).args(&words))?;
    report_skipped(&fs::read_to_string(&skipped)?);
    Ok(())
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
