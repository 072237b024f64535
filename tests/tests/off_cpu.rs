//! Time off the CPU as the kernel tells it: the account of each thread, which must be all of its time. What becomes of
//! it in `record` is for `modes` to show.

mod kernel_programs;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use profiler_model::{Nanos, Pid, ThreadState, Tid, WaitReason};
use profiler_sampler::off_cpu::{OffCpuProbe, OffCpuStack};
use profiler_sampler::{Absence, Target, ThreadTotals};
use profiler_tests::{Fixture, can_load_programs, every_interpreter, one_interpreter, programs_of};

use kernel_programs::still_loaded;

/// Every absence is told by itself.
const EVERY: Nanos = Nanos::ZERO;

/// Versions of CPython with different GILs and frames; that each of them is read right is for `modes` to show.
const SOME: [u32; 3] = [6, 12, 15];

/// Shorter ones are summed.
const LEAST: Nanos = Nanos::from_nanos(1_000_000);

const CPU: ThreadState = ThreadState::Waiting(WaitReason::Cpu);

fn attach(pid: u32, least: Nanos) -> Result<OffCpuProbe> {
    Ok(OffCpuProbe::attach(Target::attach(Pid::new(pid))?, least)?)
}

/// Reads for so long.
fn watch(probe: &mut OffCpuProbe, time: Duration) -> Result<Vec<Absence<OffCpuStack>>> {
    let mut samples = Vec::new();
    for _ in 0..10 {
        std::thread::sleep(time / 10);
        samples.extend(probe.read()?);
    }
    samples.extend(probe.finish()?);
    Ok(samples)
}

fn is_in(sample: &Absence<OffCpuStack>, function: &str) -> bool {
    match &sample.stack {
        OffCpuStack::Taken { frames, .. } => {
            frames.iter().any(|frame| frame.function.rsplit('.').next() == Some(function))
        }
        _ => false,
    }
}

fn seconds<'a>(samples: impl Iterator<Item = &'a Absence<OffCpuStack>>) -> f64 {
    samples.map(|sample| sample.duration.as_secs_f64()).sum()
}

fn wall(totals: &ThreadTotals) -> f64 {
    totals.until.since(totals.since).as_secs_f64()
}

/// Time on a CPU and off it must be all the time that there was.
fn adds_up(thread: Tid, totals: &ThreadTotals) -> Result<()> {
    let off: f64 = totals.waited.values().map(|time| time.as_secs_f64()).sum();
    let sum = off + totals.ran.as_secs_f64() + totals.lost.as_secs_f64();
    ensure!((sum / wall(totals) - 1.0).abs() <= 0.01, "{thread}: {sum} of {}: {totals:?}", wall(totals));
    Ok(())
}

#[test]
fn who_waits_from_the_start_is_seen_where_it_waits() {
    every_interpreter(|interpreter| {
        if !can_load_programs() || !SOME.contains(&interpreter.minor) {
            return Ok(());
        }
        let fixture = Fixture::start(interpreter, "waiting/waiting.py", &[])?;
        profiler_tests::wait_until_still(fixture.pid())?;
        let mut probe = attach(fixture.pid(), LEAST)?;
        let samples = watch(&mut probe, Duration::from_millis(200))?;
        probe.totals().try_for_each(|(thread, totals)| adds_up(thread, totals))?;
        let states = [
            ("sleeps", WaitReason::Sleep),
            ("waits_for_lock", WaitReason::Lock),
            ("waits_for_socket", WaitReason::Socket),
            ("waits_for_pipe", WaitReason::File),
        ];
        for (function, reason) in states {
            let state = ThreadState::Waiting(reason);
            let found = samples.iter().filter(|one| one.state == state && is_in(one, function));
            let thread = found.clone().next().with_context(|| format!("{function} is not {state}"))?.thread;
            let (found, totals) = (seconds(found), probe.totals().find(|(tid, _)| *tid == thread));
            let total = totals.map_or(0.0, |(_, totals)| wall(totals));
            ensure!((found / total - 1.0).abs() <= 0.01, "{function}: {found} s of {total} s");
        }
        Ok(())
    });
}

