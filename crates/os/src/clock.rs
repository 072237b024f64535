//! Clocks, sleeping until an instant, and what this process itself has used.

use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};
use profiler_model::{Nanos, Timestamp};

use crate::proc_text::text_of;

/// The present instant on the monotonic clock.
pub fn now() -> Timestamp {
    Timestamp::from_nanos(read(ClockId::CLOCK_MONOTONIC))
}

/// CPU time that this process has used, in user and kernel mode, all threads.
pub fn own_cpu_time() -> Nanos {
    Nanos::from_nanos(read(ClockId::CLOCK_PROCESS_CPUTIME_ID))
}

fn read(clock: ClockId) -> u64 {
    // These clocks exist on every Linux; a failure is impossible, and zero is harmless.
    clock_gettime(clock).map_or(0, |t| Duration::from(t).as_nanos() as u64)
}

/// Sleeps until `instant` or until a signal arrives; returns whether the instant has come.
pub fn sleep_until(instant: Timestamp) -> bool {
    let wake = TimeSpec::from_duration(Duration::from_nanos(instant.as_nanos()));
    let slept = clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &wake);
    slept != Err(Errno::EINTR)
}

/// Largest resident memory that this program has had, in bytes. What `getrusage` tells includes the program
/// that this process was before it became this one, such as a Python that started the profiler.
pub fn own_peak_memory() -> u64 {
    text_of(Path::new("/proc/self/status")).ok().and_then(|status| peak_memory(&status)).unwrap_or(0)
}

fn peak_memory(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Asks the kernel to wake this thread on time: by default it may let sleepers oversleep by 50 µs.
pub fn want_exact_wakeups() {
    // Best effort: without it samples are a little late and lose nothing.
    let _ = nix::sys::prctl::set_timerslack(1);
}

/// How many CPUs may ever be on line: their numbers lie below it.
pub fn cpus() -> u32 {
    let possible = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    let last = possible.trim().rsplit(['-', ',']).next().and_then(|last| last.parse().ok());
    last.map_or(1, |last: u32| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_memory_is_read_from_the_status() {
        assert_eq!(peak_memory("VmPeak:\t  9000 kB\nVmHWM:\t    4652 kB\n"), Some(4652 * 1024));
        assert_eq!(peak_memory("Name:\tkthreadd\n"), None);
        assert!(own_peak_memory() > 0);
    }
}
