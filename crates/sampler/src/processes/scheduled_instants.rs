//! Samples processes at the instants of a schedule. Neither reads a clock to find out when, nor sleeps: the caller passes the time.

use profiler_account::Schedule;
use profiler_model::{LossReason, Timestamp};

use super::due_instants::DueInstants;
use super::host::ProcessHost;
use super::process_set::ProcessSet;
use crate::event_writer::EventWriter;

/// The instants at which processes are sampled.
#[derive(Debug)]
pub struct ScheduledInstants {
    schedule: Schedule,
}

impl ScheduledInstants {
    /// The instants of `schedule`.
    pub fn new(schedule: Schedule) -> Self {
        ScheduledInstants { schedule }
    }

    /// The next instant.
    pub fn next(&self) -> Timestamp {
        self.schedule.next()
    }

    /// The schedule, to be advanced past instants that are accounted for.
    pub fn schedule_mut(&mut self) -> &mut Schedule {
        &mut self.schedule
    }

    /// Takes the samples of the next instant, if it has come; returns the instant after that. If the sampler is far behind, the
    /// instants in between are lost.
    pub fn poll<H: ProcessHost>(
        &mut self,
        processes: &mut ProcessSet<H>,
        events: &mut EventWriter<'_>,
        now: Timestamp,
    ) -> Timestamp {
        if now >= self.schedule.next() {
            self.leave_out_until(processes, events, now);
            processes.look(events, DueInstants::one(self.schedule.next()), now);
            let after = processes.host().now();
            let mut late = |at| processes.leave_out(events, LossReason::Late, at);
            self.schedule.go_on_telling(after, &mut late);
        }
        self.schedule.next()
    }

    /// Learns which processes were born, run another program or have ended.
    pub fn follow<H: ProcessHost>(
        &mut self,
        processes: &mut ProcessSet<H>,
        events: &mut EventWriter<'_>,
        now: Timestamp,
    ) {
        self.leave_out_until(processes, events, now);
        processes.follow_tree(events, now);
        processes.release_late();
    }

    /// Continues at `now` after a time for which no samples were asked for.
    pub fn resume_from<H: ProcessHost>(
        &mut self,
        processes: &mut ProcessSet<H>,
        events: &mut EventWriter<'_>,
        now: Timestamp,
    ) {
        processes.follow_tree(events, now);
        self.schedule.go_on_from(now);
        processes.resolve_pending(events);
        processes.count_from(now);
    }

    /// Samples only this part of the instants from now on.
    pub fn sample_part<H: ProcessHost>(&mut self, processes: &mut ProcessSet<H>, part: f64) {
        self.schedule.sample_part(part);
        processes.sample_part(part);
    }

    /// Changes the sample rate at `now`, in samples per second.
    pub fn set_rate<H: ProcessHost>(&mut self, processes: &mut ProcessSet<H>, rate_hz: f64, now: Timestamp) {
        self.schedule.set_rate(rate_hz, now);
        processes.set_rate(rate_hz);
    }

    /// Ends at `end`: earlier instants that were not sampled are lost.
    pub fn end<H: ProcessHost>(
        &mut self,
        processes: &mut ProcessSet<H>,
        events: &mut EventWriter<'_>,
        end: Timestamp,
    ) {
        let mut late = |at| processes.leave_out(events, LossReason::Late, at);
        self.schedule.pass_until(end, &mut late);
        self.leave_out_until(processes, events, end);
    }

    /// Counts the instants up to `until` that the schedule leaves out.
    fn leave_out_until<H: ProcessHost>(
        &mut self,
        processes: &mut ProcessSet<H>,
        events: &mut EventWriter<'_>,
        until: Timestamp,
    ) {
        for at in self.schedule.take_left_out_until(until) {
            processes.leave_out(events, LossReason::CpuLimit, at);
        }
    }
}
