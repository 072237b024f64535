//! Samples taken by the in-kernel program: this driver reads what the program sends, keeps the program up to date, and looks at
//! threads off the CPU if these are wanted and the program does not report them.

use profiler_account::{LaunchTime, Schedule};
use profiler_model::{LossReason, Nanos, Pid, Timestamp};
use profiler_os::{Process, clock, first_event, hang, priority};
use profiler_profile::{MarkKind, Scope};

use super::costs::Costs;
use super::driver::{Driver, Processes};
use super::launch::note_launch;
use super::promptness::Promptness;
use crate::SamplerOptions;
use crate::cpu_limit::{CpuLimit, Verdict};
use crate::event_writer::EventWriter;
use crate::processes::KernelReader;

/// For this long after the start, making the processes known to the in-kernel program comes before all other work.
const PROMPT_BEGINNING: Nanos = Nanos::from_nanos(100_000_000);

/// Reads the in-kernel program.
#[derive(Debug)]
pub struct KernelDriver {
    reader: KernelReader,
    promptness: Promptness,
    costs: Costs,
    counts_since: Timestamp,
    limit_of_cpu: CpuLimit,
    /// When threads off the CPU are looked at, if they are wanted.
    looks: Option<Schedule>,
}

impl KernelDriver {
    /// Makes the processes known to the program, and counts what was missed before.
    pub fn start(
        processes: &mut Processes,
        options: SamplerOptions,
        launch: Option<(Pid, LaunchTime)>,
        events: &mut EventWriter<'_>,
    ) -> Self {
        let start = clock::now();
        let mut costs = Costs::since(start);
        // Processes that are there are not sampled until the program knows them, however busy the machine is. What the program sends
        // has time. Looks from outside have not: one that comes when others leave it a CPU comes when its threads are waiting for
        // theirs.
        priority::want_promptness();
        let launch = launch.map(|launch| (launch, Process::new(launch.0).cpu_time().unwrap_or_default()));
        processes.miss_from(start);
        let period = period(processes);
        if let Some((launch, cpu)) = launch {
            // What a tree missed is counted by the CPU time of its processes.
            let missed = launch.1.missed_ticks(period, cpu);
            costs.start = note_launch(processes, launch, 0, missed, events);
        }
        let mut reader = KernelReader::new(start);
        reader.read_until_all_are_met(processes, events, clock::now() + PROMPT_BEGINNING);
        let mut promptness = Promptness::default();
        match processes.host().wants_looks_off_cpu() {
            true => promptness.take_share(),
            false => priority::want_no_promptness(),
        }
        if launch.is_none() {
            costs.start = KernelReader::watched_since(processes).unwrap_or(start);
        }
        costs.interval = Some(period).filter(|period| *period != Nanos::ZERO);
        costs.report_interval(events);
        let looks = looks_off_cpu(processes, options.rate_hz, costs.start, events);
        let limit_of_cpu = CpuLimit::new(options.max_cpu, options.rate_hz, clock::now(), costs.own_before);
        let counts_since = costs.start;
        KernelDriver { reader, promptness, costs, counts_since, limit_of_cpu, looks }
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
            Verdict::LeaveRealTime => self.promptness.leave(events, now),
            Verdict::TakeRealTime => {
                self.promptness.take();
            }
            Verdict::Sample(part) => {
                self.looks.iter_mut().for_each(|looks| looks.sample_part(part));
                processes.sample_part(part);
            }
        }
    }

    /// Looks at threads off the CPU, if it is time to; returns when it is next.
    fn look_if_due(&mut self, processes: &mut Processes, events: &mut EventWriter<'_>) -> Timestamp {
        let Some(looks) = &mut self.looks else { return Timestamp::MAX };
        if clock::now() >= looks.next() {
            self.reader.look_off_cpu(processes, events, looks.next());
            let sampled = processes.sampled().max(1) as u64;
            let now = clock::now();
            let left_out = looks.take_left_out_until(looks.next()).len() as u64 * sampled;
            events.lose(LossReason::CpuLimit, Scope::Session, now, left_out);
            let late = looks.go_on(now) * sampled;
            events.lose(LossReason::Late, Scope::Session, now, late);
        }
        looks.next()
    }
}

