//! The clocks of CPUs by which the in-kernel program runs, asked directly: what one tells of itself when it takes the place
//! of another. What becomes of it in a recording is for `in_kernel` and `in_the_way`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::gettid;
use profiler_bpf::{KernelSampler, Layout, Record};
use profiler_model::{Nanos, Pid};
use profiler_os::clock;
use profiler_tests::can_load_programs;

/// The period of the first clock; the second one has twice as much, so that it has counted more at its first tick than the
/// first one had.
const PERIOD: Nanos = Nanos::from_nanos(5_000_000);

/// No clock rests for longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a tick tells of its clock.
#[derive(Clone, Copy, Debug)]
struct Tick {
    weight: Nanos,
    missed: u64,
}

/// Works until a tick has met this thread.
fn next_tick(kernel: &mut KernelSampler) -> Result<Tick> {
    let own = gettid().as_raw().cast_unsigned();
    let limit = Instant::now() + PATIENCE;
    let mut found = None;
    while found.is_none() {
        ensure!(Instant::now() < limit, "no tick");
        kernel.read(&mut |record| {
            if let Record::Stack(stack) = record
                && stack.thread().as_u32() == own
                && found.is_none()
            {
                found = Some(Tick { weight: stack.weight(), missed: stack.missed() });
            }
        });
    }
    found.context("no tick")
}

#[test]
fn a_new_clock_knows_nothing_of_the_one_before() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    // All ticks are of one CPU.
    let mut first_cpu = CpuSet::new();
    first_cpu.set(0)?;
    sched_setaffinity(gettid(), &first_cpu)?;
    let mut kernel = KernelSampler::load(clock::cpus(), false, None)?;
    kernel.set_layout(Pid::new(std::process::id()), &Layout::default())?;
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

#[test]
fn samples_that_find_no_room_are_counted() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    let mut kernel = KernelSampler::load(clock::cpus(), false, None)?;
    kernel.set_layout(Pid::new(std::process::id()), &Layout::default())?;
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
