//! The kernel's clocks of threads, made ready before sampling begins: what is sampled while they are not is mostly
//! lost on the very machines on which that takes long.

use std::time::{Duration, Instant};

use profiler_os::first_event;
use profiler_os::signals::Signals;

use crate::failure::Failure;
use crate::messages::say;

/// Signals are looked for this often.
const GLANCE: Duration = Duration::from_millis(20);
/// After this time the user is told what is being waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// With 200 busy threads on two CPUs it takes up to five seconds. After this time sampling begins without them, by
/// stops alone.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// Waits until they are ready; they were asked for when the sampler was chosen.
///
/// # Errors
/// When the user has enough of waiting.
pub fn await_clocks(signals: &Signals) -> Result<(), Failure> {
    let began = Instant::now();
    let mut told = false;
    while !first_event::wait(GLANCE) && began.elapsed() < LONGEST_WAIT {
        if signals.take().is_some_and(|received| received.signal.asks_for_end()) {
            return Err(Failure::new("interrupted before sampling began"));
        }
        if !told && began.elapsed() >= PATIENCE {
            told = true;
            say(format_args!("Waiting for the kernel's clocks of threads: this machine is very busy."));
        }
    }
    Ok(())
}
