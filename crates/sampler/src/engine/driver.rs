//! What the engine asks of a way of taking samples.

use std::fmt::Debug;

use profiler_model::Timestamp;

use super::costs::Costs;
use crate::event_writer::EventWriter;
use crate::processes::{LinuxHost, ProcessSet};

/// The processes of an engine.
pub type Processes = ProcessSet<LinuxHost>;

/// A way of taking samples. All calls come from the thread that started it.
pub trait Driver: Debug {
    /// The instant from which on samples count.
    fn counts_since(&self) -> Timestamp;

    /// What sampling has cost.
    fn costs(&mut self) -> &mut Costs;

    /// Does what is due at `now`; returns when the next is.
    fn poll(&mut self, processes: &mut Processes, events: &mut EventWriter<'_>, now: Timestamp) -> Timestamp;

    /// Sleeps until `instant`, or until there is something to do before.
    fn wait_until(&self, processes: &Processes, instant: Timestamp);

    /// Does what is done some twenty times per second: keeps the limit of CPU time and follows the processes.
    fn maintain(&mut self, processes: &mut Processes, events: &mut EventWriter<'_>, now: Timestamp);

    /// Takes all that was sampled up to now, with waits that go on.
    fn drain(&mut self, processes: &mut Processes, events: &mut EventWriter<'_>);

    /// Reports what was found and what it cost up to now; returns when that is.
    fn report(&mut self, processes: &mut Processes, events: &mut EventWriter<'_>, is_over: bool)
    -> Timestamp;

    /// Changes the sample rate at `now`.
    fn set_rate(
        &mut self,
        processes: &mut Processes,
        events: &mut EventWriter<'_>,
        rate_hz: f64,
        now: Timestamp,
    );

    /// Continues at `now` after a time for which no samples were asked for.
    fn resume_from(&mut self, processes: &mut Processes, events: &mut EventWriter<'_>, now: Timestamp);

    /// Leaves the processes alone until the next poll.
    fn rest(&mut self, processes: &mut Processes, events: &mut EventWriter<'_>);

    /// Ends sampling at `deadline`, or now if that is later, and reports the rest.
    fn end(self: Box<Self>, processes: &mut Processes, events: &mut EventWriter<'_>, deadline: Timestamp);
}
