//! Every instruction of the standard library has the position that its interpreter gives it, on every version.

use std::io::BufReader;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, ensure};
use profiler_tests::line_tables::{Comparison, SCRIPT, compare};
use profiler_tests::{Interpreter, interpreters};

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

#[test]
fn every_instruction_of_the_standard_library_has_its_position() {
    assert!(!interpreters().is_empty(), "no interpreter found");
    let waiting = Mutex::new(interpreters().iter());
    let next = || waiting.lock().expect("nobody panics while choosing").next();
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(interpreter) = next() {
                    if let Err(error) = judge(interpreter) {
                        let failure = format!("{}: {error:#}", interpreter.id);
                        failures.lock().expect("nobody panics while adding").push(failure);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("nobody panicked");
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}
