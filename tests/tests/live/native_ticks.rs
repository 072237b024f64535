//! Ticks of threads without Python, which the in-kernel program counts by thread: each once, however often they are read
//! meanwhile. How much CPU time they stand for is for tier 3.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::unistd::gettid;
use profiler_bpf::{KernelSampler, Layout, NativeTicks, Record, ThreadEntry};
use profiler_model::{Nanos, Pid, Tid};
use profiler_os::clock;
use profiler_tests::suite::{Sampler, Test};
use profiler_tests::test;

const PERIOD: Nanos = Nanos::from_nanos(200_000);

/// The number of ticks that are waited for.
const TICKS: u64 = 500;

/// No number of ticks takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

fn own_process() -> Pid {
    Pid::new(std::process::id())
}

/// Other threads of this process are met as well, if other tests run in it.
fn own_thread() -> Tid {
    Tid::new(gettid().as_raw().cast_unsigned())
}

/// What has been counted, and how many records have come.
#[derive(Debug, Default)]
struct Received {
    threads: HashMap<Tid, u64>,
    unattributed: u64,
    records: u64,
}

impl Received {
    fn take(&mut self, kernel: &mut KernelSampler) -> Result<()> {
        let counts = kernel.take_native_ticks()?;
        for NativeTicks { process, thread, ticks, .. } in counts.threads {
            ensure!(process == own_process(), "ticks of {process}");
            *self.threads.entry(thread).or_default() += ticks;
        }
        self.unattributed += counts.unattributed_ticks;
        kernel.read(&mut |record| self.records += u64::from(matches!(record, Record::Stack(_))));
        Ok(())
    }

    fn of_this_thread(&self) -> u64 {
        self.threads.get(&own_thread()).copied().unwrap_or(0)
    }

    fn counted(&self) -> u64 {
        self.threads.values().sum::<u64>() + self.unattributed
    }

    /// Takes what comes while this thread works, until it has had [`TICKS`] more.
    fn take_more(&mut self, kernel: &mut KernelSampler) -> Result<()> {
        let (limit, before) = (Instant::now() + PATIENCE, self.of_this_thread());
        while self.of_this_thread() < before + TICKS {
            ensure!(Instant::now() < limit, "{self:?}");
            self.take(kernel)?;
        }
        Ok(())
    }
}

fn process_without_layout_has_each_tick_counted_once() -> Result<()> {
    let mut kernel = KernelSampler::load(clock::cpus(), false, None)?;
    kernel.set_process(own_process())?;
    kernel.tick(PERIOD)?;
    let mut received = Received::default();
    received.take_more(&mut kernel)?;
    kernel.stop_ticking();
    received.take(&mut kernel)?;
    let events = kernel.events()?;
    ensure!(received.counted() == events && received.records == 0, "{received:?} of {events}");
    // An entry in which nothing is new is removed: the thread gets another one.
    received.take(&mut kernel)?;
    received.take(&mut kernel)?;
    kernel.tick(PERIOD)?;
    received.take_more(&mut kernel)?;
    kernel.stop_ticking();
    received.take(&mut kernel)?;
    let events = kernel.events()?;
    ensure!(received.counted() == events, "{received:?} of {events} with another entry");
    Ok(())
}

fn layout_ends_counting_of_unregistered_threads() -> Result<()> {
    let mut kernel = KernelSampler::load(clock::cpus(), false, None)?;
    kernel.set_process(own_process())?;
    kernel.set_layout(own_process(), 0, &Layout::default())?;
    kernel.set_process(own_process())?;
    kernel.set_thread(own_thread(), &ThreadEntry::default())?;
    kernel.tick(PERIOD)?;
    let mut received = Received::default();
    received.take_more(&mut kernel)?;
    kernel.forget_thread(own_thread());
    let limit = Instant::now() + PATIENCE;
    while received.records < TICKS {
        ensure!(Instant::now() < limit, "{received:?}");
        received.take(&mut kernel)?;
    }
    kernel.stop_ticking();
    received.take(&mut kernel)?;
    let (events, lost) = (kernel.events()?, kernel.counters()?.ring_full);
    ensure!(received.counted() + received.records + lost == events, "{received:?}, {lost} of {events}");
    ensure!(received.threads.len() == 1, "threads that are not registered: {received:?}");
    Ok(())
}

fn no_tick_counts_after_the_end() -> Result<()> {
    let mut kernel = KernelSampler::load(clock::cpus(), false, None)?;
    kernel.set_process(own_process())?;
    kernel.tick(PERIOD)?;
    let mut received = Received::default();
    received.take_more(&mut kernel)?;
    let end = clock::now();
    kernel.end_native_ticks(end)?;
    let (events, limit) = (kernel.events()?, Instant::now() + PATIENCE);
    while kernel.events()? < events + TICKS {
        ensure!(Instant::now() < limit, "{} of {events}", kernel.events()?);
    }
    // Some were there already when the end was set.
    let counts = kernel.take_native_ticks()?;
    ensure!(counts.unattributed_ticks == 0, "{counts:?}");
    ensure!(counts.threads.iter().all(|thread| thread.ticks < TICKS / 10), "{counts:?}");
    ensure!(kernel.take_native_ticks()?.threads.is_empty(), "ticks after the end");
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    const BPF: &[Sampler] = &[Sampler::Bpf];
    vec![
        test!(process_without_layout_has_each_tick_counted_once).by(BPF),
        test!(layout_ends_counting_of_unregistered_threads).by(BPF),
        test!(no_tick_counts_after_the_end).by(BPF),
    ]
}
