//! Clocks, sleeping until an instant, and what this process itself has used.

use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};
use procfs::process::Status;
use profiler_model::{Nanos, Timestamp};

use crate::proc_file::parsed;

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
    parsed(Path::new("/proc/self/status")).ok().and_then(|status| peak_memory(&status)).unwrap_or(0)
}

/// In bytes; `None` of a thread of the kernel.
fn peak_memory(status: &Status) -> Option<u64> {
    status.vmhwm?.checked_mul(1024)
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
    use crate::proc_file::status_with;

    #[test]
    fn peak_memory_is_read_from_the_status() {
        let status = status_with(&["VmPeak:\t  9000 kB", "VmHWM:\t    4652 kB"]);
        assert_eq!(peak_memory(&status), Some(4652 * 1024));
        assert_eq!(peak_memory(&status_with(&[])), None);
        assert!(own_peak_memory() > 0);
    }
}
