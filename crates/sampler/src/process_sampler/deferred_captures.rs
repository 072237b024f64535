//! Instants whose stacks have no names yet. Where little changes, several of them get theirs at once: what is looked
//! at afterwards is looked at once for all, and what names them is in the CPU's caches for all but the first.
//!
//! Whatever is true of the instant alone was noted then: who held the GIL, what the clocks said.

use profiler_memory::ReadError;
use profiler_model::{Nanos, ThreadState, Timestamp, WaitReason};
use profiler_python::GilAddresses;
use profiler_stack::CodeEvidence;

use crate::capture::{Capture, Runnable};
use crate::probe::Probe;
use crate::thread_table::Thread;

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

/// What was captured at one instant.
#[derive(Debug)]
pub(super) struct Captured {
    pub(super) instant: Capture,
    pub(super) at: Timestamp,
    /// What the clocks said of the thread of each stack.
    pub(super) clocks: Vec<Clocks>,
    /// Later instants at which all was as it is here.
    pub(super) again: Vec<Timestamp>,
}

impl Captured {
    /// What was captured at the instant `at`.
    pub(super) fn new(instant: Capture, at: Timestamp, clocks: Vec<Clocks>) -> Self {
        Captured { instant, at, clocks, again: Vec::new() }
    }

    /// The thread that waited for a CPU, if its stack is the only one.
    fn only_queued(&self) -> Option<Runnable> {
        let queued = self.instant.queued?;
        matches!(self.instant.stacks.as_slice(), [(index, Ok(_))] if *index == queued.thread)
            .then_some(queued)
    }
}

/// What was known of a thread at the instant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    /// The CPU time that it had used.
    cpu: Nanos,
    /// Whether a CPU had it, as far as it ran.
    had_cpu: bool,
    /// What it was doing.
    pub(super) state: ThreadState,
    /// If it slept: how often it had run.
    pub(super) slept_after: Option<u64>,
}

impl Clocks {
    /// Of a thread that was looked at just now, for the instant `at`.
    pub(super) fn of(thread: &Thread, gil: Option<&GilAddresses>, at: Timestamp) -> Self {
        let had_cpu = !thread.is_running() || thread.was_on_cpu(at);
        Clocks {
            cpu: thread.schedule.cpu,
            had_cpu,
            state: if had_cpu { thread.state(gil) } else { ThreadState::Waiting(WaitReason::Cpu) },
            slept_after: (!thread.is_running()).then_some(thread.schedule.timeslices),
        }
    }

    /// The CPU time that a sample at the instant stands for: all that is not counted yet, if the thread was on a CPU
    /// then. Where a thread loses its CPU is no accident: it is after system calls, more often than not. A sample
    /// taken while it waits for a CPU says nothing of where its time went, so that it stands for none; what there
    /// is, the next one that met it on a CPU stands for. More than `most` is not kept back.
    pub(super) fn uncounted_since(&self, counted: Nanos, most: Nanos) -> Nanos {
        let uncounted = self.cpu.saturating_sub(counted);
        if uncounted < most && !self.had_cpu { Nanos::ZERO } else { uncounted }
    }
}

/// What waits for its names.
#[derive(Debug)]
pub(super) struct DeferredCaptures {
    captured: Vec<Captured>,
    /// The threads of these stacks.
    threads: Vec<usize>,
    /// How long the first of them may wait.
    until: Timestamp,
    /// How many instants there were since the last one of which a code object had changed.
    quiet: u32,
}

impl Default for DeferredCaptures {
    fn default() -> Self {
        DeferredCaptures { captured: Vec::new(), threads: Vec::new(), until: Timestamp::MAX, quiet: 0 }
    }
}

