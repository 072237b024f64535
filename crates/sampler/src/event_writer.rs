//! Where what was sampled goes: events, with the dictionary of their ids, on their way to a sink.

use std::fmt;

use profiler_model::{LossReason, Nanos, Timestamp};
use profiler_profile::{
    Dictionary, Event, Held, HeldBy, Loss, Mark, MarkKind, MetricValue, Renaming, Sample, SampleCause,
    SampleEvent, Scope, Sink, Skip,
};

/// The number of events that are handed over at once.
const BATCH: usize = 64;

/// Writes events.
pub struct EventWriter<'a> {
    /// The dictionary of the ids in the events.
    pub dictionary: &'a mut Dictionary,
    sink: &'a mut dyn Sink,
    events: Vec<Event>,
}

impl fmt::Debug for EventWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventWriter").field("events", &self.events).finish_non_exhaustive()
    }
}

impl<'a> EventWriter<'a> {
    /// A writer of events with the ids of `dictionary`, for `sink`.
    #[cfg(test)]
    pub fn new(dictionary: &'a mut Dictionary, sink: &'a mut dyn Sink) -> Self {
        EventWriter::with_buffer(dictionary, sink, Vec::new())
    }

    /// The same with `events` that were written before with the ids of this dictionary, and not handed over yet.
    pub fn with_buffer(
        dictionary: &'a mut Dictionary,
        sink: &'a mut dyn Sink,
        mut events: Vec<Event>,
    ) -> Self {
        events.reserve(BATCH.saturating_sub(events.len()));

        EventWriter { dictionary, sink, events }
    }

    /// What was written and not handed over yet.
    pub fn into_buffer(self) -> Vec<Event> {
        self.events
    }

    /// Whether looks are of use.
    pub fn wants_looks(&self) -> bool {
        self.sink.wants_looks()
    }

    /// Writes an event.
    pub fn write(&mut self, event: Event) {
        self.events.push(event);
        if self.events.len() >= BATCH {
            self.flush();
        }
    }

    /// Hands over what was written.
    pub fn flush(&mut self) {
        if !self.events.is_empty() {
            self.sink.take(self.dictionary, &self.events);
            self.events.clear();
        }
    }

    /// Begins the next dictionary; `rename` gives what is kept its ids there.
    pub fn renew_dictionary(&mut self, rename: impl FnOnce(&mut Renaming<'_>)) {
        self.flush();
        self.sink.epoch_ended(self.dictionary);
        let mut next = self.dictionary.successor();
        rename(&mut Renaming::new(self.dictionary, &mut next));
        *self.dictionary = next;
    }

    /// Writes a sample that is the same at `count` instants.
    pub fn sample(&mut self, sample: Sample, count: u64) {
        self.write(Event::Sample(SampleEvent { count, ..SampleEvent::new(sample, SampleCause::Instant) }));
    }

    /// Writes what a thread was doing at an instant at which all of its process were looked at.
    pub fn look(&mut self, look: Sample) {
        self.write(Event::Look(look));
    }

    /// Writes that something was seen that is not wanted, at `count` instants.
    pub fn skip(&mut self, scope: Scope, at: Timestamp, count: u64) {
        self.skip_with(Skip::of(scope, at, count));
    }

    /// Writes a skip.
    pub fn skip_with(&mut self, skip: Skip) {
        if skip.count > 0 {
            self.write(Event::Skip(skip));
        }
    }

    /// Writes that `count` samples are lost.
    pub fn lose(&mut self, reason: LossReason, scope: Scope, at: Timestamp, count: u64) {
        self.lose_with(Loss::of(reason, scope, at, count));
    }

    /// Writes a loss.
    pub fn lose_with(&mut self, loss: Loss) {
        if loss.count > 0 || loss.cpu > Nanos::ZERO || loss.wall > Nanos::ZERO {
            self.write(Event::Loss(loss));
        }
    }

    /// Writes for how long something was held up.
    pub fn held(&mut self, scope: Scope, at: Timestamp, by: HeldBy, duration: Nanos) {
        self.write(Event::Held(Held { at, scope, by, duration }));
    }

    /// Writes that an instant needed no stop.
    pub fn not_held(&mut self, scope: Scope, at: Timestamp) {
        self.held(scope, at, HeldBy::Nothing, Nanos::ZERO);
    }

    /// Writes a measurement of the session.
    pub fn metric(&mut self, at: Timestamp, value: MetricValue) {
        self.write(Event::metric(at, value));
    }

    /// Writes a note.
    pub fn mark(&mut self, scope: Scope, at: Timestamp, kind: MarkKind) {
        self.write(Event::Mark(Mark { at, scope, kind }));
    }
}
