//! The loop of the samplers that take samples from outside: it sleeps until the next instant, and between instants it reports,
//! asks the observer how to go on, and keeps the session within its CPU time.

use std::ops::ControlFlow;

use profiler_account::{LaunchTime, Schedule};
use profiler_model::{Nanos, Timestamp};
use profiler_os::priority::SchedulingClass;
use profiler_os::{CpuQuota, Guardian, clock, first_event, hang, signals};

use super::costs::Costs;
use super::launch::note_launch;
use super::promptness::Promptness;
use super::{CALLBACK_GAP, End, end_of_target, keep_deadline};
use crate::cpu_limit::{CpuLimit, Verdict};
use crate::event_writer::{Directive, EventWriter};
use crate::pause::{CpuFollower, QuotaGuard, Runners};
use crate::process_sampler::ProcessSampler;
use crate::processes::{LinuxHost, ProcessSet, ScheduledEngine};
use crate::{SamplerKind, SamplerOptions};

/// Samples processes at the instants of a schedule.
pub struct ScheduleLoop<'a> {
    engine: ScheduledEngine<'a, LinuxHost>,
    promptness: &'a mut Promptness,
    start: Timestamp,
    costs: Costs,
    limit_of_cpu: CpuLimit,
    /// Keeps the sampling thread on the CPU of the only thread that runs.
    follower: Option<CpuFollower>,
    quota: Option<QuotaGuard>,
    /// Without it, a stop lasts as long as this process is stopped.
    _guardian: Option<Guardian>,
}

impl<'a> ScheduleLoop<'a> {
    /// Begins: takes the priority that the sampler needs, and counts what was missed since the launch.
    pub fn begin(
        processes: &'a mut ProcessSet<LinuxHost>,
        promptness: &'a mut Promptness,
        options: SamplerOptions,
        launch: Option<LaunchTime>,
        events: &mut EventWriter<'_>,
    ) -> Self {
        let (follower, quota) = take_priority(processes, promptness, options.kind);
        let _guardian = if options.kind == SamplerKind::Pause { Guardian::start().ok() } else { None };
        let start = clock::now();
        let mut costs = Costs::since(start);
        processes.miss_from(start);
        if let Some(launch) = launch {
            let missed = launch.missed_instants(options.rate_hz, start);
            costs.start = note_launch(processes, launch, missed, missed, events);
        }
        let schedule = Schedule::new(options.rate_hz, start, start.as_nanos());
        costs.interval = Some(schedule.mean_gap());
        costs.report_interval(events);
        let limit_of_cpu = CpuLimit::new(options.max_cpu, options.rate_hz, start, costs.own_before);
        let engine = ScheduledEngine::new(processes, schedule);
        ScheduleLoop { engine, promptness, start, costs, limit_of_cpu, follower, quota, _guardian }
    }

    /// Samples until `limit` is over, the observer ends the session or nothing is left to sample.
    pub fn run(mut self, events: &mut EventWriter<'_>, limit: Option<Nanos>) -> End {
        let deadline = limit.map_or(Timestamp::MAX, |limit| self.start + limit);
        let _keeper = keep_deadline(self.engine.processes, deadline);
        let mut next_callback = self.start;
        let end = loop {
            let now = clock::now();
            if signals::was_continued() {
                // Nobody asked for samples of the time for which this process was suspended.
                self.engine.go_on_from(events, now);
            }
            if now >= deadline {
                break End::TimeOver;
            }
            if now >= next_callback {
                next_callback = now + CALLBACK_GAP;
                if self.call_back(events, now).is_break() {
                    break End::Asked;
                }
                // It may have taken long: it is where Ctrl-Z is obeyed.
                continue;
            }
            if self.engine.processes.are_gone(now) {
                break end_of_target(self.engine.processes);
            }
            let next = self.next_instant(now);
            if now < next {
                clock::sleep_until(next.min(next_callback).min(deadline));
                continue;
            }
            self.take_instant(events, now);
        };
        self.end(events, deadline);
        end
    }

    /// When the next instant may be sampled: the sampler may have to rest before.
    fn next_instant(&mut self, now: Timestamp) -> Timestamp {
        let earliest = self.follower.as_mut().and_then(CpuFollower::come_back);
        let rest = self.quota.as_mut().and_then(|quota| quota.rests_until(now, clock::own_cpu_time()));
        self.engine.schedule.next().max(earliest.unwrap_or(now)).max(rest.unwrap_or(now))
    }

