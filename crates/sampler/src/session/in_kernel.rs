//! The loop of the sampler whose program takes the samples inside the kernel: it reads what the program sends, keeps the program up
//! to date, and asks the observer from time to time how to go on.

use std::ops::ControlFlow;

use profiler_account::{LaunchTime, Schedule};
use profiler_model::{LossReason, Nanos, Timestamp};
use profiler_os::signals::{self, SuspensionHold};
use profiler_os::{Process, clock, first_event, hang, priority};
use profiler_profile::{MarkKind, Scope};

use super::costs::Costs;
use super::launch::note_launch;
use super::promptness::Promptness;
use super::{CALLBACK_GAP, End, end_of_target, keep_deadline};
use crate::SamplerOptions;
use crate::cpu_limit::{CpuLimit, Verdict};
use crate::event_writer::{Directive, EventWriter};
use crate::processes::{KernelReader, LinuxHost, ProcessSet};

/// After this time, processes that are there are not made known to the in-kernel program ahead of all other work any more.
const PROMPT_BEGINNING: Nanos = Nanos::from_nanos(100_000_000);

/// Reads the in-kernel program.
pub struct KernelLoop<'a> {
    reader: KernelReader<'a>,
    promptness: &'a mut Promptness,
    costs: Costs,
    limit_of_cpu: CpuLimit,
    /// When threads off the CPU are looked at, if they are wanted.
    looks: Option<Schedule>,
    hold: SuspensionHold,
}

impl<'a> KernelLoop<'a> {
    /// Begins: makes the processes known to the program, and counts what was missed before.
    pub fn begin(
        processes: &'a mut ProcessSet<LinuxHost>,
        promptness: &'a mut Promptness,
        options: SamplerOptions,
        launch: Option<LaunchTime>,
        events: &mut EventWriter<'_>,
    ) -> Self {
        let start = clock::now();
        let mut costs = Costs::since(start);
        // Processes that are there are not sampled until the program knows them, however busy the machine is. What the program sends
        // has time. Looks from outside have not: one that comes when others leave it a CPU comes when its threads are waiting for
        // theirs.
        priority::want_promptness();
        let cpu = Process::new(processes.root()).cpu_time().unwrap_or_default();
        processes.miss_from(start);
        let period = processes.host().program.as_ref().map_or(Nanos::ZERO, |program| program.period());
        if let Some(launch) = launch {
            // What a tree missed is counted by the CPU time of its processes.
            let missed = launch.missed_ticks(period, cpu);
            costs.start = note_launch(processes, launch, 0, missed, events);
        }
        let mut reader = KernelReader::new(processes, start);
        reader.read_until_all_are_met(events, clock::now() + PROMPT_BEGINNING);
        match reader.processes.host().wants_looks_off_cpu() {
            true => promptness.take_share(),
            false => priority::want_no_promptness(),
        }
        if launch.is_none() {
            costs.start = reader.watched_since().unwrap_or(start);
        }
        costs.interval = Some(period).filter(|period| *period != Nanos::ZERO);
        costs.report_interval(events);
        let looks = looks_off_cpu(&reader, options.rate_hz, costs.start, events);
        let limit_of_cpu = CpuLimit::new(options.max_cpu, options.rate_hz, clock::now(), costs.own_before);
        KernelLoop { reader, promptness, costs, limit_of_cpu, looks, hold: SuspensionHold::begin() }
    }

    /// Reads until `limit` is over, the observer ends the session or nothing is left to sample.
    pub fn run(mut self, events: &mut EventWriter<'_>, limit: Option<Nanos>) -> End {
        let start = self.costs.start;
        let deadline = limit.map_or(Timestamp::MAX, |limit| start + limit);
        let _keeper = keep_deadline(self.reader.processes, deadline);
        let mut next_callback = start;
        let end = loop {
            let now = clock::now();
            if signals::was_continued() {
                // Nobody asked for samples of the time for which this process was suspended.
                self.looks.iter_mut().for_each(|looks| looks.go_on_from(now));
                self.reader.skip(now);
            }
            // What was sent is read once more after the end.
            if now >= deadline {
                break End::TimeOver;
            }
            self.reader.read(events, clock::now());
            if now >= next_callback {
                next_callback = now + CALLBACK_GAP;
                if self.call_back(events, start, now).is_break() {
                    break End::Asked;
                }
                // It may have taken long: it is where Ctrl-Z is obeyed.
                continue;
            }
            if self.reader.processes.are_gone(now) {
                break end_of_target(self.reader.processes);
            }
            let next_look = self.look_if_due(events);
            self.reader.wait_until(next_callback.min(deadline).min(next_look));
        };
        self.end(events);
        end
    }

