//! Bad input that is found without a live Python: a clear error that says what to try, exit status 1 (usage: 2), and
//! nothing left behind.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{Profiler, Scratch, one_interpreter, profiler_path};

/// A process that is there, and no Python: this test.
fn own_pid() -> String {
    std::process::id().to_string()
}

fn record(scratch: &Scratch) -> Profiler {
    Profiler::new("record").words("--sampler pause -f raw -r 500 -o").arg(scratch.file("out.txt"))
}

fn must_have_written_nothing(scratch: &Scratch) -> Result<()> {
    ensure!(!scratch.file("out.txt").exists(), "an output file was left behind");
    Ok(())
}

/// A process id that surely belongs to no process: that of a child that has been waited for.
fn unused_pid() -> Result<String> {
    let mut child = Command::new("true").spawn()?;
    child.wait()?;
    Ok(child.id().to_string())
}

fn missing_process_is_named() -> Result<()> {
    let scratch = Scratch::new()?;
    let pid = unused_pid()?;
    record(&scratch).arg("--pid").arg(&pid).fail(&[&pid])?;
    must_have_written_nothing(&scratch)?;
    Profiler::new("dump").arg("--pid").arg(&pid).fail(&["no such process", "no process"]).map(drop)
}

fn zombie_is_refused() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut child = Command::new("true").stdout(Stdio::piped()).spawn()?;
    // Its stdout is closed when it exits; it stays a zombie until it is waited for.
    let mut stdout = child.stdout.take().context("stdout")?;
    std::io::copy(&mut stdout, &mut std::io::sink())?;
    let pid = child.id().to_string();
    record(&scratch).arg("--pid").arg(&pid).fail(&[&pid])?;
    child.wait()?;
    must_have_written_nothing(&scratch)
}

fn missing_command_is_named() -> Result<()> {
    let scratch = Scratch::new()?;
    record(&scratch).command(&["no-such-command-anywhere"]).fail(&["no-such-command-anywhere"])?;
    must_have_written_nothing(&scratch)
}

fn unwritable_output_is_found_before_command_starts() -> Result<()> {
    let scratch = Scratch::new()?;
    let output = scratch.file("no-such-folder").join("out.svg");
    let marker = scratch.file("marker");
    let source = format!("open({:?}, 'w')", marker.display().to_string());
    let words = one_interpreter().inline_words(&source);
    let run = Profiler::new("record").words("--sampler pause -o").arg(&output).command(&words);
    run.fail(&["no-such-folder"])?;
    ensure!(!marker.exists(), "the command was started");
    let folder = Profiler::new("record").words("--sampler pause -o").arg(scratch.path());
    folder.arg("--pid").arg(own_pid()).fail(&["director", "folder"]).map(drop)
}

fn bad_options_are_misuse() -> Result<()> {
    let scratch = Scratch::new()?;
    for words in [
        "-r 0",
        "-r -5",
        "-r 1000000000000",
        "-r fast",
        "-r nan",
        "-d -1",
        "-d soon",
        "-f nonsense",
        "--no-such-option",
    ] {
        let run = Profiler::new("record").arg("-o").arg(scratch.file("out.txt")).words(words);
        run.arg("--pid").arg(own_pid()).misuse().with_context(|| words.to_owned())?;
        must_have_written_nothing(&scratch)?;
    }
    Ok(())
}

fn missing_or_double_target_is_misuse() -> Result<()> {
    Profiler::new("record").misuse()?;
    Profiler::new("record").words("--pid x").misuse()?;
    Profiler::new("record").words("--pid -1").misuse()?;
    Profiler::new("record").arg("--pid").arg(own_pid()).command(&["true"]).misuse()?;
    Profiler::new("dump").misuse()?;
    Profiler::new("no-such-subcommand").misuse().map(drop)
}

fn version_and_help_succeed() -> Result<()> {
    for option in ["--version", "--help"] {
        let output = Command::new(profiler_path()).arg(option).output()?;
        ensure!(output.status.success() && !output.stdout.is_empty(), "{option}: {output:?}");
    }
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(missing_process_is_named),
        test!(zombie_is_refused),
        test!(missing_command_is_named),
        test!(unwritable_output_is_found_before_command_starts),
        test!(bad_options_are_misuse),
        test!(missing_or_double_target_is_misuse),
        test!(version_and_help_succeed),
    ]
}
