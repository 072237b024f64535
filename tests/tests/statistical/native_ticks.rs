//! The CPU time for which ticks of threads without Python stand.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::gettid;
use profiler_bpf::KernelSampler;
use profiler_model::{Nanos, Pid, Tid};
use profiler_os::clock;
use profiler_tests::suite::{Sampler, Test};
use profiler_tests::test;

const PERIOD: Nanos = Nanos::from_nanos(1_000_000);
const WORK: Duration = Duration::from_secs(3);
/// More than there are CPUs on a small machine.
const THREADS: usize = 3;
/// What a thread is shown for differs from its CPU time by at most this part, as in `in_kernel`.
const BOUND: f64 = 0.05;

/// Works until it is over; returns the thread and its CPU time.
fn work(is_over: &AtomicBool) -> Result<(Tid, Duration)> {
    while !is_over.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
    let used = Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?);
    Ok((Tid::new(gettid().as_raw().cast_unsigned()), used))
}

fn ticks_of_threads_stand_for_their_cpu_time() -> Result<()> {
    let mut kernel = KernelSampler::load(clock::cpus(), false, None)?;
    kernel.set_process(Pid::new(std::process::id()))?;
    kernel.tick(PERIOD)?;
    let is_over = AtomicBool::new(false);
    let used = thread::scope(|scope| -> Result<Vec<(Tid, Duration)>> {
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| work(&is_over))).collect();
        thread::sleep(WORK);
        is_over.store(true, Ordering::Relaxed);
        workers.into_iter().map(|worker| worker.join().ok().context("it panicked")?).collect()
    })?;
    kernel.stop_ticking();
    let counts = kernel.take_native_ticks()?;
    ensure!(counts.unattributed_ticks == 0, "{counts:?}");
    let shown: HashMap<Tid, Nanos> =
        counts.threads.iter().map(|thread| (thread.thread, thread.weight)).collect();
    for (thread, used) in &used {
        let shown = shown.get(thread).with_context(|| format!("no tick of {thread}: {counts:?}"))?;
        let share = shown.as_secs_f64() / used.as_secs_f64();
        ensure!((share - 1.0).abs() < BOUND, "{shown:?} of {used:?} of {thread}: {counts:?}");
    }
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(ticks_of_threads_stand_for_their_cpu_time).by(&[Sampler::Bpf])]
}
