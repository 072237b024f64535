//! Samples taken from outside, at the instants of a schedule. Between instants this driver reports, and keeps the profiler within its
//! CPU time.

use profiler_account::{LaunchTime, Schedule};
use profiler_model::{Pid, Timestamp};
use profiler_os::priority::SchedulingClass;
use profiler_os::{CpuQuota, Guardian, clock, first_event, hang};

use super::costs::Costs;
use super::driver::{Driver, Processes};
use super::launch::note_launch;
use super::promptness::Promptness;
use crate::cpu_limit::{CpuLimit, Verdict};
use crate::event_writer::EventWriter;
use crate::pause::{CpuFollower, QuotaGuard, Runners};
use crate::process_sampler::ProcessSampler;
use crate::processes::ScheduledInstants;
use crate::{SamplerKind, SamplerOptions};

/// Samples processes at the instants of a schedule.
#[derive(Debug)]
pub struct ScheduleDriver {
    instants: ScheduledInstants,
    promptness: Promptness,
    start: Timestamp,
    costs: Costs,
    limit_of_cpu: CpuLimit,
    /// Keeps the sampling thread on the CPU of the only thread that runs.
    follower: Option<CpuFollower>,
    quota: Option<QuotaGuard>,
    /// Without it, a stop lasts as long as this process is stopped.
    _guardian: Option<Guardian>,
}

impl ScheduleDriver {
    /// Takes the priority that the sampler needs, and counts what was missed since the launch.
    pub fn start(
        processes: &mut Processes,
        options: SamplerOptions,
        launch: Option<(Pid, LaunchTime)>,
        events: &mut EventWriter<'_>,
    ) -> Self {
        let mut promptness = Promptness::default();
        let (follower, quota) = take_priority(processes, &mut promptness, options.kind);
        let _guardian = if options.kind == SamplerKind::Pause { Guardian::start().ok() } else { None };
        let start = clock::now();
        let mut costs = Costs::since(start);
        processes.miss_from(start);
        if let Some(launch) = launch {
            let missed = launch.1.missed_instants(options.rate_hz, start);
            costs.start = note_launch(processes, launch, missed, missed, events);
        }
        let schedule = Schedule::new(options.rate_hz, start, start.as_nanos());
        costs.interval = Some(schedule.mean_gap());
        costs.report_interval(events);
        let limit_of_cpu = CpuLimit::new(options.max_cpu, options.rate_hz, start, costs.own_before);
        let instants = ScheduledInstants::new(schedule);
        ScheduleDriver { instants, promptness, start, costs, limit_of_cpu, follower, quota, _guardian }
    }

    /// When the next instant may be sampled: the sampler may have to rest before.
    fn next_instant(&mut self, now: Timestamp) -> Timestamp {
        let earliest = self.follower.as_mut().and_then(CpuFollower::come_back);
        let rest = self.quota.as_mut().and_then(|quota| quota.rests_until(now, clock::own_cpu_time()));
        self.instants.next().max(earliest.unwrap_or(now)).max(rest.unwrap_or(now))
    }

    /// Takes the samples of the instant that is due at `now`, and goes on to the next one.
    fn take_instant(&mut self, processes: &mut Processes, events: &mut EventWriter<'_>, now: Timestamp) {
        let mut next = self.instants.poll(processes, events, now);
        if self.follower.is_some() && next <= clock::now() {
            // What was captured last counts for the instants that have passed since, as far as all stood still.
            if let Some(sampler) = processes.only_python() {
                sampler.sample_again(events, self.instants.schedule_mut());
            }
            next = self.instants.next();
        }
        if self.follower.is_some() {
            let runners = runners(processes);
            if self.follower.as_mut().is_some_and(|follower| !follower.follow(runners, now)) {
                self.leave_follower(processes);
            }
        }
        if processes.pythons().any(|sampler| sampler.is_resolving_due(next)) {
            self.leave_cpu();
            processes.resolve_pending(events);
        }
    }

    /// Does what has to be done to use less CPU time, or what can be done with what is left.
    fn keep_limit(
        &mut self,
        processes: &mut Processes,
        events: &mut EventWriter<'_>,
        verdict: Verdict,
        now: Timestamp,
    ) {
        match verdict {
            Verdict::LeaveRealTime => {
                self.promptness.leave(events, now);
                self.leave_follower(processes);
                self.quota = self.quota.take().or_else(own_quota);
            }
            Verdict::TakeRealTime => {
                self.promptness.take();
            }
            Verdict::Sample(part) => self.instants.sample_part(processes, part),
        }
    }