impl Driver for KernelDriver {
    fn counts_since(&self) -> Timestamp {
        self.counts_since
    }

    fn costs(&mut self) -> &mut Costs {
        &mut self.costs
    }

    fn poll(&mut self, processes: &mut Processes, events: &mut EventWriter<'_>, _: Timestamp) -> Timestamp {
        self.reader.read(processes, events, clock::now());
        self.look_if_due(processes, events)
    }

    fn wait_until(&self, processes: &Processes, instant: Timestamp) {
        KernelReader::wait_until(processes, instant);
    }

    fn maintain(&mut self, processes: &mut Processes, events: &mut EventWriter<'_>, now: Timestamp) {
        self.reader.read(processes, events, clock::now());
        if self.looks.is_some()
            && let Some(verdict) = self.limit_of_cpu.look(now)
        {
            self.keep_limit(processes, events, verdict, now);
        }
    }

    fn drain(&mut self, processes: &mut Processes, events: &mut EventWriter<'_>) {
        self.reader.cut(processes, events, clock::now());
    }

    fn report(
        &mut self,
        processes: &mut Processes,
        events: &mut EventWriter<'_>,
        is_over: bool,
    ) -> Timestamp {
        processes.resolve_pending(events);
        let now = clock::now();
        self.reader.report_ring_losses(processes, events, now);
        processes.report(events, now);
        self.costs.report(events, is_over, now);
        now
    }

    fn set_rate(
        &mut self,
        processes: &mut Processes,
        events: &mut EventWriter<'_>,
        rate_hz: f64,
        now: Timestamp,
    ) {
        // What was due up to now was due at the rate before.
        self.reader.read(processes, events, now);
        processes.set_rate(rate_hz);
        if period(processes) != Nanos::ZERO {
            let period = Nanos::from_nanos((1e9 / rate_hz) as u64);
            processes.parts().0.program.iter_mut().for_each(|program| program.set_period(period));
            self.costs.interval = Some(period);
        }
        self.looks.iter_mut().for_each(|looks| looks.set_rate(rate_hz, now));
        self.limit_of_cpu.set_rate(rate_hz);
    }

    fn resume_from(&mut self, processes: &mut Processes, _: &mut EventWriter<'_>, now: Timestamp) {
        self.looks.iter_mut().for_each(|looks| looks.go_on_from(now));
        self.reader.skip(processes, now);
    }

    fn rest(&mut self, processes: &mut Processes, events: &mut EventWriter<'_>) {
        self.reader.rest(processes, events);
    }

    /// The clocks of the program may take long to stop; what the target uses meanwhile is not part of the recording.
    fn end(mut self: Box<Self>, processes: &mut Processes, events: &mut EventWriter<'_>, _: Timestamp) {
        // The kernel takes its time to remove what it was given.
        hang::excuse(true);
        if self.looks.is_some() {
            // Threads that wait on have waited up to here.
            self.reader.look_off_cpu(processes, events, clock::now());
        }
        self.report(processes, events, false);
        let ended = self.reader.end(processes, events);
        processes.resolve_pending(events);
        self.reader.report_ring_losses(processes, events, ended);
        processes.report_counts(events, ended);
        self.costs.report(events, true, ended);
        processes.release_all(events, ended);
    }
}

/// The mean period of the program's ticks; 0 if it does not tick.
fn period(processes: &Processes) -> Nanos {
    processes.host().program.as_ref().map_or(Nanos::ZERO, |program| program.period())
}

/// When threads off the CPU are looked at, if they are wanted: as often as the in-kernel program samples the others.
fn looks_off_cpu(
    processes: &Processes,
    rate_hz: f64,
    start: Timestamp,
    events: &mut EventWriter<'_>,
) -> Option<Schedule> {
    if !processes.host().wants_looks_off_cpu() {
        return None;
    }
    first_event::prepare();
    if events.wants_looks() {
        events.mark(Scope::Session, start, MarkKind::LooksBegin);
    }
    let period = period(processes);
    let rate_hz = if period == Nanos::ZERO { rate_hz } else { 1.0 / period.as_secs_f64() };
    Some(Schedule::new(rate_hz, start, start.as_nanos()))
}