    /// Does what is done from time to time; breaks if the observer ends the session.
    fn call_back(
        &mut self,
        events: &mut EventWriter<'_>,
        start: Timestamp,
        now: Timestamp,
    ) -> ControlFlow<()> {
        if self.looks.is_some()
            && let Some(verdict) = self.limit_of_cpu.look(now)
        {
            self.keep_limit(events, verdict, now);
        }
        self.report(events);
        match self.ask(events, now.since(start)) {
            Directive::Continue => {}
            Directive::Cut { renew_dictionary } => {
                self.reader.cut(events, clock::now());
                let now = self.report(events);
                self.costs.cut(events, now);
                if renew_dictionary {
                    events.renew_dictionary(|renaming| self.reader.processes.rename(renaming));
                }
            }
            Directive::End => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    /// Asks the observer whether to go on, which is where Ctrl-Z is obeyed: if it asks for that, the in-kernel program rests
    /// meanwhile, so that the target is left alone.
    fn ask(&mut self, events: &mut EventWriter<'_>, elapsed: Nanos) -> Directive {
        if !signals::is_suspension_asked() {
            return events.go_on(elapsed);
        }
        self.reader.rest(events);
        self.hold.lift(|| events.go_on(elapsed))
    }

    /// Does what has to be done to use less CPU time, or what can be done with what is left.
    fn keep_limit(&mut self, events: &mut EventWriter<'_>, verdict: Verdict, now: Timestamp) {
        match verdict {
            Verdict::LeaveRealTime => self.promptness.leave(events, now),
            Verdict::TakeRealTime => {
                self.promptness.take();
            }
            Verdict::Sample(part) => {
                self.looks.iter_mut().for_each(|looks| looks.sample_part(part));
                self.reader.processes.sample_part(part);
            }
        }
    }

    /// Looks at threads off the CPU, if it is time to; returns when it is next.
    fn look_if_due(&mut self, events: &mut EventWriter<'_>) -> Timestamp {
        let Some(looks) = &mut self.looks else { return Timestamp::MAX };
        if clock::now() >= looks.next() {
            self.reader.look_off_cpu(events, looks.next());
            let processes = self.reader.processes.sampled().max(1) as u64;
            let now = clock::now();
            let left_out = looks.take_left_out_until(looks.next()).len() as u64 * processes;
            events.lose(LossReason::CpuLimit, Scope::Session, now, left_out);
            let late = looks.go_on(now) * processes;
            events.lose(LossReason::Late, Scope::Session, now, late);
        }
        looks.next()
    }

    /// Reports what was found and what it cost up to now; returns when that is.
    fn report(&mut self, events: &mut EventWriter<'_>) -> Timestamp {
        self.reader.processes.resolve_pending(events);
        let now = clock::now();
        self.reader.report_ring_losses(events, now);
        self.reader.processes.report(events, now);
        self.costs.report(events, false, now);
        now
    }

    /// Ends what the in-kernel program does, and accounts for all up to then. Its clocks may take long to stop, but what the
    /// target uses meanwhile is none of the recording.
    fn end(&mut self, events: &mut EventWriter<'_>) {
        // The kernel takes its time to remove what it was given.
        hang::excuse(true);
        if self.looks.is_some() {
            // What waits on has waited up to here.
            self.reader.look_off_cpu(events, clock::now());
        }
        self.report(events);
        let ended = self.reader.end(events);
        self.reader.processes.resolve_pending(events);
        self.reader.report_ring_losses(events, ended);
        self.reader.processes.report_counts(events, ended);
        self.costs.report(events, true, ended);
        self.reader.processes.release_all(events, ended);
    }
}

/// When threads off the CPU are looked at, if they are wanted: as often as the in-kernel program samples the others.
fn looks_off_cpu(
    reader: &KernelReader<'_>,
    rate_hz: f64,
    start: Timestamp,
    events: &mut EventWriter<'_>,
) -> Option<Schedule> {
    if !reader.processes.host().wants_looks_off_cpu() {
        return None;
    }
    first_event::prepare();
    if events.wants_looks() {
        events.mark(Scope::Session, start, MarkKind::LooksBegin);
    }
    let period = reader.period();
    let rate_hz = if period == Nanos::ZERO { rate_hz } else { 1.0 / period.as_secs_f64() };
    Some(Schedule::new(rate_hz, start, start.as_nanos()))
}
