//! How many samples there are of a tree of processes.

use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use profiler_tests::statistics::instants_by_chance;
use profiler_tests::suite::{Case, PAUSE_AND_BPF, Sampler, Test};
use profiler_tests::test;
use profiler_tests::tree::record;
use profiler_tests::{Run, Scratch};

/// A program that has no Python for a while, gets one without `exec`, and then works at once. It prints for how long, in
/// seconds of wall time and of CPU time.
const LATE_PYTHON: &str = r#"
#include <dlfcn.h>
#include <time.h>
int main(int count, char **words)
{
    nanosleep(&(struct timespec){.tv_nsec = 330000000}, 0);
    void *python = dlopen(words[1], RTLD_NOW | RTLD_GLOBAL);
    if (!python)
        return 2;
    ((void (*)(void))dlsym(python, "Py_Initialize"))();
    return ((int (*)(const char *))dlsym(python, "PyRun_SimpleString"))(words[2]);
}
"#;

const WORK_AT_ONCE: &str = "\
import time
began, cpu = time.monotonic(), time.process_time()
while time.monotonic() < began + 0.8: pass
print(time.monotonic() - began, time.process_time() - cpu)
";

/// The command of such a program.
fn late_python(case: &Case, scratch: &Scratch) -> Result<Vec<OsString>> {
    let find = "import os, sys, sysconfig; value = sysconfig.get_config_var; \
                print(os.path.join(value('LIBDIR'), value('INSTSONAME'))); print(sys.prefix)";
    let words = case.interpreter.inline_words(find);
    let answer = Command::new(&words[0]).args(&words[1..]).output()?;
    let answer = String::from_utf8(answer.stdout)?;
    let (library, prefix) = answer.trim().split_once('\n').context("no library")?;
    let (source, program) = (scratch.file("late.c"), scratch.file("late"));
    std::fs::write(&source, LATE_PYTHON)?;
    let compiled = Command::new("gcc").arg(&source).arg("-o").arg(&program).arg("-ldl").status()?;
    ensure!(compiled.success(), "gcc failed");
    let home = OsString::from(format!("PYTHONHOME={prefix}"));
    Ok(vec!["env".into(), home, program.into(), library.into(), WORK_AT_ONCE.into()])
}

/// Every instant at which the program worked is in the ledger, and none is that never was.
fn must_count_all(case: &Case, run: &Run) -> Result<()> {
    const RATE: u32 = 1000;
    let by_pause = case.sampler() == Sampler::Pause;
    let worked: Vec<f64> = run.stdout.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [wall, cpu] = worked[..] else { anyhow::bail!("{run:?}") };
    let ledger = run.ledger()?;
    let with_python = (ledger.shown + ledger.not_asked_for + ledger.lost_for("sampler late")) as f64;
    let margin = |seconds: f64| instants_by_chance(RATE, Duration::from_secs_f64(seconds));
    let rate = f64::from(RATE);
    // The in-kernel clocks run with the CPU time of the target, those of the other sampler with wall time.
    let expected = if by_pause { wall } else { cpu };
    let least = expected * rate - margin(expected);
    ensure!(with_python >= least, "{with_python} of {expected} s\n{}", run.stderr);
    let (all, whole) = (with_python + ledger.lost_for("no Python runtime") as f64, ledger.duration);
    let most = whole * rate + margin(whole);
    ensure!(all <= most || !by_pause, "{all} of {whole} s\n{}", run.stderr);
    ensure!(wall <= whole, "{wall} of {whole} s\n{}", run.stderr);
    Ok(())
}

/// What a tree did before its Pythons were found is counted.
fn work_before_python_is_found_is_counted(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let root = late_python(case, &scratch)?;
    let mut child: Vec<OsString> = ["sh", "-c", "\"$@\"; true", "sh"].map(OsString::from).to_vec();
    child.extend(root.iter().cloned());
    if case.sampler() == Sampler::Pause {
        let run = record(&scratch, &case.sampler_words()).command(&root).succeed()?;
        must_count_all(case, &run).context("as the root")?;
    }
    let run = record(&scratch, &case.sampler_words()).command(&child).succeed()?;
    must_count_all(case, &run).context("as a child")
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(work_before_python_is_found_is_counted).by(PAUSE_AND_BPF)]
}
