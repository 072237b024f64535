//! Time off the CPU as the kernel reports it: what is shown of each thread must be all of its time.

use std::fs;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use profiler_tests::suite::{Case, On, Sampler, Test};
use profiler_tests::times::{CPU, GIL, leaf, must_add_up, seconds};
use profiler_tests::{
    Collapsed, Fixture, Profiler, Run, Scratch, Stack, one_interpreter, test, wait_until_still, waits,
};
use serde_json::Value;

/// How far the time for which the GIL is held may be off.
const GIL_BOUND: f64 = 0.02;

/// What a recording shows, and for how long it lasted.
struct Shown {
    profile: Collapsed,
    elapsed: f64,
}

impl Shown {
    fn read(scratch: &Scratch, name: &str, run: &Run) -> Result<Self> {
        let profile = Collapsed::parse(&fs::read_to_string(scratch.file(name))?)?;
        Ok(Shown { profile, elapsed: run.sampled_for()? })
    }

    fn seconds(&self, wanted: impl Fn(&Stack) -> bool) -> f64 {
        seconds(&self.profile, wanted)
    }
}

fn record(mode: &str, words: &str) -> Profiler {
    Profiler::new("record").words(&format!("-t -f raw --sampler bpf --mode {mode} {words} -o"))
}

/// With and without the kernel's functions, which add no time.
fn waits_from_the_start_add_up(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, "waiting/waiting.py", &[])?;
    wait_until_still(fixture.pid())?;
    let scratch = Scratch::new()?;
    let run = record("wall", "-d 0.4").arg(scratch.file("wall.txt")).pid(&fixture).succeed()?;
    let shown = Shown::read(&scratch, "wall.txt", &run)?;
    must_add_up(&shown.profile, shown.elapsed, 5)?;
    waits::must_wait_all_the_time(&shown.profile, shown.elapsed)?;
    let run = record("wall", "--kernel -d 0.4").arg(scratch.file("kernel.txt")).pid(&fixture).succeed()?;
    let shown = Shown::read(&scratch, "kernel.txt", &run)?;
    must_add_up(&shown.profile, shown.elapsed, 5)
}

fn threads_hold_the_gil_or_wait_for_it(case: &Case) -> Result<()> {
    let program = "threads_processes/threads_processes.py";
    let fixture = Fixture::start(case.interpreter, program, &["--threads", "4"])?;
    let scratch = Scratch::new()?;
    // Both look at the same time, all of which is in that of the first.
    let all = record("wall", "-r 5000 --min-wait 0").arg(scratch.file("wall.txt"));
    let mut all = all.pid(&fixture).spawn()?;
    all.wait_until_sampling()?;
    let held = record("gil", "-r 5000 --min-wait 0 -d 0.5").arg(scratch.file("gil.txt"));
    let held = Shown::read(&scratch, "gil.txt", &held.pid(&fixture).succeed()?)?;
    all.signal(Signal::SIGINT)?;
    let all = Shown::read(&scratch, "wall.txt", &all.wait()?)?;
    fixture.finish()?;
    must_add_up(&all.profile, all.elapsed, 5)?;
    is_held_by_one(&all, &held)
}

/// One of four threads that count holds the GIL, the others wait for it.
fn is_held_by_one(all: &Shown, held: &Shown) -> Result<()> {
    let counts = |stack: &Stack| stack.thread.as_deref().is_some_and(|thread| thread.starts_with("counter"));
    // A thread that was given the GIL may still wait for a CPU: none holds it then.
    let queued = all.seconds(|stack| counts(stack) && leaf(stack) == CPU);
    let holds = held.seconds(counts);
    ensure!(
        holds <= held.elapsed * (1.0 + GIL_BOUND) && holds + queued >= held.elapsed * (1.0 - GIL_BOUND),
        "the GIL was held {holds} s, handed over at most {queued} s, of {} s",
        held.elapsed
    );
    ensure!(held.seconds(|stack| leaf(stack) == GIL) == 0.0, "held and waited for: {:?}", held.profile);
    let waits = all.seconds(|stack| counts(stack) && leaf(stack) == GIL);
    let rest = 3.0 * all.elapsed;
    ensure!(
        waits <= rest * (1.0 + GIL_BOUND) && waits + queued >= rest * (1.0 - GIL_BOUND),
        "{waits} s of waiting for the GIL and {queued} s for a CPU, of {rest} s without it"
    );
    Ok(())
}

