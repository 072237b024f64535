//! The clocks of CPUs by which the in-kernel program runs, asked directly: what one reports when it takes the place of another,
//! and whether a tick knows what was set last. What becomes of it in a recording is for `in_kernel` and `in_the_way`.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::gettid;
use profiler_bpf::{KernelSampler, Layout, Outcome, Record, StackRecord, ThreadEntry};
use profiler_model::{Nanos, Pid, Tid, Timestamp};
use profiler_os::clock;
use profiler_tests::suite::{Sampler, Test};
use profiler_tests::test;

/// The period of the first clock; the second one has twice as much, so that it has counted more at its first tick than the
/// first one had.
const PERIOD: Nanos = Nanos::from_nanos(5_000_000);

/// No clock rests for longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The number of ticks whose time is added up.
const TICKS: usize = 500;

/// What a tick reports of its clock.
#[derive(Clone, Copy, Debug)]
struct Tick {
    time: Timestamp,
    weight: Nanos,
    missed: u64,
    outcome: Outcome,
}

impl Tick {
    fn of(stack: &StackRecord<'_>) -> Self {
        Tick { time: stack.time(), weight: stack.weight(), missed: stack.missed(), outcome: stack.outcome() }
    }
}

/// Works until this number of ticks has met this thread.
fn next_ticks(kernel: &mut KernelSampler, count: usize) -> Result<Vec<Tick>> {
    let own = gettid().as_raw().cast_unsigned();
    let limit = Instant::now() + PATIENCE;
    let mut found = Vec::new();
    while found.len() < count {
        ensure!(Instant::now() < limit, "{} ticks of {count}", found.len());
        kernel.read(&mut |record| match record {
            Record::Stack(stack) if stack.thread().as_u32() == own => found.push(Tick::of(&stack)),
            _ => {}
        });
    }
    Ok(found)
}

/// The first of them.
fn next_tick(kernel: &mut KernelSampler) -> Result<Tick> {
    next_ticks(kernel, 1)?.first().copied().context("no tick")
}

/// Runs a test on a thread whose ticks are all of one CPU. It is a thread of its own, as others run on after the test.
fn on_first_cpu(test: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    let pinned = || -> Result<()> {
        let mut first_cpu = CpuSet::new();
        first_cpu.set(0)?;
        sched_setaffinity(gettid(), &first_cpu)?;
        test()
    };
    thread::scope(|scope| scope.spawn(pinned).join().unwrap_or_else(|_| bail!("the test panicked")))
}

/// The outcome of the first tick that comes from now on.
fn outcome_from_now_on(kernel: &mut KernelSampler) -> Result<Outcome> {
    let now = clock::now();
    loop {
        let tick = next_tick(kernel)?;
        if tick.time > now {
            return Ok(tick.outcome);
        }
    }
}

/// Whether the next tick of this thread that is counted or reported from now on is counted as one without Python.
fn is_native_from_now_on(kernel: &mut KernelSampler, thread: Tid) -> Result<bool> {
    let (now, limit) = (clock::now(), Instant::now() + PATIENCE);
    loop {
        ensure!(Instant::now() < limit, "no tick");
        let counts = kernel.take_native_ticks()?;
        let mut is_reported = false;
        kernel.read(&mut |record| {
            if let Record::Stack(stack) = record {
                is_reported |= stack.thread() == thread && stack.time() > now;
            }
        });
        let is_counted = counts.threads.iter().any(|native| native.thread == thread && native.last > now);
        if is_counted || is_reported {
            return Ok(!is_reported);
        }
    }
}

fn next_tick_knows_what_was_set_last() -> Result<()> {
    on_first_cpu(changes_reach_the_next_tick)
}

fn changes_reach_the_next_tick() -> Result<()> {
    let (process, thread) = (Pid::new(std::process::id()), Tid::new(gettid().as_raw().cast_unsigned()));
    let mut kernel = KernelSampler::load(clock::cpus(), false, None)?;
    kernel.set_layout(process, 0, &Layout::default())?;
    kernel.tick(Nanos::from_nanos(200_000))?;
    for _ in 0..20 {
        ensure!(outcome_from_now_on(&mut kernel)? == Outcome::UnknownThread, "the thread is not set");
        kernel.set_thread(thread, &ThreadEntry::default())?;
        ensure!(is_native_from_now_on(&mut kernel, thread)?, "the thread is set to run no Python");
        kernel.forget_thread(thread);
    }
    kernel.forget_process(process);
    let (events, now) = (kernel.events()?, clock::now());
    while clock::now() < now + PERIOD {}
    ensure!(kernel.events()? == events, "ticks that met a process that is forgotten");
    Ok(())
}

