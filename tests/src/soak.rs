//! For how long a test of the soak program repeats what it does.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The variable with the seconds that each soak test runs.
pub const SOAK_VARIABLE: &str = "PROFILER_TESTS_SOAK_SECONDS";

const DEFAULT_SECONDS: u64 = 60;

/// Repeats a round until the soak time is over; one round at least.
///
/// # Errors
/// When a round fails, or the variable holds no number.
pub fn soak(mut round: impl FnMut() -> Result<()>) -> Result<()> {
    let seconds = match std::env::var(SOAK_VARIABLE) {
        Ok(text) => {
            text.parse().with_context(|| format!("{SOAK_VARIABLE}: {text:?} is no number of seconds"))?
        }
        Err(_) => DEFAULT_SECONDS,
    };
    let end = Instant::now() + Duration::from_secs(seconds);
    for number in 1.. {
        round().with_context(|| format!("round {number}"))?;
        if Instant::now() >= end {
            break;
        }
    }
    Ok(())
}