/// One of twice as many busy processes as there are CPUs: it never sleeps, so it waits for a CPU whenever it has none.
fn missing_cpus_are_shown_as_waits() -> Result<()> {
    let count = (2 * std::thread::available_parallelism()?.get()).to_string();
    let program = "threads_processes/threads_processes.py";
    let fixture = Fixture::start(one_interpreter(), program, &["--processes", &count])?;
    let child = fixture.children().first().context("no child")?.to_string();
    let scratch = Scratch::new()?;
    let run = record("wall", &format!("-d 1 -p {child}")).arg(scratch.file("wall.txt")).succeed()?;
    fixture.finish()?;
    let shown = Shown::read(&scratch, "wall.txt", &run)?;
    must_add_up(&shown.profile, shown.elapsed, 1)?;
    let queued = shown.seconds(|stack| leaf(stack) == CPU);
    let without = shown.elapsed - run.ledger()?.target_cpu;
    // A scheduler that is fair gives it half of the time.
    ensure!(queued >= 0.3 * shown.elapsed, "{queued} s without a CPU: {:?}", shown.profile);
    let off = (queued - without).abs() / shown.elapsed;
    ensure!(off <= QUEUE_BOUND, "{queued} s shown, {without} s without a CPU, of {} s", shown.elapsed);
    let with_stack = shown.profile.count(|stack| leaf(stack) == CPU && stack.contains("count_batch"));
    ensure!(with_stack > 0, "no stack of it: {:?}", shown.profile);
    Ok(())
}

/// Naps of 0.3 s, with some that are too short to be shown one by one after each.
const NAPS: &str = "\
import os, sys, time
def nap(): time.sleep(0.3)
def blinks():
    for _ in range(20): time.sleep(0.00002)
print('ready', os.getpid(), flush=True)
for line in sys.stdin:
    for _ in range(4):
        nap()
        blinks()
    print('awake', flush=True)
print('{}', flush=True)
";

/// For how many microseconds each slice of a function lasts, and when the last slice of all ends.
fn slices_of(trace: &Value, function: &str) -> Result<(Vec<u64>, u64)> {
    let (mut lengths, mut began, mut last) = (Vec::new(), 0, 0);
    for event in trace.as_array().context("no events")? {
        let is_wanted = event["name"].as_str().is_some_and(|name| name.starts_with(function));
        match (event["ph"].as_str(), event["ts"].as_u64()) {
            (Some("B"), Some(at)) if is_wanted => began = at,
            (Some("E"), Some(at)) => {
                last = last.max(at);
                lengths.extend(is_wanted.then(|| at - began));
            }
            _ => {}
        }
    }
    Ok((lengths, last))
}

/// What is summed is read once a second, here in the middle of the last nap.
fn summed_waits_leave_naps_whole_in_traces(case: &Case) -> Result<()> {
    let mut fixture = Fixture::inline(case.interpreter, NAPS)?;
    let scratch = Scratch::new()?;
    let file = scratch.file("trace.json");
    let record = Profiler::new("record").words("-f chrometrace --sampler bpf --mode off-cpu -o").arg(&file);
    let mut running = record.pid(&fixture).spawn()?;
    running.wait_until_sampling()?;
    fixture.ask("go")?;
    running.signal(Signal::SIGINT)?;
    let run = running.wait()?;
    fixture.finish()?;
    let trace: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
    let (naps, last) = slices_of(&trace, "nap")?;
    // The clocks of the program and of the kernel's timers differ by less than this.
    let whole = naps.iter().filter(|nap| **nap >= 299_000).count();
    ensure!(whole == 4, "{whole} of 4 naps of 0.3 s are whole: {naps:?} us");
    let elapsed = run.sampled_for()?;
    ensure!(last as f64 / 1e6 <= elapsed * 1.001, "{last} us of {elapsed} s");
    Ok(())
}

/// How far the wait for a CPU may be from the rest of the time; the ledger counts CPU time from a little earlier on.
const QUEUE_BOUND: f64 = 0.05;

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    const BPF: &[Sampler] = &[Sampler::Bpf];
    vec![
        test!(waits_from_the_start_add_up).on(On::Layouts).by(BPF),
        test!(threads_hold_the_gil_or_wait_for_it).on(On::Layouts).by(BPF).needs_gil(),
        test!(missing_cpus_are_shown_as_waits).by(BPF),
        test!(summed_waits_leave_naps_whole_in_traces).on(On::Layouts).by(BPF),
    ]
}
