//! Threads that no signal interrupts: a signal to the process goes to any thread that does not block it, and its handler must
//! run where something waits for it.

use std::io;
use std::thread::{Builder, JoinHandle};

use nix::sys::signal::{SigSet, SigmaskHow};

use crate::priority::PromptChildren;

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

/// Starts a thread that blocks all signals and is prompt from its first instruction on, as far as is permitted
/// ([`want_promptness`](crate::priority::want_promptness)): an ordinary one would first wait for a CPU.
///
/// # Errors
/// When no thread can be started.
pub fn spawn_prompt(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let _prompt = PromptChildren::begin();
    spawn(name, move || {
        crate::priority::want_promptness();
        work();
    })
}