    /// Takes the samples of the instant that is due at `now`, and goes on to the next one.
    fn take_instant(&mut self, events: &mut EventWriter<'_>, now: Timestamp) {
        let mut next = self.engine.poll(events, now);
        if self.follower.is_some() && next <= clock::now() {
            self.sample_again(events);
            next = self.engine.schedule.next();
        }
        if self.follower.is_some() {
            let runners = self.runners();
            if self.follower.as_mut().is_some_and(|follower| !follower.follow(runners, now)) {
                self.leave_follower();
            }
        }
        if self.engine.processes.samplers().any(|sampler| sampler.is_resolving_due(next)) {
            self.leave_cpu();
            self.engine.processes.resolve_pending(events);
        }
    }

    /// Has what was captured last count for the instants that have passed since then, as far as all stood still in the only
    /// process.
    fn sample_again(&mut self, events: &mut EventWriter<'_>) {
        let ScheduledEngine { processes, schedule } = &mut self.engine;
        if processes.host().tree.is_none() {
            processes.samplers().for_each(|sampler| sampler.sample_again(events, schedule));
        }
    }

    /// Which threads run, if there is one process and no more to come.
    fn runners(&mut self) -> Runners {
        if self.engine.processes.host().tree.is_some() {
            return Runners::Many;
        }
        self.engine.processes.samplers().next().map_or(Runners::None, |sampler| sampler.runners())
    }

    /// Does what is done between instants; breaks if the observer ends the session.
    fn call_back(&mut self, events: &mut EventWriter<'_>, now: Timestamp) -> ControlFlow<()> {
        self.leave_cpu();
        if let Some(verdict) = self.limit_of_cpu.look(now) {
            self.keep_limit(events, verdict, now);
        }
        self.engine.follow(events, now);
        self.report(events, false);
        match events.go_on(now.since(self.start)) {
            Directive::Continue => {}
            Directive::Cut { renew_dictionary } => {
                let now = self.report(events, false);
                self.costs.cut(events, now);
                if renew_dictionary {
                    events.renew_dictionary(|renaming| self.engine.processes.rename(renaming));
                }
            }
            Directive::End => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    /// Does what has to be done to use less CPU time, or what can be done with what is left.
    fn keep_limit(&mut self, events: &mut EventWriter<'_>, verdict: Verdict, now: Timestamp) {
        match verdict {
            Verdict::LeaveRealTime => {
                self.promptness.leave(events, now);
                self.leave_follower();
                self.quota = self.quota.take().or_else(own_quota);
            }
            Verdict::TakeRealTime => {
                self.promptness.take();
            }
            Verdict::Sample(part) => self.engine.sample_part(part),
        }
    }

    /// Leaves the CPU of the thread that is sampled for work that need not be done there.
    fn leave_cpu(&mut self) {
        self.follower.iter_mut().for_each(CpuFollower::leave_cpu);
    }

    /// Follows no thread to its CPU any more.
    fn leave_follower(&mut self) {
        self.follower = None;
        self.engine.processes.parts().0.watches_switches = false;
        self.engine.processes.samplers().for_each(ProcessSampler::unwatch_switches);
    }

    /// Reports what was found and what it cost up to now; returns when that is.
    fn report(&mut self, events: &mut EventWriter<'_>, is_over: bool) -> Timestamp {
        self.engine.processes.resolve_pending(events);
        let now = clock::now();
        self.engine.processes.report(events, now);
        self.costs.report(events, is_over, now);
        now
    }

    fn end(&mut self, events: &mut EventWriter<'_>, deadline: Timestamp) {
        // Threads that do not stop are waited for.
        hang::excuse(true);
        let ended = self.report(events, true);
        self.engine.end(events, ended.min(deadline));
        self.engine.processes.release_all(events, ended);
    }
}

/// Takes the priority that the sampler needs. Returns what keeps it on the CPU of its target, and what keeps it below the quota of
/// its control group.
fn take_priority(
    processes: &mut ProcessSet<LinuxHost>,
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
        let (host, table) = processes.parts();
        host.watches_switches = host.tree.is_none();
        table.samplers().for_each(ProcessSampler::watch_switches);
    }
    // Real-time threads are not subject to the quota.
    (follower, None)
}

/// Keeps below the quota of our control group from now on, if it has one.
fn own_quota() -> Option<QuotaGuard> {
    CpuQuota::own().map(|quota| QuotaGuard::new(quota, clock::now(), clock::own_cpu_time()))
}
