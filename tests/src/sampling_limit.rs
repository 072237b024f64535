//! The kernel's limit to the rate of samples, which is one for the whole machine: a test that lowers it and all that
//! run the profiler keep each other out by a lock on its file, in whatever way and in however many processes they run.

use std::fs::{self, File};

use anyhow::{Context, Result, anyhow};
use nix::fcntl::{Flock, FlockArg};

const LIMIT: &str = "/proc/sys/kernel/perf_event_max_sample_rate";

/// Waits for the lock: everybody sees the same file, and no name is left behind.
fn lock(how: FlockArg) -> Result<Flock<File>> {
    let file = File::open(LIMIT).context(LIMIT)?;
    Flock::lock(file, how).map_err(|(_, error)| anyhow!("{LIMIT}: {error}"))
}

/// The limit is what it usually is, for as long as this is held, by any number of tests at a time.
#[derive(Debug)]
pub struct UsualLimit {
    _lock: Flock<File>,
}

impl UsualLimit {
    /// Waits until nobody has lowered it.
    pub fn hold() -> Result<Self> {
        Ok(UsualLimit { _lock: lock(FlockArg::LockShared)? })
    }
}

/// The limit lowered, as the kernel itself does it when samples take too long; put back with this.
#[derive(Debug)]
pub struct LoweredLimit {
    before: String,
    _lock: Flock<File>,
}

impl LoweredLimit {
    /// Waits until nobody counts samples, and lowers it.
    pub fn to(rate: u32) -> Result<Self> {
        let limit = LoweredLimit::later()?;
        limit.lower_to(rate)?;
        Ok(limit)
    }

    /// Waits until nobody counts samples, and leaves it as it is for the moment.
    pub fn later() -> Result<Self> {
        let lock = lock(FlockArg::LockExclusive)?;
        Ok(LoweredLimit { before: fs::read_to_string(LIMIT)?, _lock: lock })
    }

    /// Lowers it.
    pub fn lower_to(&self, rate: u32) -> Result<()> {
        fs::write(LIMIT, rate.to_string()).context(LIMIT)
    }
}

impl Drop for LoweredLimit {
    fn drop(&mut self) {
        // The lock is let go of afterwards, with the file.
        let _ = fs::write(LIMIT, &self.before);
    }
}
