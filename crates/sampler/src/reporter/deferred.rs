//! Instants whose stacks have no names yet. Where little changes, several of them get theirs at once: what is looked
//! at afterwards is looked at once for all, and what names them is in the CPU's caches for all but the first.
//!
//! Whatever is true of the instant alone was captured then: what held the GIL, what the clocks said.

use profiler_model::{Nanos, Timestamp};

use crate::observation::InstantCaptures;
use crate::roster::ThreadSlot;

/// No stack waits for its names for longer than this.
const MAX_WAIT: Nanos = Nanos::from_nanos(50_000_000);

/// Those that have code objects which are looked at afterwards do not wait for longer than this: what was not looked at
/// when the process ends cannot be proved any more.
const MAX_UNPROVED_WAIT: Nanos = Nanos::from_nanos(10_000_000);

/// At most so many instants wait: they take memory, and a sampler that names them takes no samples meanwhile.
const MAX_WAITING: usize = 64;

/// Stacks wait once so many instants in a row lost none to code objects that had changed: a program that makes code over
/// and over loses what is not looked at soon.
const QUIET_INSTANTS: u32 = 64;

/// What was captured at one instant, and later instants at which all was as it is here.
#[derive(Debug)]
pub struct DeferredInstant {
    /// What was captured.
    pub instant: InstantCaptures,
    /// The later instants.
    pub again: Vec<Timestamp>,
}

impl DeferredInstant {
    /// The thread that waited for a CPU, with its exact clock, if its stack is the only one.
    fn only_queued(&self) -> Option<(ThreadSlot, Nanos)> {
        let queued = self.instant.queued?;
        match self.instant.captures.as_slice() {
            [only] if only.thread == queued.0 && only.is_whole() => Some(queued),
            _ => None,
        }
    }
}

/// What waits for its names.
#[derive(Debug)]
pub struct DeferredCaptures {
    instants: Vec<DeferredInstant>,
    /// The threads of these stacks.
    threads: Vec<ThreadSlot>,
    /// How long the first of them may wait.
    until: Timestamp,
    /// How many instants there were since the last one of which a code object had changed.
    quiet: u32,
}

impl Default for DeferredCaptures {
    fn default() -> Self {
        DeferredCaptures { instants: Vec::new(), threads: Vec::new(), until: Timestamp::MAX, quiet: 0 }
    }
}

impl DeferredCaptures {
    /// Adds what was captured; returns whether all of this can wait. It cannot where something has to be known at
    /// once: the stack of a thread that sleeps, or what a loss means.
    pub fn add(&mut self, instant: InstantCaptures) -> bool {
        self.quiet = self.quiet.saturating_add(1);
        let longest = if instant.code.is_complete() { MAX_WAIT } else { MAX_UNPROVED_WAIT };
        self.until = self.until.min(instant.at + longest);
        let can_wait = instant.may_wait
            && instant.captures.iter().all(|one| one.is_whole() && one.asleep_after.is_none());
        for capture in &instant.captures {
            if !self.has(capture.thread) {
                self.threads.push(capture.thread);
            }
        }
        self.instants.push(DeferredInstant { instant, again: Vec::new() });
        can_wait && self.quiet > QUIET_INSTANTS
    }

    /// Whether what waits is to be named before another instant is captured at `next`.
    pub fn is_due(&self, next: Timestamp) -> bool {
        !self.is_empty() && (next > self.until || self.instants.len() >= MAX_WAITING)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.instants.is_empty()
    }

    /// Whether a stack of this thread waits.
    pub fn has(&self, thread: ThreadSlot) -> bool {
        self.threads.contains(&thread)
    }

    /// What was captured last, if that is one stack of a thread that waited for a CPU, and nothing else was captured at the
    /// same instant; with the thread and its exact clock.
    pub fn only_queued(&mut self) -> Option<((ThreadSlot, Nanos), &mut DeferredInstant)> {
        let (last, before) = self.instants.split_last_mut()?;
        let is_alone = before.last().is_none_or(|before| before.instant.at != last.instant.at);
        let queued = last.only_queued().filter(|_| is_alone)?;
        Some((queued, last))
    }

    /// Has the next instants not wait: the code changes.
    pub fn grow_restless(&mut self) {
        self.quiet = 0;
    }

    /// All that waits, oldest first.
    pub fn take(&mut self) -> Vec<DeferredInstant> {
        self.threads.clear();
        self.until = Timestamp::MAX;
        std::mem::take(&mut self.instants)
    }
}

#[cfg(test)]
mod tests {
    use profiler_model::{ClockReading, LossReason, ThreadState};
    use profiler_python::RawStack;
    use profiler_stack::Capture;

    use super::*;

    const CLOCK: Nanos = Nanos::from_nanos(7_000);

    fn instant(
        millis: u64,
        queued: Option<u32>,
        stacks: &[(u32, Result<(), LossReason>)],
    ) -> InstantCaptures {
        let at = Timestamp::from_nanos(millis * 1_000_000);
        let capture = |(slot, got): &(u32, Result<(), LossReason>)| Capture {
            thread: ThreadSlot(*slot),
            at,
            count: 1,
            state: ThreadState::Running,
            holds_gil: true,
            asleep_after: None,
            may_have_no_state: false,
            clocks: ClockReading::Measured { cpu: Nanos::ZERO, wall: Nanos::ZERO },
            python: Some(got.map(|()| RawStack::default())),
            native: None,
            kernel: None,
        };
        let captures = stacks.iter().map(capture).collect();
        let queued = queued.map(|slot| (ThreadSlot(slot), CLOCK));
        InstantCaptures { at, captures, queued, may_wait: true, ..InstantCaptures::default() }
    }

    fn queued_in(instants: impl IntoIterator<Item = InstantCaptures>) -> Option<u32> {
        let mut deferred = DeferredCaptures::default();
        instants.into_iter().for_each(|instant| {
            deferred.add(instant);
        });
        deferred.only_queued().map(|((thread, _), _)| thread.0)
    }

    #[test]
    fn only_stack_of_a_queued_thread_counts_again() {
        assert_eq!(queued_in([instant(1, Some(3), &[(3, Ok(()))])]), Some(3));
        assert_eq!(queued_in([]), None);
        assert_eq!(queued_in([instant(1, None, &[(3, Ok(()))])]), None, "stopped, and let go");
        assert_eq!(queued_in([instant(1, Some(3), &[(4, Ok(()))])]), None, "of another thread");
        assert_eq!(queued_in([instant(1, Some(3), &[(3, Err(LossReason::Moved))])]), None, "lost");
        assert_eq!(queued_in([instant(1, Some(3), &[(3, Ok(())), (4, Ok(()))])]), None, "one of two");
        let two = |first, second| {
            [instant(first, Some(2), &[(2, Ok(()))]), instant(second, Some(3), &[(3, Ok(()))])]
        };
        assert_eq!(queued_in(two(1, 2)), Some(3));
        assert_eq!(queued_in(two(2, 2)), None, "another thread was captured at the same instant");
    }
}
