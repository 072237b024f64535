//! What a sampler observes of one process: what the reporter makes events of.

use profiler_model::{ClockReading, LossReason, Nanos, SchedStat, ThreadState, Timestamp};
use profiler_profile::ThreadRole;
use profiler_stack::{Capture, CodeEvidence, HashedEvidence};

use crate::roster::ThreadSlot;

/// One observation. Instants and clocks come with it: the reporter asks for no time.
#[derive(Debug)]
pub enum Observation<'a> {
    /// Stacks were captured from outside.
    Instant(InstantCaptures),
    /// The in-kernel program captured a stack.
    Program(Capture<ThreadSlot>, &'a HashedEvidence),
    /// A thread sleeps where it did when its stack was captured.
    Asleep(Asleep),
    /// A thread was seen, and its stack is not wanted.
    Unwanted {
        /// The thread.
        thread: ThreadSlot,
        /// When, the last time.
        at: Timestamp,
        /// At how many instants.
        count: u64,
        /// Its clocks, if it may have used CPU time that is no other sample's.
        clocks: Option<ClockReading>,
    },
    /// A stack was not captured that should have been.
    Missed(Missed),
    /// What a thread was doing at an instant at which all of its process were looked at.
    Look {
        /// The thread.
        thread: ThreadSlot,
        /// When.
        at: Timestamp,
        /// What it was doing.
        role: ThreadRole,
        /// Its clocks.
        schedule: SchedStat,
    },
}

/// Stacks that were captured at one instant, and what that took.
#[derive(Debug, Default)]
pub struct InstantCaptures {
    /// The instant.
    pub at: Timestamp,
    /// The stacks.
    pub captures: Vec<Capture<ThreadSlot>>,
    /// What identifies their code objects; it may be incomplete.
    pub code: CodeEvidence,
    /// How long each stop lasted; `None` if the sampler never stops a thread.
    pub stops: Option<Vec<Nanos>>,
    /// The thread that needed no stop because it waited for a CPU, with what its exact clock said all the time.
    pub queued: Option<(ThreadSlot, Nanos)>,
    /// Whether the names may be looked up later, together with those of other instants.
    pub may_wait: bool,
}

/// A thread that sleeps where it did when its stack was captured.
#[derive(Clone, Copy, Debug)]
pub struct Asleep {
    /// The thread.
    pub thread: ThreadSlot,
    /// When, the last time.
    pub at: Timestamp,
    /// At how many instants.
    pub count: u64,
    /// What it waits for.
    pub state: ThreadState,
    /// Whether it holds the GIL.
    pub holds_gil: bool,
    /// Its clocks.
    pub clocks: ClockReading,
}

/// Stacks that were not captured.
#[derive(Clone, Copy, Debug)]
pub struct Missed {
    /// The thread.
    pub thread: ThreadSlot,
    /// Why.
    pub reason: LossReason,
    /// When, the last time.
    pub at: Timestamp,
    /// At how many instants.
    pub count: u64,
    /// Its clocks, if the time is lost with the stacks; otherwise the next sample stands for it.
    pub clocks: Option<ClockReading>,
}

impl Observation<'_> {
    /// The thread, unless it is about several.
    pub fn thread(&self) -> Option<ThreadSlot> {
        match self {
            Observation::Instant(_) => None,
            Observation::Program(capture, _) => Some(capture.thread),
            Observation::Asleep(Asleep { thread, .. })
            | Observation::Unwanted { thread, .. }
            | Observation::Missed(Missed { thread, .. })
            | Observation::Look { thread, .. } => Some(*thread),
        }
    }
}
