//! Threads that wait are distinguished from threads that run.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Test};
use profiler_tests::{
    Collapsed, DumpedThread, Fixture, Profiler, Scratch, dumped_json, expectation, test, wait_until_still,
};
use serde_json::Value;

/// CPU time of the thread that works a quarter of its time: three times as many samples as are asked for.
const WORKED: Duration = Duration::from_millis(100);

/// CPU time in which two threads that compete for the GIL change places a hundred times.
const SPUN: Duration = Duration::from_millis(500);

fn start(case: &Case) -> Result<Fixture> {
    let fixture = Fixture::start(case.interpreter, "waiting/waiting.py", &[])?;
    wait_until_still(fixture.pid())?;
    Ok(fixture)
}

fn dump(fixture: &Fixture) -> Result<Vec<DumpedThread>> {
    dumped_json(&Profiler::new("dump").words("--json").pid(fixture).succeed()?.stdout)
}

fn record(case: &Case, fixture: &Fixture, options: &str, cpu: Duration) -> Result<Collapsed> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.txt");
    let words = format!("-f raw -r 1000 {options} {} -o", case.sampler_words());
    let record = Profiler::new("record").words(&words).arg(&file).pid(fixture).spawn()?;
    record.end_after_cpu_time(fixture.pid(), cpu)?;
    Collapsed::parse(&std::fs::read_to_string(&file)?)
}

/// Compares the threads that an expectation names with those of a dump.
fn must_be(threads: &[DumpedThread], expected: &Value) -> Result<()> {
    for (name, expected) in expected.as_object().context("threads")? {
        let thread = threads.iter().find(|thread| thread.name.as_ref() == Some(name));
        let thread = thread.with_context(|| format!("no thread {name} in {threads:?}"))?;
        if let Some(active) = expected["active"].as_bool() {
            ensure!(thread.active == active, "{name}: active is {}", thread.active);
        }
        if let Some(gil) = expected["gil"].as_bool() {
            ensure!(thread.owns_gil == gil, "{name}: owns_gil is {}", thread.owns_gil);
        }
        if let Some(leaf) = expected["leaf"].as_str() {
            ensure!(thread.leaf() == leaf, "{name}: in {}", thread.leaf());
        }
    }
    Ok(())
}

fn dump_shows_where_each_thread_waits(case: &Case) -> Result<()> {
    let fixture = start(case)?;
    let threads = dump(&fixture)?;
    let expected = &expectation("waiting")?["threads"];
    ensure!(threads.len() == expected.as_object().context("threads")?.len(), "{threads:?}");
    must_be(&threads, expected)
}

fn c_code_without_the_gil_is_active(case: &Case) -> Result<()> {
    let mut fixture = start(case)?;
    fixture.ask("hash")?;
    let name = "hashes";
    // The hash of 50 MB takes far longer than the Python around it, so the thread is in it whenever it is looked at;
    // after `done` it may still be on its way there.
    let mut in_hash = Vec::new();
    for _ in 0..5 {
        let threads = dump(&fixture)?;
        let thread = threads.into_iter().find(|thread| thread.name.as_deref() == Some(name));
        in_hash.push(thread.context("no thread hashes")?);
    }
    let good = in_hash.iter().filter(|thread| thread.active && !thread.owns_gil && thread.leaf() == name);
    ensure!(good.count() >= 4, "{in_hash:?}");
    Ok(())
}

fn without_idle_threads_only_work_is_shown(case: &Case) -> Result<()> {
    let mut fixture = start(case)?;
    fixture.ask("alternate")?;
    let profile = record(case, &fixture, "", WORKED)?;
    let total = profile.total();
    ensure!(total >= 30, "only {total} samples of the thread that works a quarter of the time");
    for waits in ["sleeps", "waits_for_lock", "waits_for_socket", "waits_for_pipe"] {
        let count = profile.count(|stack| stack.contains(waits));
        ensure!(count == 0, "{waits}: {count} of {total} samples");
    }
    let works = profile.count(|stack| stack.contains("works"));
    ensure!(works * 10 >= total * 8, "works: {works} of {total}");
    Ok(())
}

fn spinning_threads_take_turns_with_the_gil(case: &Case) -> Result<()> {
    let mut fixture = start(case)?;
    fixture.ask("spin")?;
    let profile = record(case, &fixture, "-g -t", SPUN)?;
    let total = profile.total();
    ensure!(total >= 200, "only {total} samples of the holder of the GIL");
    for name in ["spins_1", "spins_2"] {
        let count = profile.count(|stack| stack.thread.as_deref() == Some(name));
        ensure!(count * 4 >= total || case.interpreter.free_threaded, "{name}: {count} of {total}");
    }
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(dump_shows_where_each_thread_waits).on(On::Every),
        test!(c_code_without_the_gil_is_active).on(On::Layouts),
        test!(without_idle_threads_only_work_is_shown).on(On::Layouts).by(PAUSE_AND_BPF),
        test!(spinning_threads_take_turns_with_the_gil).on(On::Layouts).by(PAUSE_AND_BPF),
    ]
}