/// Most ticks are punctual and do not ask their clock.
fn ticks_stand_for_the_time_between_them() -> Result<()> {
    on_first_cpu(|| ticks_stand_for_their_time(Nanos::from_nanos(1_000_000)))
}

/// Those that come too often are let rest.
fn frequent_ticks_stand_for_the_time_between_them() -> Result<()> {
    on_first_cpu(|| ticks_stand_for_their_time(Nanos::from_nanos(20_000)))
}

fn ticks_stand_for_their_time(period: Nanos) -> Result<()> {
    let mut kernel = KernelSampler::load(clock::cpus(), false, None)?;
    kernel.set_layout(Pid::new(std::process::id()), 0, &Layout::default())?;
    kernel.tick(period)?;
    let ticks = next_ticks(&mut kernel, TICKS)?;
    let (mut weighed, mut passed) = (0, 0);
    for pair in ticks.windows(2) {
        let since = pair[1].time.since(pair[0].time).as_nanos();
        ensure!(pair[1].weight.as_nanos() <= since, "stands for more than {since} ns: {:?}", pair[1]);
        // Otherwise one in between may have met another thread.
        if since < period.as_nanos() * 3 / 2 {
            passed += since;
            weighed += pair[1].weight.as_nanos();
        }
    }
    ensure!(passed > 100 * period.as_nanos(), "hardly a tick came after another: {passed} ns of {ticks:?}");
    ensure!(weighed.abs_diff(passed) < passed / 100, "ticks stand for {weighed} ns of {passed}");
    Ok(())
}

fn new_clock_knows_nothing_of_the_one_before() -> Result<()> {
    on_first_cpu(clocks_are_replaced)
}

fn clocks_are_replaced() -> Result<()> {
    let mut kernel = KernelSampler::load(clock::cpus(), false, None)?;
    kernel.set_layout(Pid::new(std::process::id()), 0, &Layout::default())?;
    kernel.tick(PERIOD)?;
    next_tick(&mut kernel)?;
    kernel.stop_ticking();
    // Of the first clock nothing is left to be read, and many of its ticks would have been due.
    kernel.read(&mut |_| {});
    let rest = clock::now() + Nanos::from_nanos(20 * PERIOD.as_nanos());
    while !clock::sleep_until(rest) {}
    let period = Nanos::from_nanos(2 * PERIOD.as_nanos());
    kernel.tick(period)?;
    let tick = next_tick(&mut kernel)?;
    ensure!(tick.missed == 0, "ticks of a clock that there was not: {tick:?}");
    // What the first clock had counted is half of it.
    let least = Nanos::from_nanos(period.as_nanos() / 4 * 3);
    ensure!(tick.weight >= least, "what the clock before had counted is missing: {tick:?}");
    Ok(())
}

fn samples_that_find_no_room_are_counted() -> Result<()> {
    let mut kernel = KernelSampler::load(clock::cpus(), false, None)?;
    kernel.set_layout(Pid::new(std::process::id()), 0, &Layout::default())?;
    kernel.tick(Nanos::from_nanos(50_000))?;
    let limit = Instant::now() + PATIENCE;
    while kernel.counters()?.ring_full < 100 {
        ensure!(Instant::now() < limit, "the ring is not filled: {:?}", kernel.counters()?);
    }
    kernel.stop_ticking();
    let mut read = 0;
    kernel.read(&mut |record| read += u64::from(matches!(record, Record::Stack(_))));
    let (events, counted) = (kernel.events()?, kernel.counters()?);
    ensure!(read > 1000 && events == read + counted.ring_full, "{read} of {events}, {counted:?}");
    // There is room again.
    kernel.tick(Nanos::from_nanos(1_000_000))?;
    next_tick(&mut kernel)?;
    ensure!(kernel.counters()?.ring_full == counted.ring_full, "lost in an empty ring");
    ensure!(kernel.events()? > events, "what the clock before had found is forgotten");
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    const BPF: &[Sampler] = &[Sampler::Bpf];
    vec![
        test!(next_tick_knows_what_was_set_last).by(BPF),
        test!(ticks_stand_for_the_time_between_them).by(BPF),
        test!(frequent_ticks_stand_for_the_time_between_them).by(BPF),
        test!(new_clock_knows_nothing_of_the_one_before).by(BPF),
        test!(samples_that_find_no_room_are_counted).by(BPF),
    ]
}
