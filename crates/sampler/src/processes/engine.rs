//! Samples processes at the instants of a schedule. It neither reads a clock for that nor sleeps: the caller does, and says what
//! time it is.

use profiler_account::Schedule;
use profiler_model::{LossReason, Timestamp};

use super::due_instants::DueInstants;
use super::host::ProcessHost;
use super::process_set::ProcessSet;
use crate::event_writer::EventWriter;

/// Samples the processes of a session on a schedule.
#[derive(Debug)]
pub struct ScheduledEngine<'a, H: ProcessHost> {
    /// The processes.
    pub processes: &'a mut ProcessSet<H>,
    /// The instants.
    pub schedule: Schedule,
}

impl<'a, H: ProcessHost> ScheduledEngine<'a, H> {
    /// Samples `processes` at the instants of `schedule`.
    pub fn new(processes: &'a mut ProcessSet<H>, schedule: Schedule) -> Self {
        ScheduledEngine { processes, schedule }
    }

    /// Takes the samples of the next instant, if it has come; returns the instant after that. If the engine is far behind, the
    /// instants in between are lost.
    pub fn poll(&mut self, events: &mut EventWriter<'_>, now: Timestamp) -> Timestamp {
        if now >= self.schedule.next() {
            self.leave_out_until(events, now);
            self.processes.look(events, DueInstants::one(self.schedule.next()), now);
            let after = self.processes.host().now();
            let mut late = |at| self.processes.leave_out(events, LossReason::Late, at);
            self.schedule.go_on_telling(after, &mut late);
        }
        self.schedule.next()
    }

    /// Learns which processes were born, run another program or have ended.
    pub fn follow(&mut self, events: &mut EventWriter<'_>, now: Timestamp) {
        self.leave_out_until(events, now);
        self.processes.follow_tree(events, now);
        self.processes.release_late();
    }

    /// Goes on at `now`, before which nobody asked for samples for a while.
    pub fn go_on_from(&mut self, events: &mut EventWriter<'_>, now: Timestamp) {
        self.processes.follow_tree(events, now);
        self.schedule.go_on_from(now);
        self.processes.resolve_pending(events);
        self.processes.count_from(now);
    }

    /// Has this part of the instants be sampled from now on.
    pub fn sample_part(&mut self, part: f64) {
        self.schedule.sample_part(part);
        self.processes.sample_part(part);
    }

    /// Ends at `end`: instants before it that were not come to are lost.
    pub fn end(&mut self, events: &mut EventWriter<'_>, end: Timestamp) {
        let mut late = |at| self.processes.leave_out(events, LossReason::Late, at);
        self.schedule.pass_until(end, &mut late);
        self.leave_out_until(events, end);
    }

    /// Counts the instants up to `until` that the schedule leaves out.
    fn leave_out_until(&mut self, events: &mut EventWriter<'_>, until: Timestamp) {
        for at in self.schedule.take_left_out_until(until) {
            self.processes.leave_out(events, LossReason::CpuLimit, at);
        }
    }
}
