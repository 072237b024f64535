//! Threads that wait are told from threads that run, and for how long, on every interpreter.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use profiler_tests::statistics::{bound_of_gaps, deviations, effective_number_of_gaps};
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    Collapsed, DumpedThread, Fixture, Interpreter, Profiler, Scratch, WeightedSample, dumped_json,
    every_interpreter, every_interpreter_side_by_side, expectation, interpreters, one_interpreter,
    read_speedscope, samples_per_second, wait_until_still,
};
use serde_json::Value;

const PROGRAM: &str = "waiting/waiting.py";

/// Samples a second of a recording of all threads, those that wait included.
const IDLE_RATE: f64 = 1000.0;

/// Processes that want the CPUs all the time: several times as many as there are CPUs.
const BUSY: &str = "6";

/// How certain it is that chance alone does not break the comparison, on all interpreters together.
const CONFIDENCE: f64 = 0.9999;

fn start(interpreter: &Interpreter) -> Result<Fixture> {
    let fixture = Fixture::start(interpreter, PROGRAM, &[])?;
    wait_until_still(fixture.pid())?;
    Ok(fixture)
}

fn dump(fixture: &Fixture) -> Result<Vec<DumpedThread>> {
    dumped_json(&Profiler::new("dump").words("--json").pid(fixture).succeed()?.stdout)
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

fn dump_tells_what_every_thread_waits_in() {
    every_interpreter_side_by_side(|interpreter| {
        let fixture = start(interpreter)?;
        let threads = dump(&fixture)?;
        let expected = &expectation("waiting")?["threads"];
        ensure!(threads.len() == expected.as_object().context("threads")?.len(), "{threads:?}");
        must_be(&threads, expected)
    });
}

fn c_code_without_the_gil_is_active() {
    every_interpreter_side_by_side(|interpreter| {
        let mut fixture = start(interpreter)?;
        fixture.ask("hash")?;
        let name = "hashes";
        // The hash of 50 MB takes far longer than the Python around it, so the thread is in it whenever one
        // looks; after `done` it may still be on its way there.
        let mut in_hash = Vec::new();
        for _ in 0..5 {
            let threads = dump(&fixture)?;
            let thread = threads.into_iter().find(|thread| thread.name.as_deref() == Some(name));
            in_hash.push(thread.context("no thread hashes")?);
        }
        let good = in_hash.iter().filter(|thread| thread.active && !thread.owns_gil && thread.leaf() == name);
        ensure!(good.count() >= 4, "{in_hash:?}");
        Ok(())
    });
}

fn without_idle_threads_only_work_is_shown() {
    every_interpreter_side_by_side(|interpreter| {
        let scratch = Scratch::new()?;
        let file = scratch.file("out.txt");
        let mut fixture = start(interpreter)?;
        fixture.ask("alternate")?;
        let record = Profiler::new("record").words("-f raw -r 500 -o").arg(&file).pid(&fixture).spawn()?;
        record.end_after_cpu_time(fixture.pid(), Duration::from_millis(250))?;
        let profile = Collapsed::parse(&std::fs::read_to_string(&file)?)?;
        let total = profile.total();
        ensure!(total >= 30, "only {total} samples of the thread that works a quarter of the time");
        for waits in ["sleeps", "waits_for_lock", "waits_for_socket", "waits_for_pipe"] {
            let count = profile.count(|stack| stack.contains(waits));
            ensure!(count == 0, "{waits}: {count} of {total} samples");
        }
        let works = profile.count(|stack| stack.contains("works"));
        ensure!(works * 10 >= total * 8, "works: {works} of {total}");
        Ok(())
    });
}

/// What else wants the CPUs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    BusyProcesses,
}

/// Shows all threads while one of them alternates: that one begins after the recording and ends before it does, so
/// that its account is of what was recorded. All of it has had so much CPU time by then. Returns the file's text and the
/// account.
fn record_alternation(interpreter: &Interpreter, cpu: Duration, beside: Beside) -> Result<(String, Value)> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.json");
    let mut fixture = start(interpreter)?;
    let words = format!("-f speedscope -r {IDLE_RATE} -i -t -o");
    let mut record = Profiler::new("record").words(&words).arg(&file).pid(&fixture).spawn()?;
    record.wait_until_sampling()?;
    let busy = match beside {
        Beside::Nothing => None,
        Beside::BusyProcesses => Some(Fixture::start(
            one_interpreter(),
            "threads_processes/threads_processes.py",
            &["--processes", BUSY],
        )?),
    };
    fixture.ask("alternate")?;
    fixture.work_for(cpu)?;
    fixture.ask("rest")?;
    busy.map(Fixture::finish).transpose()?;
    record.signal(Signal::SIGINT)?;
    let run = record.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    Ok((std::fs::read_to_string(&file)?, fixture.finish()?))
}