#[test]
fn threads_hold_the_gil_or_wait_for_it() {
    every_interpreter(|interpreter| {
        if !can_load_programs() || interpreter.free_threaded || !SOME.contains(&interpreter.minor) {
            return Ok(());
        }
        let program = "threads_processes/threads_processes.py";
        let fixture = Fixture::start(interpreter, program, &["--threads", "4"])?;
        let mut probe = attach(fixture.pid(), EVERY)?;
        let samples = watch(&mut probe, Duration::from_millis(400))?;
        fixture.finish()?;
        let counters = || {
            probe
                .totals()
                .filter(|(tid, _)| samples.iter().any(|one| one.thread == *tid && is_in(one, "count")))
        };
        ensure!(counters().count() == 4, "{} threads", counters().count());
        let (mut held, mut total) = (0.0, 0.0);
        for (thread, totals) in counters() {
            adds_up(thread, totals)?;
            held += totals.ran.as_secs_f64();
            total += wall(totals) / 4.0;
        }
        // Put aside with the GIL in hand it holds it on.
        held += seconds(samples.iter().filter(|one| one.state == CPU && one.holds_gil));
        // Between letting it go and the next one's being on a CPU nobody holds it.
        let handed_over = seconds(samples.iter().filter(|one| one.state == CPU && !one.holds_gil));
        ensure!(held <= total * 1.02, "the GIL was held {held} s of {total} s");
        ensure!(
            held + handed_over >= total * 0.98,
            "held {held} s, handed over {handed_over} s, of {total} s"
        );
        let waited = seconds(samples.iter().filter(|one| one.state == ThreadState::WaitingForGil));
        let rest = total * 4.0 - held;
        ensure!(
            waited > 0.0 && ((waited + handed_over) / rest - 1.0).abs() <= 0.02,
            "{waited} s of waiting for the GIL and {handed_over} s for a CPU, of {rest} s without it"
        );
        Ok(())
    });
}

#[test]
fn too_few_cpus_are_seen() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    let count = (2 * std::thread::available_parallelism()?.get()).to_string();
    let program = "threads_processes/threads_processes.py";
    let fixture = Fixture::start(one_interpreter(), program, &["--processes", &count])?;
    let child = *fixture.children().first().context("no child")?;
    let mut probe = attach(child, LEAST)?;
    let samples = watch(&mut probe, Duration::from_secs(1))?;
    fixture.finish()?;
    let (thread, totals) = probe.totals().next().context("no thread")?;
    adds_up(thread, totals)?;
    let queued = totals.waited.get(&CPU).map_or(0.0, |time| time.as_secs_f64()) / wall(totals);
    // Half of the time is what it gets if the scheduler is fair.
    ensure!(queued >= 0.3, "{queued} of its time it waited for a CPU: {totals:?}");
    ensure!(samples.iter().any(|one| one.state == CPU && is_in(one, "count_batch")), "no stack of it");
    Ok(())
}

/// What the kernel has not let go of in this time stays.
const PATIENCE: Duration = Duration::from_secs(20);

/// Set to have this test hold the programs of a process until it is killed.
const HOLD: &str = "PROFILER_TESTS_HOLD";

#[test]
fn nothing_stays_loaded_of_who_is_killed() -> Result<()> {
    if let Ok(pid) = std::env::var(HOLD) {
        let held = attach(pid.parse()?, LEAST);
        println!("holds: {}", held.is_ok());
        loop {
            std::thread::park();
        }
    }
    if !can_load_programs() {
        return Ok(());
    }
    let fixture = Fixture::start(one_interpreter(), "waiting/waiting.py", &[])?;
    let mut holder = Command::new(std::env::current_exe()?)
        .args(["--exact", "nothing_stays_loaded_of_who_is_killed", "--nocapture"])
        .env(HOLD, fixture.pid().to_string())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(holder.stdout.take().context("no stdout")?).lines();
    let said = lines.find_map(|line| line.ok().filter(|line| line.contains("holds: ")));
    let programs = programs_of(holder.id())?;
    let before = still_loaded(&programs);
    holder.kill()?;
    holder.wait()?;
    ensure!(said.is_some_and(|line| line.contains("holds: true")), "it holds nothing");
    ensure!(before.len() >= 2 && before == programs, "it holds {programs:?}, of which {before:?} are loaded");
    // The kernel lets go of them once no CPU can be in one any more.
    let end = Instant::now() + PATIENCE;
    while !still_loaded(&programs).is_empty() {
        ensure!(Instant::now() < end, "killed, but of {programs:?} are loaded {:?}", still_loaded(&programs));
        std::thread::yield_now();
    }
    Ok(())
}