    /// Leaves the CPU of the thread that is sampled for work that need not be done there.
    fn leave_cpu(&mut self) {
        self.follower.iter_mut().for_each(CpuFollower::leave_cpu);
    }

    /// Follows no thread to its CPU any more.
    fn leave_follower(&mut self, processes: &mut Processes) {
        self.follower = None;
        processes.parts().0.watches_switches = false;
        processes.pythons().for_each(ProcessSampler::unwatch_switches);
    }
}

impl Driver for ScheduleDriver {
    fn counts_since(&self) -> Timestamp {
        self.start
    }

    fn costs(&mut self) -> &mut Costs {
        &mut self.costs
    }

    fn poll(&mut self, processes: &mut Processes, events: &mut EventWriter<'_>, now: Timestamp) -> Timestamp {
        let next = self.next_instant(now);
        if now < next {
            return next;
        }
        self.take_instant(processes, events, now);
        self.instants.next()
    }

    fn wait_until(&self, _: &Processes, instant: Timestamp) {
        if clock::now() < instant {
            clock::sleep_until(instant);
        }
    }

    fn maintain(&mut self, processes: &mut Processes, events: &mut EventWriter<'_>, now: Timestamp) {
        self.leave_cpu();
        if let Some(verdict) = self.limit_of_cpu.look(now) {
            self.keep_limit(processes, events, verdict, now);
        }
        self.instants.follow(processes, events, now);
    }

    fn drain(&mut self, _: &mut Processes, _: &mut EventWriter<'_>) {
        self.leave_cpu();
    }

    fn report(
        &mut self,
        processes: &mut Processes,
        events: &mut EventWriter<'_>,
        is_over: bool,
    ) -> Timestamp {
        processes.resolve_pending(events);
        let now = clock::now();
        processes.report(events, now);
        self.costs.report(events, is_over, now);
        now
    }

    fn set_rate(&mut self, processes: &mut Processes, _: &mut EventWriter<'_>, rate_hz: f64, now: Timestamp) {
        self.instants.set_rate(processes, rate_hz, now);
        self.limit_of_cpu.set_rate(rate_hz);
        self.costs.interval = Some(self.instants.schedule_mut().mean_gap());
    }

    fn resume_from(&mut self, processes: &mut Processes, events: &mut EventWriter<'_>, now: Timestamp) {
        self.instants.resume_from(processes, events, now);
    }

    fn rest(&mut self, _: &mut Processes, _: &mut EventWriter<'_>) {
        self.leave_cpu();
    }

    fn end(
        mut self: Box<Self>,
        processes: &mut Processes,
        events: &mut EventWriter<'_>,
        deadline: Timestamp,
    ) {
        // Threads that do not stop are waited for.
        hang::excuse(true);
        let ended = self.report(processes, events, true);
        self.instants.end(processes, events, ended.min(deadline));
        processes.release_all(events, ended);
    }
}

/// Which threads run, if there is one process and no more to come.
fn runners(processes: &mut Processes) -> Runners {
    match processes.is_single() {
        true => processes.only_python().map_or(Runners::None, |sampler| sampler.runners()),
        false => Runners::Many,
    }
}

/// Takes the priority that the sampler needs. Returns what keeps it on the CPU of its target, and what keeps it below the quota of
/// its control group.
fn take_priority(
    processes: &mut Processes,
    promptness: &mut Promptness,
    kind: SamplerKind,
) -> (Option<CpuFollower>, Option<QuotaGuard>) {
    if kind != SamplerKind::Pause {
        // One that waits for a CPU gets it when its target sleeps, and sees that too often.
        promptness.take();
        return (None, None);
    }
    // The sampling thread must not lose its CPU while another thread is stopped. With real-time priority it can take the CPU from
    // what it samples.
    first_event::prepare();
    if promptness.take() != SchedulingClass::RealTime {
        return (None, own_quota());
    }
    let follower = CpuFollower::of_this_thread();
    if follower.is_some() {
        processes.parts().0.watches_switches = processes.is_single();
        processes.pythons().for_each(ProcessSampler::watch_switches);
    }
    // Real-time threads are not subject to the quota.
    (follower, None)
}

/// Keeps below the quota of our control group from now on, if it has one.
fn own_quota() -> Option<QuotaGuard> {
    CpuQuota::own().map(|quota| QuotaGuard::new(quota, clock::now(), clock::own_cpu_time()))
}
