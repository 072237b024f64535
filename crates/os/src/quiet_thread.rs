//! Threads that no signal interrupts: a signal to the process goes to any thread that does not block it, and its handler must
//! run where something waits for it.

use std::io;
use std::thread::{Builder, JoinHandle};

use nix::sys::signal::{SigSet, SigmaskHow};

/// Starts a thread that blocks all signals.
///
/// # Errors
/// When no thread can be started.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    // It inherits the mask, so that there is no moment in which one reaches it.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let spawned = Builder::new().name(name.to_owned()).spawn(work);
    before.thread_set_mask()?;
    spawned
}
