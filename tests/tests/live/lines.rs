//! Every instruction of the standard library has the position that its interpreter gives it, on every version.

use std::io::BufReader;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use profiler_tests::line_tables::{Comparison, SCRIPT, compare};
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{Interpreter, every_interpreter_side_by_side};

/// Fewer code units than any standard library has: below, the comparison did not see it.
const UNITS_AT_LEAST: u64 = 1_000_000;

fn compare_with(interpreter: &Interpreter) -> Result<Comparison> {
    let words = interpreter.inline_words(SCRIPT);
    let mut child = Command::new(&words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("the interpreter does not start")?;
    let stdout = child.stdout.take().context("the interpreter has no stdout")?;
    let comparison = compare(BufReader::with_capacity(1 << 20, stdout));
    let status = child.wait().context("the interpreter cannot be waited for")?;
    ensure!(status.success(), "the interpreter ended with {status}");
    comparison
}

fn judge(interpreter: &Interpreter) -> Result<()> {
    let Comparison { files, files_refused, codes, units, different, examples } = compare_with(interpreter)?;
    println!(
        "{}: {units} code units of {codes} code objects in {files} files ({files_refused} do not compile): \
         {different} different",
        interpreter.id
    );
    ensure!(different == 0, "{different} of {units} positions differ: {examples:#?}");
    ensure!(units >= UNITS_AT_LEAST, "only {units} code units were compared");
    Ok(())
}

fn every_instruction_of_the_standard_library_has_its_position() {
    every_interpreter_side_by_side(judge);
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(every_instruction_of_the_standard_library_has_its_position)]
}
