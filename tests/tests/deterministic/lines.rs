//! Every instruction of the standard library has the position that its interpreter gives it, on every version.

use std::io::BufReader;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use profiler_tests::line_tables::{Comparison, SCRIPT, compare};
use profiler_tests::suite::{Case, On, Test};
use profiler_tests::{Interpreter, test};

/// Fewer code units than any standard library has. A comparison of fewer did not see all of it.
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

fn standard_library_instructions_have_their_positions(case: &Case) -> Result<()> {
    let Comparison { files, files_refused, files_cached, codes, units, different, examples } =
        compare_with(case.interpreter)?;
    println!(
        "{}: {units} code units of {codes} code objects in {} files, {files_cached} of them cached \
         ({files_refused} do not compile): {different} different",
        case.interpreter.id,
        files + files_cached
    );
    ensure!(different == 0, "{different} of {units} positions differ: {examples:#?}");
    ensure!(units >= UNITS_AT_LEAST, "only {units} code units were compared");
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(standard_library_instructions_have_their_positions).on(On::Every)]
}