/// For how long the threads are shown in each function, and what chance allows the share of rest to be off.
struct Alternation {
    samples: Vec<WeightedSample>,
    text: String,
    account: Value,
}

impl Alternation {
    fn record(interpreter: &Interpreter, cpu: Duration, beside: Beside) -> Result<Self> {
        let (text, account) = record_alternation(interpreter, cpu, beside)?;
        Ok(Alternation { samples: read_speedscope(&text)?, text, account })
    }

    fn of(&self, name: &str) -> f64 {
        let is_in = |sample: &&WeightedSample| sample.frames.iter().any(|frame| frame.plain_name() == name);
        self.samples.iter().filter(is_in).map(|sample| sample.weight).sum()
    }

    /// It rests for as much of its time as its own clock says, within what chance explains in so many comparisons.
    fn is_true(&self, comparisons: usize) -> Result<()> {
        let (rests, works) = (self.of("rests"), self.of("works"));
        let spent = |name: &str| self.account["spent"][name].as_f64().with_context(|| name.to_owned());
        let truth = spent("rests")? / (spent("rests")? + spent("works")?);
        let number = effective_number_of_gaps(rests + works, samples_per_second(&self.text, IDLE_RATE)?);
        let share = rests / (rests + works);
        let chance = bound_of_gaps(truth, number, deviations(CONFIDENCE, comparisons));
        ensure!(
            (share - truth).abs() <= chance,
            "rests: {share:.3} sampled, {truth:.3} by its own clock, chance {chance:.3}"
        );
        Ok(())
    }
}

fn with_idle_threads_every_thread_is_shown_all_the_time() {
    every_interpreter(|interpreter| {
        let shown = Alternation::record(interpreter, Duration::from_millis(200), Beside::Nothing)?;
        let (sleeps, rests) = (shown.of("sleeps"), shown.of("rests"));
        ensure!(sleeps > rests, "{sleeps} s of a thread that sleeps all the time, {rests} s of another");
        for name in ["waits_for_lock", "waits_for_socket", "waits_for_pipe"] {
            let time = shown.of(name);
            ensure!((time - sleeps).abs() * 20.0 <= sleeps, "{name}: {time} s, but {sleeps} s of sleeps");
        }
        shown.is_true(interpreters().len())
    });
}

fn who_is_woken_and_lacks_a_cpu_is_where_it_slept() -> Result<()> {
    Alternation::record(one_interpreter(), Duration::from_millis(40), Beside::BusyProcesses)?.is_true(1)
}

fn two_spinning_threads_take_turns_with_the_gil() {
    every_interpreter_side_by_side(|interpreter| {
        let scratch = Scratch::new()?;
        let file = scratch.file("out.txt");
        let mut fixture = start(interpreter)?;
        fixture.ask("spin")?;
        let record =
            Profiler::new("record").words("-f raw -r 500 -g -t -o").arg(&file).pid(&fixture).spawn()?;
        record.end_after_cpu_time(fixture.pid(), Duration::from_millis(1500))?;
        let profile = Collapsed::parse(&std::fs::read_to_string(&file)?)?;
        let total = profile.total();
        ensure!(total >= 200, "only {total} samples of whoever holds the GIL");
        for name in ["spins_1", "spins_2"] {
            let count = profile.count(|stack| stack.thread.as_deref() == Some(name));
            ensure!(count * 4 >= total || interpreter.free_threaded, "{name}: {count} of {total}");
        }
        Ok(())
    });
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(dump_tells_what_every_thread_waits_in),
        test!(c_code_without_the_gil_is_active),
        test!(without_idle_threads_only_work_is_shown),
        test!(with_idle_threads_every_thread_is_shown_all_the_time),
        test!(who_is_woken_and_lacks_a_cpu_is_where_it_slept),
        test!(two_spinning_threads_take_turns_with_the_gil),
    ]
}
