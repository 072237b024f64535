//! What a session itself has used, by its clocks.

use profiler_model::{Nanos, Timestamp};
use profiler_os::clock;
use profiler_profile::MetricValue;

use crate::event_writer::EventWriter;

/// The memory of this program is looked at this often: it takes the kernel longer than a sample.
const MEMORY_GAP: Nanos = Nanos::from_nanos(1_000_000_000);

/// What a session itself has used.
#[derive(Debug)]
pub struct Costs {
    /// Samples are taken since this instant, or since the last cut.
    pub start: Timestamp,
    /// The mean gap between two instants.
    pub interval: Option<Nanos>,
    /// The CPU time that had been used when the session began.
    pub own_before: Nanos,
    /// The same, as it was reported last.
    own_reported: Nanos,
    next_look_at_memory: Timestamp,
}

impl Costs {
    /// Of a session that begins at `start`.
    pub fn since(start: Timestamp) -> Self {
        let own_before = clock::own_cpu_time();
        Costs { start, interval: None, own_before, own_reported: own_before, next_look_at_memory: start }
    }

    /// Reports the mean gap between two instants.
    pub fn report_interval(&self, events: &mut EventWriter<'_>) {
        self.interval.iter().for_each(|gap| events.metric(self.start, MetricValue::Interval(*gap)));
    }

    /// Reports what was used up to `now`.
    pub fn report(&mut self, events: &mut EventWriter<'_>, is_over: bool, now: Timestamp) {
        events.metric(now, MetricValue::Sampled(self.start));
        let own_cpu = clock::own_cpu_time();
        let before = std::mem::replace(&mut self.own_reported, own_cpu);
        events.metric(now, MetricValue::OwnCpu(own_cpu.saturating_sub(before)));
        if is_over || now >= self.next_look_at_memory {
            self.next_look_at_memory = now + MEMORY_GAP;
            events.metric(now, MetricValue::OwnMemory(clock::own_peak_memory()));
        }
    }

    /// All up to `at` was reported: begins the next window.
    pub fn begin_window(&mut self, events: &mut EventWriter<'_>, at: Timestamp) {
        self.start = at;
        self.report_interval(events);
    }
}
