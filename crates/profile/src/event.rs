//! What a sampler reports, in the order in which it happened, and who takes it.
//!
//! Everything that a view, a recording or a ledger knows comes from these events: there are no counters beside them.
//! Attempts = shown + not asked for + lost, always, because each attempt is in exactly one event, in its `count`.

use std::sync::Arc;

use profiler_model::{LossReason, Nanos, OtherPython, ThreadState, Timestamp};

use crate::{CapturePolicy, Dictionary, ProcessCounts, ProcessId, Sample, ThreadId};

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All of what is sampled, or it is not known which part of it.
    Session,
    /// A process.
    Process(ProcessId),
    /// A thread.
    Thread(ThreadId),
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// What a thread did.
    Sample(SampleEvent),
    /// What a thread did was seen, but is not wanted.
    Skip(Skip),
    /// What a thread did is not known.
    Loss(Loss),
    /// A thread was held up.
    Held(Held),
    /// What a thread did at an instant at which all of its process were looked at: for views of what threads do, where
    /// samples come from clocks that only meet what runs. Counts for nothing else.
    Look(Sample),
    /// A measurement.
    Metric(Metric),
    /// A note that is neither a sample nor a measurement.
    Mark(Mark),
}

/// A sample with how it came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleEvent {
    /// The sample. Its times are those of all instants for which it stands.
    pub sample: Sample,
    /// For how many instants it stands: a thread that sleeps is the same at all of them. 0 if it is known only for how long
    /// the thread ran, so that there was no attempt.
    pub count: u64,
    /// If it is a sum: its time lies anywhere between this instant and its own.
    pub since: Option<Timestamp>,
    /// Why it was taken.
    pub cause: SampleCause,
}

impl SampleEvent {
    /// A sample of one instant.
    pub const fn new(sample: Sample, cause: SampleCause) -> Self {
        SampleEvent { sample, count: 1, since: None, cause }
    }
}

/// Why a sample was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SampleCause {
    /// An instant came, or a CPU's clock ticked.
    Instant,
    /// An interval off the CPU ended, or was cut. What the thread waited for is in its state.
    OffCpu,
    /// Several intervals off the CPU, too short to be reported one by one. Their stacks were not kept.
    ShortOffCpu,
    /// Time on a CPU that no sample stands for, such as less than passes between two ticks. There is no stack.
    Unsampled,
}

/// Something that was seen and is not wanted: the thread does not run, or does not hold the GIL, or runs no Python.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skip {
    /// When, the last time.
    pub at: Timestamp,
    /// Whose.
    pub scope: Scope,
    /// At how many instants.
    pub count: u64,
    /// The CPU time that they stand for, as far as it is known.
    pub cpu: Nanos,
    /// The wall time that they stand for, as far as it is known.
    pub wall: Nanos,
}

impl Skip {
    /// `count` instants, of which nothing else is known.
    pub const fn of(scope: Scope, at: Timestamp, count: u64) -> Self {
        Skip { at, scope, count, cpu: Nanos::ZERO, wall: Nanos::ZERO }
    }
}

/// Samples that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// When, the last time.
    pub at: Timestamp,
    /// Whose.
    pub scope: Scope,
    /// Why.
    pub reason: LossReason,
    /// How many; 0 if the attempt was counted where it was lost and its time has become known since.
    pub count: u64,
    /// The CPU time that they stand for, as far as it is known.
    pub cpu: Nanos,
    /// The wall time that they stand for, as far as it is known.
    pub wall: Nanos,
    /// What the samples were to be taken for.
    pub cause: SampleCause,
    /// If it is a sum: its time lies anywhere between this instant and its own.
    pub since: Option<Timestamp>,
    /// What the thread was doing, as far as it is known.
    pub role: Option<ThreadRole>,
}

impl Loss {
    /// `count` samples, of which nothing else is known.
    pub const fn of(reason: LossReason, scope: Scope, at: Timestamp, count: u64) -> Self {
        let (cpu, wall, cause) = (Nanos::ZERO, Nanos::ZERO, SampleCause::Instant);
        Loss { at, scope, reason, count, cpu, wall, cause, since: None, role: None }
    }
}

/// What a thread was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadRole {
    /// Whether it ran, or what it waited for.
    pub state: ThreadState,
    /// Whether it held the GIL.
    pub holds_gil: bool,
}

/// How a thread was held up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeldBy {
    /// It was stopped from outside.
    Stop,
    /// The in-kernel program ran on its CPU.
    Program,
    /// It was not: the instant needed no stop.
    Nothing,
}

/// A time for which a target's thread did not run because of the profiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// When.
    pub at: Timestamp,
    /// Whose.
    pub scope: Scope,
    /// How.
    pub by: HeldBy,
    /// How long.
    pub duration: Nanos,
}

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// When.
    pub at: Timestamp,
    /// What of.
    pub scope: Scope,
    /// The value.
    pub value: MetricValue,
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricValue {
    /// Samples were taken since this instant; the event's own instant is the end so far.
    Sampled(Timestamp),
    /// The mean gap between two instants that was asked for.
    Interval(Nanos),
    /// How long at the beginning there was no Python yet that could have been sampled.
    BeforePython(Nanos),
    /// CPU time that the profiler used since the last such event.
    OwnCpu(Nanos),
    /// The largest resident memory of the profiler so far, in bytes.
    OwnMemory(u64),
    /// CPU time that the targets used since the last such event.
    TargetCpu(Nanos),
    /// What has become of the processes of a tree so far.
    Processes(ProcessCounts),
}

/// A note that is neither a sample nor a measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When.
    pub at: Timestamp,
    /// What of.
    pub scope: Scope,
    /// What.
    pub kind: MarkKind,
}

/// What a mark notes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MarkKind {
    /// From now on [`Event::Look`]s say what threads do, and samples do not.
    LooksBegin,
    /// The profiler gave up its real-time priority, as it used more CPU time than it may.
    RealTimeLeft,
    /// A stack lacks what its thread did in the kernel, though that was asked for: the kernel did not say.
    NoKernelFrames,
    /// From now on these stacks are captured: what a view of the events can be asked for.
    Captured(CapturePolicy),
    /// There is a Python beside those that are sampled.
    OtherPython(Arc<OtherPython>),
}

impl Event {
    /// A measurement of the session.
    pub const fn metric(at: Timestamp, value: MetricValue) -> Self {
        Event::Metric(Metric { at, scope: Scope::Session, value })
    }

    /// `count` lost samples of the session, of which nothing else is known.
    pub const fn loss(reason: LossReason, at: Timestamp, count: u64) -> Self {
        Event::Loss(Loss::of(reason, Scope::Session, at, count))
    }

    /// When it happened.
    pub fn at(&self) -> Timestamp {
        match self {
            Event::Sample(event) => event.sample.at,
            Event::Look(look) => look.at,
            Event::Skip(Skip { at, .. })
            | Event::Loss(Loss { at, .. })
            | Event::Held(Held { at, .. })
            | Event::Metric(Metric { at, .. })
            | Event::Mark(Mark { at, .. }) => *at,
        }
    }
}

/// Takes events: sums, a recording, a live view.
pub trait Sink {
    /// Takes these events, whose ids are those of `dictionary`.
    fn take(&mut self, dictionary: &Dictionary, events: &[Event]);

    /// There will be no more events with the ids of this dictionary: those that come next have ids of its successor.
    fn epoch_ended(&mut self, _dictionary: &Dictionary) {}

    /// Whether [`Event::Look`]s are of use to it.
    fn wants_looks(&self) -> bool {
        false
    }
}
