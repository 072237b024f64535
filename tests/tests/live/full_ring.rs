//! A profiler that is held up for so long that the kernel's ring is full: what was lost is told, and the time of what was
//! lost is shown all the same.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use profiler_os::clock;
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    Collapsed, Fixture, Profiler, Run, Running, Scratch, can_load_programs, one_interpreter,
};

/// How far the time that is shown may be off.
const BOUND: f64 = 0.01;

/// So many absences or ticks do not fit the ring of 4 MiB.
const TOO_MANY: u64 = 40_000;

/// A program that does not do so much in this time does not do it at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two threads hand a byte to and fro, one of them below a hundred calls; another waits until it is told to go on,
/// and one until it is to work for a while and end. Each line from stdin is answered: with how often the byte went, or
/// between which instants the last one has ended.
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
os.write(there[1], b'.')
print('ready', os.getpid(), flush=True)
for line in sys.stdin:
    if line == 'go on\\n': may_go_on.set()
    if line == 'end\\n':
        may_end.set()
        ending.join()
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

/// The seconds of each thread.
fn threads(profile: &Collapsed) -> BTreeMap<&str, f64> {
    let mut threads = BTreeMap::new();
    for stack in &profile.stacks {
        *threads.entry(stack.thread.as_deref().unwrap_or_default()).or_default() += stack.count as f64 / 1e9;
    }
    threads
}

fn seconds(profile: &Collapsed, thread: &str, place: &str, reason: &str) -> f64 {
    let functions = |stack: &profiler_tests::Stack| -> bool {
        let has = |function: &str| stack.frames.iter().any(|frame| frame.function == function);
        stack.thread.as_deref() == Some(thread) && has(place) && has(reason)
    };
    profile.count(functions) as f64 / 1e9
}

/// Ends a recording; returns it, and between which instants it ended.
fn end(running: Running) -> Result<(Run, [u64; 2])> {
    let before = clock::now().as_nanos();
    running.signal(Signal::SIGINT)?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    Ok((run, [before, clock::now().as_nanos()]))
}

fn all_of_the_time_is_shown_where_the_ring_was_full() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    let mut fixture = Fixture::inline(one_interpreter(), SWITCHES)?;
    let scratch = Scratch::new()?;
    let record = Profiler::new("record").words("--mode wall --min-wait 0 -t -f raw -r 500 -o");
    let mut running = record.arg(scratch.file("out.txt")).pid(&fixture).spawn()?;
    running.wait_until_sampling()?;
    // What lasts is told once a second: of the long wait a part is told by then.
    std::thread::sleep(Duration::from_millis(1200));
    running.signal(Signal::SIGSTOP)?;
    goes_on(&mut fixture, TOO_MANY)?;
    fixture.ask("go on")?;
    let answer = fixture.ask("end")?;
    let (had_worked, had_ended) = answer.trim().split_once(' ').context("no two instants")?;
    let (had_worked, had_ended): (u64, u64) = (had_worked.parse()?, had_ended.parse()?);
    running.signal(Signal::SIGCONT)?;
    goes_on(&mut fixture, 100)?;
    let (run, [earliest, latest]) = end(running)?;
    run.must_say(&["buffer full"])?;
    let (profile, elapsed) = (shown(&scratch)?, run.sampled_for()?);
    let mut threads = threads(&profile);
    let time = threads.remove("ending").context("no thread that ended")?;
    let lasted = |ended: u64, over: u64| elapsed - over.saturating_sub(ended) as f64 / 1e9;
    let (least, most) = (lasted(had_worked, latest), lasted(had_ended, earliest));
    ensure!(
        time >= least - BOUND * elapsed && time <= most + BOUND * elapsed,
        "the one that ended: {time} s, {least} to {most} of {elapsed}"
    );
    ensure!(threads.len() == 4, "{threads:?}");
    for (thread, time) in &threads {
        ensure!((time / elapsed - 1.0).abs() <= BOUND, "{thread}: {time} s of {elapsed} s: {threads:?}");
    }
    let lost = |thread| seconds(&profile, thread, "<stack lost: buffer full>", "<waiting: file>");
    ensure!(lost("shallow") > 0.0 && lost("deep") > 0.0, "what it waited for is not told: {profile:?}");
    ensure!(seconds(&profile, "deep", "<stack lost: late>", "<waiting: file>") == 0.0, "{profile:?}");
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(all_of_the_time_is_shown_where_the_ring_was_full)]
}