impl DeferredCaptures {
    /// Adds what was captured; returns whether all of this can wait. `can_wait` is false where something has to be known at
    /// once: the stack of a thread that sleeps, or what a loss means.
    pub(super) fn add(&mut self, captured: Captured, can_wait: bool) -> bool {
        self.quiet = self.quiet.saturating_add(1);
        let longest = if captured.instant.capture.is_complete() { MAX_WAIT } else { MAX_UNPROVED_WAIT };
        self.until = self.until.min(captured.at + longest);
        let threads = captured.instant.stacks.iter().map(|(index, _)| *index);
        let new: Vec<usize> = threads.filter(|index| !self.has(*index)).collect();
        self.threads.extend(new);
        self.captured.push(captured);
        can_wait && self.quiet > QUIET_INSTANTS
    }

    /// Whether what waits is to be named before another instant is captured at `next`.
    pub(super) fn is_due(&self, next: Timestamp) -> bool {
        !self.is_empty() && (next > self.until || self.captured.len() >= MAX_WAITING)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.captured.is_empty()
    }

    /// Whether a stack of the thread `index` waits.
    pub(super) fn has(&self, index: usize) -> bool {
        self.threads.contains(&index)
    }

    /// What was captured last, if that is one stack of a thread that waited for a CPU, and nothing else was captured at the
    /// same instant.
    pub(super) fn only_queued(&mut self) -> Option<(Runnable, &mut Captured)> {
        let (last, before) = self.captured.split_last_mut()?;
        let is_alone = before.last().is_none_or(|before| before.at != last.at);
        let queued = last.only_queued().filter(|_| is_alone)?;
        Some((queued, last))
    }

    /// Has the next instants not wait: the code changes.
    pub(super) fn grow_restless(&mut self) {
        self.quiet = 0;
    }

    /// All that waits, oldest first, with what identifies its code objects; and whether that could be read.
    pub(super) fn take(&mut self, probe: &Probe) -> (Vec<Captured>, Result<(), ReadError>) {
        self.threads.clear();
        self.until = Timestamp::MAX;
        let mut captured = std::mem::take(&mut self.captured);
        let captures =
            captured.iter_mut().map(|captured| -> &mut CodeEvidence { &mut captured.instant.capture });
        let completed = probe.complete(captures);
        (captured, completed)
    }
}

#[cfg(test)]
mod tests {
    use profiler_model::LossReason;
    use profiler_python::RawStack;

    use super::*;

    const CLOCK: Nanos = Nanos::from_nanos(7_000);

    fn captured(millis: u64, queued: Option<usize>, stacks: &[(usize, Result<(), LossReason>)]) -> Captured {
        let stacks = stacks.iter().map(|(index, got)| (*index, got.map(|()| RawStack::default()))).collect();
        let queued = queued.map(|thread| Runnable { thread, clock: CLOCK });
        let instant = Capture { stacks, queued, ..Capture::default() };
        Captured::new(instant, Timestamp::from_nanos(millis * 1_000_000), Vec::new())
    }

    fn queued_in(captured: impl IntoIterator<Item = Captured>) -> Option<usize> {
        let mut waiting = DeferredCaptures::default();
        captured.into_iter().for_each(|captured| {
            waiting.add(captured, true);
        });
        waiting.only_queued().map(|(queued, _)| queued.thread)
    }

    #[test]
    fn what_counts_again_is_the_only_stack_of_its_instant_and_of_a_thread_that_waits() {
        assert_eq!(queued_in([captured(1, Some(3), &[(3, Ok(()))])]), Some(3));
        assert_eq!(queued_in([]), None);
        assert_eq!(queued_in([captured(1, None, &[(3, Ok(()))])]), None, "stopped, and let go");
        assert_eq!(queued_in([captured(1, Some(3), &[(4, Ok(()))])]), None, "of another thread");
        assert_eq!(queued_in([captured(1, Some(3), &[(3, Err(LossReason::Moved))])]), None, "lost");
        assert_eq!(queued_in([captured(1, Some(3), &[(3, Ok(())), (4, Ok(()))])]), None, "one of two");
        let two = |first, second| {
            [captured(first, Some(2), &[(2, Ok(()))]), captured(second, Some(3), &[(3, Ok(()))])]
        };
        assert_eq!(queued_in(two(1, 2)), Some(3));
        assert_eq!(queued_in(two(2, 2)), None, "another thread was captured at the same instant");
    }
}
