//! What the profiler does with standard streams that are closed, full or read by nobody.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::profiler_path;

/// Runs a line of shell that calls the profiler `"$0"`; returns what went to stderr.
///
/// # Errors
/// When anything has panicked.
pub fn shell(script: &str) -> Result<String> {
    let mut command = Command::new("sh");
    let output =
        command.arg("-c").arg(script).arg(profiler_path()).stdin(Stdio::null()).output().context("sh")?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!errors.contains("panicked"), "{script}: {errors}");
    Ok(errors)
}

/// What is printed once succeeds with a closed stdout and behind a pipe that is not read to its end, whatever is done
/// with `SIGPIPE`, and reports a full device. (Help is printed by the parser of the command line, which reports nothing.)
///
/// # Errors
/// When it does not.
pub fn must_need_no_reader(words: &str) -> Result<()> {
    let run = |ending: &str| shell(&format!("\"$0\" {words} {ending}; echo status $? >&2"));
    for ending in [">&-", "<&- >&-"] {
        let errors = run(ending)?;
        ensure!(errors.contains("status 0"), "{words} {ending}: {errors}");
    }
    for trap in ["", "trap '' PIPE; "] {
        let piped = shell(&format!("{trap}{{ \"$0\" {words}; echo status $? >&2; }} | head -0"))?;
        ensure!(piped.contains("status 0"), "{trap}{words}: {piped}");
    }
    let full = run(">/dev/full")?;
    let is_reported = full.contains("status 1") && full.contains("No space left on device");
    ensure!(is_reported || words.ends_with("--help") || words == "--version", "{words}: {full}");
    Ok(())
}
