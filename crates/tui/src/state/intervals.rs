//! The samples of the last interval and of the present one, and how long the intervals are.

use profiler_model::{Nanos, Timestamp};
use profiler_profile::Sample;

/// The longest first interval: there is something to see at once.
const FIRST_INTERVAL: Nanos = Nanos::from_nanos(250_000_000);

/// The last interval and the present one.
#[derive(Clone, Debug)]
pub(super) struct Intervals {
    /// The length that the user has asked for.
    asked: Nanos,
    /// When the present interval began.
    begun: Option<Timestamp>,
    /// The length of the last interval, if one is over since the start or the last reset.
    length: Option<Nanos>,
    /// The samples of the last interval.
    recent: Vec<Sample>,
    /// The samples of the present one.
    current: Vec<Sample>,
}

impl Intervals {
    pub fn new(asked: Nanos) -> Self {
        Intervals { asked, begun: None, length: None, recent: Vec::new(), current: Vec::new() }
    }

    /// When the present interval began.
    pub fn begun(&self) -> Option<Timestamp> {
        self.begun
    }

    /// When the present interval began: at `start` if it is the first one.
    pub fn begin(&mut self, start: Timestamp) -> Timestamp {
        *self.begun.get_or_insert(start)
    }

    /// Lets the present interval begin at another time.
    pub fn begin_anew(&mut self, begun: Option<Timestamp>) {
        self.begun = begun;
    }

    /// Whether the present interval is over after this time.
    pub fn is_over(&self, lasted: Nanos, is_first: bool) -> bool {
        lasted >= if is_first { self.asked.min(FIRST_INTERVAL) } else { self.asked }
    }

    pub fn push(&mut self, sample: Sample) {
        self.current.push(sample);
    }

    /// The samples of the last interval.
    pub fn recent(&self) -> &[Sample] {
        &self.recent
    }

    /// The samples of the present one.
    pub fn current(&self) -> &[Sample] {
        &self.current
    }

    /// The present interval becomes the last one; the next one begins.
    pub fn roll(&mut self, at: Timestamp, lasted: Nanos) {
        self.begun = Some(at);
        self.recent = std::mem::take(&mut self.current);
        self.length = Some(lasted);
    }

    /// Joins the present interval to the last one. False if there is no last one.
    pub fn join(&mut self, at: Timestamp, lasted: Nanos) -> bool {
        let Some(before) = self.length else { return false };
        self.begun = Some(at);
        self.recent.append(&mut self.current);
        self.length = Some(before + lasted);
        true
    }

    /// Forgets the samples and the length of the last interval.
    pub fn clear(&mut self) {
        self.recent.clear();
        self.current.clear();
        self.length = None;
    }

    /// The length of the last interval. It is the length that the user has asked for, unless the interval was shorter
    /// or sampling has ended: what is longer is the time between two updates.
    pub fn shown_length(&self, has_ended: bool) -> Nanos {
        match self.length {
            Some(length) if length < self.asked || has_ended => length,
            _ => self.asked,
        }
    }
}
