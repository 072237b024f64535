//! A profiler that is held up for so long that the kernel's ring is full: what was lost is reported, and the time of what was
//! lost is shown all the same.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use profiler_model::LossReason;
use profiler_os::clock;
use profiler_tests::suite::{Sampler, Test};
use profiler_tests::times::{BOUND, by_thread, seconds};
use profiler_tests::{
    Collapsed, Fixture, Profiler, Run, Running, Scratch, Stack, one_interpreter, test, wait_until_still,
};

/// This many absences do not fit the ring of 4 MiB.
const TOO_MANY: u64 = 40_000;

/// A program that does not do so much in this time does not do it at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// From the line `begin` on two threads hand a byte to and fro, one of them below a hundred calls; another waits until the line `go on` comes, and one
/// until the line `end` comes, when it works for a while and ends. Each line from stdin is answered: with how often the byte
/// went, or between which instants the last thread has ended.
const SWITCHES: &str = "\
import os, sys, threading, time
rounds = [0]
def hands(take, give):
    while True:
        rounds[0] += 1
        os.write(give, os.read(take, 1))
def deep(depth, take, give):
    if depth: deep(depth - 1, take, give)
    else: hands(take, give)
there, back = os.pipe(), os.pipe()
may_go_on, may_end = threading.Event(), threading.Event()
def waits_long():
    may_go_on.wait()
    threading.Event().wait()
ended = []
def now():
    return int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1e9)
def works():
    end = time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID) + 0.3
    while time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID) < end: pass
def ends():
    may_end.wait()
    works()
    ended.append(now())
def start(name, target, *arguments):
    thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
    thread.start()
    return thread
start('shallow', hands, there[0], back[1])
start('deep', deep, 100, back[0], there[1])
start('long', waits_long)
ending = start('ending', ends)
print('ready', os.getpid(), flush=True)
for line in sys.stdin:
    if line == 'begin\\n': os.write(there[1], b'.')
    if line == 'go on\\n': may_go_on.set()
    if line == 'end\\n':
        may_end.set()
        ending.join()
        # It may still wait for a CPU to end on.
        while os.path.exists('/proc/self/task/%d' % ending.native_id): time.sleep(0.001)
        print(ended[0], now(), flush=True)
    else: print(rounds[0], flush=True)
";

/// Waits until the fixture has counted so much more.
fn goes_on(fixture: &mut Fixture, number: u64) -> Result<()> {
    let mut count = || -> Result<u64> { Ok(fixture.ask("")?.trim().parse()?) };
    let limit = Instant::now() + PATIENCE;
    let enough = count()? + number;
    while count()? < enough {
        ensure!(Instant::now() < limit, "it does not go on");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn shown(scratch: &Scratch) -> Result<Collapsed> {
    Collapsed::parse(&fs::read_to_string(scratch.file("out.txt"))?)
}

/// The seconds for which a thread waited for a file with a stack that was lost for this reason.
fn waited_without_stack(profile: &Collapsed, thread: &str, reason: LossReason) -> f64 {
    let lost = format!("<stack lost: {reason}>");
    seconds(profile, |stack: &Stack| {
        let has = |function: &str| stack.frames.iter().any(|frame| frame.function == function);
        stack.thread.as_deref() == Some(thread) && has(&lost) && has("<waiting: file>")
    })
}

/// Ends a recording; returns it, and between which instants it ended.
fn end(running: Running) -> Result<(Run, [u64; 2])> {
    let before = clock::now().as_nanos();
    running.signal(Signal::SIGINT)?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    Ok((run, [before, clock::now().as_nanos()]))
}

fn full_ring_costs_stacks_and_no_time() -> Result<()> {
    let mut fixture = Fixture::inline(one_interpreter(), SWITCHES)?;
    // So the stacks that its threads have in the beginning can be taken.
    wait_until_still(fixture.pid())?;
    let scratch = Scratch::new()?;
    let record = Profiler::new("record").words("--mode wall --sampler bpf --min-wait 0 -t -f raw -r 500 -o");
    let mut running = record.arg(scratch.file("out.txt")).pid(&fixture).spawn()?;
    running.wait_until_sampling()?;
    fixture.ask("begin")?;
    // What lasts is recorded once a second: of the long wait a part is recorded by then.
    std::thread::sleep(Duration::from_millis(1200));
    running.signal(Signal::SIGSTOP)?;
    goes_on(&mut fixture, TOO_MANY)?;
    fixture.ask("go on")?;
    let answer = fixture.ask("end")?;
    let (had_worked, had_ended) = answer.trim().split_once(' ').context("no two instants")?;
    let ended = [had_worked.parse()?, had_ended.parse()?];
    running.signal(Signal::SIGCONT)?;
    goes_on(&mut fixture, 100)?;
    let (run, over) = end(running)?;
    let profile = shown(&scratch)?;
    let elapsed = run.sampled_for()?;
    must_show_all_threads(&profile, elapsed, ended, over)?;
    ensure!(run.ledger()?.lost_for(&LossReason::BufferFull.to_string()) > 0, "{:?}", run.ledger());
    for thread in ["shallow", "deep"] {
        let lost = |reason| waited_without_stack(&profile, thread, reason);
        ensure!(lost(LossReason::BufferFull) > 0.0, "{thread}: no waits without room: {:?}", profile.ledger);
        // A stack that found no room was taken. None was of an absence in which the thread came back unseen.
        let not_taken = lost(LossReason::NotTaken);
        ensure!(not_taken <= BOUND * elapsed, "{thread}: {not_taken} s not taken of {elapsed} s");
        ensure!(lost(LossReason::Late) == 0.0, "{thread}: a wait is never late");
    }
    Ok(())
}

/// Every thread is shown for as long as it was there: the one that ended did so between two instants, and the recording
/// between two others.
fn must_show_all_threads(profile: &Collapsed, elapsed: f64, ended: [u64; 2], over: [u64; 2]) -> Result<()> {
    let mut threads = by_thread(profile);
    let time = threads.remove("ending").with_context(|| format!("no thread that ended: {threads:?}"))?;
    let lasted = |ended: u64, over: u64| elapsed - over.saturating_sub(ended) as f64 / 1e9;
    let (least, most) = (lasted(ended[0], over[1]), lasted(ended[1], over[0]));
    ensure!(
        time >= least - BOUND * elapsed && time <= most + BOUND * elapsed,
        "the one that ended: {time} s, {least} to {most} of {elapsed}"
    );
    ensure!(threads.len() == 4, "{threads:?}");
    for (thread, time) in &threads {
        ensure!((time / elapsed - 1.0).abs() <= BOUND, "{thread}: {time} s of {elapsed} s: {threads:?}");
    }
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(full_ring_costs_stacks_and_no_time).by(&[Sampler::Bpf])]
}
