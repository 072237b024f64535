//! What `/proc` says about a process under test.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// No test waits longer than this for a process to come to rest.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The state letter of a thread: `R`, `S`, `T`, `t`...
pub fn state_of(pid: u32, tid: u32) -> Result<char> {
    let path = format!("/proc/{pid}/task/{tid}/stat");
    let stat = fs::read(&path).with_context(|| path.clone())?;
    let stat = String::from_utf8_lossy(&stat);
    let after_name = stat.rfind(')').context("no name in stat")?;
    stat[after_name + 1..].trim_start().chars().next().context("no state in stat")
}

/// The state letter of the main thread.
pub fn process_state(pid: u32) -> Result<char> {
    state_of(pid, pid)
}

/// The process that traces this one; 0 when none does.
pub fn tracer_of(pid: u32) -> Result<u32> {
    // The process names itself, and not always in UTF-8.
    let status = fs::read(format!("/proc/{pid}/status"))?;
    let status = String::from_utf8_lossy(&status);
    let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    Ok(line.context("no TracerPid")?.trim().parse()?)
}

/// The ids of a process's threads.
fn threads_of(pid: u32) -> Result<Vec<u32>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        threads.push(entry?.file_name().to_string_lossy().parse()?);
    }
    Ok(threads)
}

/// CPU time that the process has used, with that of threads which have ended: a sum over those that are there may be
/// less than it was, or meet one that is gone.
pub fn cpu_nanos(pid: u32) -> Result<u64> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid)?))?;
    let time = clock.now().with_context(|| format!("the CPU clock of process {pid}"))?;
    Ok(u64::try_from(time.tv_sec())? * 1_000_000_000 + u64::try_from(time.tv_nsec())?)
}

/// How often the main thread of the process went to sleep of its own accord.
pub(crate) fn voluntary_switches(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    Ok(line.context("no switches in status")?.trim().parse()?)
}

/// Returns when every thread of the process sleeps and none has run for a while. A thread that has announced
/// itself still has to reach the place where it waits; once nothing runs any more, it is there.
pub fn wait_until_still(pid: u32) -> Result<()> {
    wait_until_all_are_still(pid, |_| true)
}

/// The same of all threads but the main one, which works on.
pub fn wait_until_others_are_still(pid: u32) -> Result<()> {
    wait_until_all_are_still(pid, |tid| tid != pid)
}

fn wait_until_all_are_still(pid: u32, is_meant: impl Fn(u32) -> bool) -> Result<()> {
    let limit = Instant::now() + LONGEST_WAIT;
    let mut still = 0;
    let mut before = Vec::new();
    while still < 5 {
        if Instant::now() > limit {
            bail!("process {pid} does not come to rest");
        }
        std::thread::sleep(Duration::from_millis(2));
        let meant = || Ok::<_, anyhow::Error>(threads_of(pid)?.into_iter().filter(|tid| is_meant(*tid)));
        // One that has just ended has none.
        let now: Vec<_> = meant()?.map(|tid| run_time(pid, tid).ok()).collect();
        let asleep = meant()?.all(|tid| matches!(state_of(pid, tid), Ok('S')));
        still = if now == before && asleep { still + 1 } else { 0 };
        before = now;
    }
    Ok(())
}

/// For how long a thread has run, in nanoseconds.
fn run_time(pid: u32, tid: u32) -> Result<u64> {
    let schedstat = fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat"))?;
    Ok(schedstat.split(' ').next().context("empty schedstat")?.parse()?)
}
