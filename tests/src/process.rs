//! What `/proc` says about a process under test.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// No test waits longer than this for a process to come to rest.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The state letter of a thread: `R`, `S`, `T`, `t`...
pub fn state_of(pid: u32, tid: u32) -> Result<char> {
    let path = format!("/proc/{pid}/task/{tid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
    let after_name = stat.rfind(')').context("no name in stat")?;
    stat[after_name + 1..].trim_start().chars().next().context("no state in stat")
}

/// The state letter of the main thread.
pub fn process_state(pid: u32) -> Result<char> {
    state_of(pid, pid)
}

/// The process that traces this one; 0 when none does.
pub fn tracer_of(pid: u32) -> Result<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
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

/// CPU time that all live threads of the process have used.
pub fn cpu_nanos(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for tid in threads_of(pid)? {
        let schedstat = fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat"))?;
        sum += schedstat.split(' ').next().context("empty schedstat")?.parse::<u64>()?;
    }
    Ok(sum)
}

/// How often the threads of the process went to sleep of their own accord.
pub(crate) fn voluntary_switches(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for tid in threads_of(pid)? {
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")) else { continue };
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sum += line.context("no switches in status")?.trim().parse::<u64>()?;
    }
    Ok(sum)
}

/// Returns when every thread of the process sleeps and none has run for a while. A thread that has announced
/// itself still has to reach the place where it waits; once nothing runs any more, it is there.
pub fn wait_until_still(pid: u32) -> Result<()> {
    let limit = Instant::now() + LONGEST_WAIT;
    let asleep = |pid| -> Result<bool> {
        Ok(threads_of(pid)?.into_iter().all(|tid| matches!(state_of(pid, tid), Ok('S'))))
    };
    let mut still = 0;
    let mut before = cpu_nanos(pid)?;
    while still < 5 {
        if Instant::now() > limit {
            bail!("process {pid} does not come to rest");
        }
        std::thread::sleep(Duration::from_millis(2));
        let now = cpu_nanos(pid)?;
        still = if now == before && asleep(pid)? { still + 1 } else { 0 };
        before = now;
    }
    Ok(())
}
