//! Sums of collapsed stacks whose counts are nanoseconds, as `record --mode` writes them.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use crate::{Collapsed, Stack};

/// The mark of a thread that is runnable and has no CPU.
pub const CPU: &str = "<waiting: CPU>";

/// The mark of a thread that waits for the GIL.
pub const GIL: &str = "<waiting for the GIL>";

/// The mark of a thread that waits for a page of its memory.
pub const PAGE: &str = "<waiting: page fault>";

/// How far the sum of a thread's times may be from the time of the recording.
pub const BOUND: f64 = 0.01;

/// The name of the innermost frame.
pub fn leaf(stack: &Stack) -> &str {
    stack.leaf().map_or("", |leaf| &leaf.function)
}

/// Whether the thread waits, for whatever it may be.
pub fn is_wait(stack: &Stack) -> bool {
    leaf(stack).starts_with("<waiting")
}

/// The seconds of the stacks that satisfy `wanted`.
pub fn seconds(profile: &Collapsed, wanted: impl Fn(&Stack) -> bool) -> f64 {
    profile.count(wanted) as f64 / 1e9
}

/// The seconds of each thread, by its name.
pub fn by_thread(profile: &Collapsed) -> BTreeMap<&str, f64> {
    let mut threads = BTreeMap::new();
    for stack in &profile.stacks {
        *threads.entry(stack.thread.as_deref().unwrap_or_default()).or_default() += stack.count as f64 / 1e9;
    }
    threads
}

/// Checks that there are `threads` threads, and that the times of each add up to the `elapsed` seconds of the recording.
///
/// # Errors
/// When they do not.
pub fn must_add_up(profile: &Collapsed, elapsed: f64, threads: usize) -> Result<()> {
    let shown = by_thread(profile);
    ensure!(shown.len() == threads, "{shown:?} instead of {threads} threads");
    for (thread, time) in shown {
        let off = (time / elapsed - 1.0).abs();
        ensure!(off <= BOUND, "{thread}: {time} s of {elapsed} s: {:?}", profile.ledger);
    }
    Ok(())
}
