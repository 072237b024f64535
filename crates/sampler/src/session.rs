//! A session: one process, or a tree of them, sampled on a schedule; what was found is written as events.
//!
//! All processes share one schedule: at each instant each of them is sampled. So a tree costs one waking an
//! instant, and no process is sampled more often than another.

use std::ops::ControlFlow;

use profiler_account::{LaunchTime, Schedule};
use profiler_model::{LossReason, Nanos, Pid, Timestamp};
use profiler_os::priority::{LargerShare, SchedulingClass};
use profiler_os::signals::{self, SuspensionHold};
use profiler_os::{CpuQuota, Guardian, clock, first_event, hang, limits, priority};
use profiler_profile::{Dictionary, MarkKind, MetricValue, Scope};
use profiler_target::Target;

use crate::bpf::BpfProgram;
use crate::cpu_limit::{CpuLimit, Verdict};
use crate::deadline::{DeadlineKeeper, latest_look};
use crate::event_writer::{Directive, EventWriter, Observer};
use crate::pause::{CpuFollower, QuotaGuard};
use crate::process_set::ProcessSet;

/// The observer is asked at least this often.
const CALLBACK_GAP: Nanos = Nanos::from_nanos(50_000_000);

/// After so long, processes that are there are not told to the in-kernel program ahead of all other work any more.
const PROMPT_BEGINNING: Nanos = Nanos::from_nanos(100_000_000);

/// How much memory this program has had is looked at so often: it takes the kernel longer than a sample.
const MEMORY_GAP: Nanos = Nanos::from_nanos(1_000_000_000);

/// A way of taking samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SamplerKind {
    /// Stops one thread for a moment.
    #[default]
    Pause,
    /// Stops nothing, and keeps what it can prove.
    Peek,
    /// Runs inside the kernel at the instant itself, and stops nothing.
    Bpf,
}

/// What to sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerOptions {
    /// Samples a second, on average.
    pub rate_hz: f64,
    /// The way of taking them.
    pub kind: SamplerKind,
    /// Whether threads that do not run are shown as well.
    pub include_idle: bool,
    /// Whether only the thread that holds the GIL is shown.
    pub gil_only: bool,
    /// How much CPU time the profiler may use, as a share of one core: 1 is a whole one.
    pub max_cpu: f64,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The callback asked for it.
    Asked,
    /// The time is over.
    TimeOver,
    /// The target has ended.
    TargetEnded,
    /// The memory of the target does not answer: the kernel waits for a page of it.
    TargetSilent,
}

/// Samples a process or a tree of them.
#[derive(Debug)]
pub struct Session {
    process_set: ProcessSet,
    dictionary: Dictionary,
    options: SamplerOptions,
    beginning: Option<LaunchTime>,
    /// What work that has time gets of its CPU while real-time priority is given up for it.
    share: Option<LargerShare>,
}

impl Session {
    /// A session of `target` alone that has not begun.
    pub fn new(target: Target, options: SamplerOptions) -> Self {
        Session {
            process_set: ProcessSet::new(target.pid(), Some(target), false, options),
            dictionary: Dictionary::default(),
            options,
            beginning: None,
            share: None,
        }
    }

    /// A session of the process `root` and all its descendants, those that are there and those that come. The
    /// tree is watched from now on. `target` is the root's Python, where it is known: the root need not have
    /// one.
    pub fn of_tree(root: Pid, target: Option<Target>, options: SamplerOptions) -> Self {
        Session {
            process_set: ProcessSet::new(root, target, true, options),
            dictionary: Dictionary::default(),
            options,
            beginning: None,
            share: None,
        }
    }

    /// Has the recording begin when its process, or the root of its tree, was started: what was not seen since is counted.
    pub fn began(&mut self, beginning: LaunchTime) {
        self.beginning = Some(beginning);
    }

    /// Has `kernel`, which ticks already, take the samples: what [`SamplerKind::Bpf`] asks for.
    pub fn sample_by(&mut self, kernel: BpfProgram) {
        self.process_set.sample_by(kernel);
    }

    /// Samples until `limit` is over, `observer` breaks or nothing is left to sample: a tree goes on when its
    /// root has ended, as long as one of its Pythons lives. What was found, what was lost and what it cost is handed to the
    /// observer.
    ///
    /// The calling thread keeps the priority that sampling took, as far as is permitted; what it does next may need
    /// less ([`LargerShare::instead_of_real_time`](profiler_os::priority::LargerShare::instead_of_real_time)).
    pub fn run(&mut self, observer: &mut dyn Observer, limit: Option<Nanos>) -> End {
        limits::want_many_files();
        let mut dictionary = std::mem::take(&mut self.dictionary);
        let mut events = EventWriter::new(&mut dictionary, observer);
        let end = self.run_by_sampler(&mut events, limit);
        events.flush();
        self.dictionary = dictionary;
        self.share = None;
        end
    }

    fn run_by_sampler(&mut self, events: &mut EventWriter<'_>, limit: Option<Nanos>) -> End {
        match self.options.kind {
            SamplerKind::Pause => {
                let (class, cpu_follower) = self.be_prompt();
                // Real-time threads are not subject to the quota.
                let quota = if class == SchedulingClass::RealTime { None } else { own_quota() };
                // Without it, a stop lasts as long as this process is stopped.
                let _guardian = Guardian::start().ok();
                self.run_on_schedule(events, limit, cpu_follower, quota)
            }
            SamplerKind::Peek => {
                // One that waits for a CPU gets it when its target sleeps, and sees that too often.
                self.want_promptness();
                self.run_on_schedule(events, limit, None, None)
            }
            SamplerKind::Bpf => self.run_in_kernel(events, limit),
        }
    }

    /// Has the session end at `deadline`, if there is one, as long as what is returned lives.
    fn keep_deadline(&mut self, deadline: Timestamp) -> Option<DeadlineKeeper> {
        if deadline == Timestamp::MAX {
            return None;
        }
        self.process_set.look_until(latest_look(deadline));
        Some(match self.process_set.kernel() {
            Some(kernel) => DeadlineKeeper::start(deadline, kernel.end_at(deadline)),
            None => DeadlineKeeper::start(deadline, || {}),
        })
    }

    /// Has the calling thread go ahead of ordinary work, as far as is permitted, and have a larger share than others
    /// whenever it does not.
    fn want_promptness(&mut self) -> SchedulingClass {
        self.share = LargerShare::take();
        priority::want_promptness()
    }

    /// Sees to it that the sampling thread does not lose its CPU while another thread is stopped. With real-time priority
    /// it can take the CPU from what it samples.
    fn be_prompt(&mut self) -> (SchedulingClass, Option<CpuFollower>) {
        first_event::prepare();
        let class = self.want_promptness();
        let is_real_time = class == SchedulingClass::RealTime;
        let cpu_follower = is_real_time.then(CpuFollower::of_this_thread).flatten();
        if cpu_follower.is_some() {
            self.process_set.watch_turns();
        }
        (class, cpu_follower)
    }

    fn run_on_schedule(
        &mut self,
        events: &mut EventWriter<'_>,
        limit: Option<Nanos>,
        mut cpu_follower: Option<CpuFollower>,
        mut quota: Option<QuotaGuard>,
    ) -> End {
        let (start, mut costs) = self.begin_on_schedule(events);
        let mut schedule = Schedule::new(self.options.rate_hz, start, start.as_nanos());
        costs.interval = Some(schedule.mean_gap());
        events.metric(start, MetricValue::Interval(schedule.mean_gap()));
        let mut limit_of_cpu = self.limit_of_cpu(self.options.rate_hz, &costs);
        let deadline = limit.map_or(Timestamp::MAX, |limit| start + limit);
        let _keeper = self.keep_deadline(deadline);
        let mut next_callback = start;
        let end = loop {
            let now = clock::now();
            if signals::was_continued() {
                // Nobody asked for samples of the time for which we were suspended.
                schedule.go_on_from(now);
                self.process_set.resolve_pending(events);
                self.process_set.count_from(now);
            }
            if now >= deadline {
                break End::TimeOver;
            }
            if now >= next_callback {
                next_callback = now + CALLBACK_GAP;
                cpu_follower.as_mut().map(CpuFollower::leave_cpu);
                if let Some(verdict) = limit_of_cpu.look(now) {
                    if verdict == Verdict::LeaveRealTime {
                        cpu_follower = None;
                        quota = quota.or_else(own_quota);
                    }
                    self.keep_limit(events, verdict, &mut schedule);
                }
                self.process_set.follow_tree(events, schedule.next(), now);
                self.process_set.release_late();
                self.report(events, &mut costs, false);
                let directive = events.go_on(now.since(start));
                if self.obey(directive, events, &mut costs).is_break() {
                    break End::Asked;
                }
                // It may have taken long: it is where Ctrl-Z is obeyed.
                continue;
            }
            if self.process_set.are_gone(now) {
                break self.end_of_target();
            }
            let earliest = cpu_follower.as_mut().and_then(CpuFollower::come_back);
            let rest = quota.as_mut().and_then(|quota| quota.rests_until(now, clock::own_cpu_time()));
            let next = schedule.next().max(earliest.unwrap_or(now)).max(rest.unwrap_or(now));
            if now < next {
                clock::sleep_until(next.min(next_callback).min(deadline));
                continue;
            }
            self.take_instant(events, &mut schedule, &mut cpu_follower, now);
        };
        // Threads that do not stop are waited for.
        hang::excuse(true);
        let ended = self.report(events, &mut costs, true);
        self.process_set.release_all(events, ended);
        end
    }

    /// Counts what was missed since the launch; returns when sampling begins.
    fn begin_on_schedule(&mut self, events: &mut EventWriter<'_>) -> (Timestamp, Costs) {
        let mut costs = Costs::from_now();
        let start = costs.start;
        self.process_set.miss_from(start);
        if let Some(beginning) = self.beginning {
            let missed = beginning.missed_instants(self.options.rate_hz, start);
            self.begin_tree(missed);
            self.note_beginning(beginning, missed, events, &mut costs);
        }
        (start, costs)
    }

    /// Takes the samples of the instant that is due at `now`, and goes on to the next one.
    fn take_instant(
        &mut self,
        events: &mut EventWriter<'_>,
        schedule: &mut Schedule,
        cpu_follower: &mut Option<CpuFollower>,
        now: Timestamp,
    ) {
        let process_set = &mut self.process_set;
        process_set.sample(events, schedule.next());
        for at in schedule.take_left_out() {
            process_set.count_left_out(events, LossReason::CpuLimit, at);
        }
        let mut count_late = |at| process_set.count_left_out(events, LossReason::Late, at);
        schedule.go_on_telling(clock::now(), &mut count_late);
        if cpu_follower.is_some() && schedule.next() <= clock::now() {
            process_set.sample_again(events, schedule);
        }
        if cpu_follower.as_mut().is_some_and(|follower| !follower.follow(process_set.runners(), now)) {
            *cpu_follower = None;
            process_set.unwatch_turns();
        }
        if process_set.is_resolving_due(schedule.next()) {
            cpu_follower.as_mut().map(CpuFollower::leave_cpu);
            process_set.resolve_pending(events);
        }
    }

    /// Why nothing is left to sample.
    fn end_of_target(&self) -> End {
        if self.process_set.silent().is_some() { End::TargetSilent } else { End::TargetEnded }
    }

    /// Reads what the in-kernel program sends, from time to time.
    fn run_in_kernel(&mut self, events: &mut EventWriter<'_>, limit: Option<Nanos>) -> End {
        let mut costs = self.begin_in_kernel(events);
        let start = costs.start;
        let deadline = limit.map_or(Timestamp::MAX, |limit| start + limit);
        let _keeper = self.keep_deadline(deadline);
        let mut next_callback = start;
        let mut looks = self.looks_off_cpu(events, start);
        let mut limit_of_cpu = self.limit_of_cpu(self.options.rate_hz, &costs);
        let mut hold = SuspensionHold::begin();
        let end = loop {
            let now = clock::now();
            if signals::was_continued() {
                // Nobody asked for samples of the time for which we were suspended.
                looks.iter_mut().for_each(|looks| looks.go_on_from(now));
                self.process_set.skip_sent(now);
            }
            // What was sent is read once more after the end.
            if now >= deadline {
                break End::TimeOver;
            }
            self.process_set.read_kernel(events);
            if now >= next_callback {
                next_callback = now + CALLBACK_GAP;
                if let (Some(looks), Some(verdict)) = (&mut looks, limit_of_cpu.look(now)) {
                    self.keep_limit(events, verdict, looks);
                }
                self.report(events, &mut costs, false);
                let directive = self.call_back(events, &mut hold, now.since(start));
                if self.obey(directive, events, &mut costs).is_break() {
                    break End::Asked;
                }
                // It may have taken long: it is where Ctrl-Z is obeyed.
                continue;
            }
            if self.process_set.are_gone(now) {
                break self.end_of_target();
            }
            let next_look = looks.as_mut().map_or(Timestamp::MAX, |looks| self.look_if_due(events, looks));
            self.process_set.wait_until(next_callback.min(deadline).min(next_look));
        };
        // The kernel takes its time to remove what it was given.
        hang::excuse(true);
        if looks.is_some() {
            // What waits on has waited up to here.
            self.process_set.look_off_cpu(events, clock::now());
        }
        let ended = self.end_in_kernel(events, &mut costs);
        self.process_set.release_all(events, ended);
        end
    }

    /// Ends what the in-kernel program does, and accounts for all up to then; returns when that was. Its clocks may take long
    /// to stop, but what the target uses meanwhile is none of the recording.
    fn end_in_kernel(&mut self, events: &mut EventWriter<'_>, costs: &mut Costs) -> Timestamp {
        self.report(events, costs, false);
        let ended = self.process_set.end_kernel(events);
        self.process_set.resolve_pending(events);
        self.process_set.report_counts(events, ended);
        costs.report(events, true, ended);
        ended
    }

    /// Tells the in-kernel program what there is, and counts what was missed before it was told.
    fn begin_in_kernel(&mut self, events: &mut EventWriter<'_>) -> Costs {
        let mut costs = Costs::from_now();
        // What is there must be told to the program at once, however busy the machine is: until then it is not
        // sampled. What the program sends has time, looks from outside have not: one that comes when others leave
        // it a CPU comes when its threads are waiting for theirs.
        priority::want_promptness();
        let cpu = self.process_set.cpu_of_root();
        self.process_set.miss_from(costs.start);
        // What was missed is told by CPU time there.
        self.begin_tree(0);
        self.process_set.read_kernel_until_all_are_met(events, PROMPT_BEGINNING);
        if self.process_set.wants_looks_off_cpu() {
            self.share = LargerShare::take();
        } else {
            priority::want_no_promptness();
        }
        costs.start = self.process_set.watched_since().unwrap_or(costs.start);
        if let Some(beginning) = self.beginning {
            let period = self.process_set.kernel().map_or(Nanos::ZERO, |kernel| kernel.period());
            let missed = beginning.missed_ticks(period, cpu.unwrap_or_default());
            self.note_beginning(beginning, missed, events, &mut costs);
        }
        let period = self.process_set.kernel().map(|kernel| kernel.period());
        costs.interval = period.filter(|period| *period != Nanos::ZERO);
        costs.interval.iter().for_each(|gap| events.metric(costs.start, MetricValue::Interval(*gap)));
        costs
    }

    /// Asks the observer whether to go on, which is where Ctrl-Z is obeyed: if it asks for that, the in-kernel program rests
    /// meanwhile, so that the target is left alone.
    fn call_back(
        &mut self,
        events: &mut EventWriter<'_>,
        hold: &mut SuspensionHold,
        elapsed: Nanos,
    ) -> Directive {
        if !signals::is_suspension_asked() {
            return events.go_on(elapsed);
        }
        self.process_set.let_kernel_rest(events);
        hold.lift(|| events.go_on(elapsed))
    }

    /// Does what the observer has asked for; breaks if that is to end.
    fn obey(
        &mut self,
        directive: Directive,
        events: &mut EventWriter<'_>,
        costs: &mut Costs,
    ) -> ControlFlow<()> {
        match directive {
            Directive::Continue => {}
            Directive::Cut { renew_dictionary } => {
                self.process_set.cut(events);
                let now = self.report(events, costs, false);
                events.cut(now);
                costs.start = now;
                costs.interval.iter().for_each(|gap| events.metric(now, MetricValue::Interval(*gap)));
                if renew_dictionary {
                    events.renew_dictionary(|renaming| self.process_set.rename(renaming));
                }
            }
            Directive::End => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    /// When threads off the CPU are looked at, if they are wanted: as often as the in-kernel program samples the others.
    fn looks_off_cpu(&mut self, events: &mut EventWriter<'_>, start: Timestamp) -> Option<Schedule> {
        if !self.process_set.wants_looks_off_cpu() {
            return None;
        }
        first_event::prepare();
        if events.wants_looks() {
            events.mark(Scope::Session, start, MarkKind::LooksBegin);
        }
        let period = self.process_set.kernel().map_or(Nanos::ZERO, |kernel| kernel.period());
        let rate_hz = if period == Nanos::ZERO { self.options.rate_hz } else { 1.0 / period.as_secs_f64() };
        Some(Schedule::new(rate_hz, start, start.as_nanos()))
    }

    /// Looks at threads off the CPU, if it is time to; returns when it is next.
    fn look_if_due(&mut self, events: &mut EventWriter<'_>, looks: &mut Schedule) -> Timestamp {
        if clock::now() >= looks.next() {
            self.process_set.look_off_cpu(events, looks.next());
            let processes = self.process_set.sampled().max(1) as u64;
            let now = clock::now();
            let left_out = looks.take_left_out().len() as u64 * processes;
            events.lose(LossReason::CpuLimit, Scope::Session, now, left_out);
            let late = looks.go_on(now) * processes;
            events.lose(LossReason::Late, Scope::Session, now, late);
        }
        looks.next()
    }

    /// What keeps the session within the CPU time that it may use.
    fn limit_of_cpu(&self, rate_hz: f64, costs: &Costs) -> CpuLimit {
        CpuLimit::new(self.options.max_cpu, rate_hz, clock::now(), costs.own_before)
    }

    /// Does what has to be done to use less CPU time, or what can be done with what is left.
    fn keep_limit(&mut self, events: &mut EventWriter<'_>, verdict: Verdict, schedule: &mut Schedule) {
        match verdict {
            Verdict::LeaveRealTime => {
                if priority::leave_real_time() {
                    events.mark(Scope::Session, clock::now(), MarkKind::RealTimeLeft);
                }
                self.share = None;
                self.process_set.unwatch_turns();
            }
            Verdict::TakeRealTime => {
                self.want_promptness();
            }
            Verdict::Sample(part) => {
                schedule.sample_part(part);
                self.process_set.sample_part(part);
            }
        }
    }

    /// Has the processes know when the root was started, if that is known, and how many instants ago.
    fn begin_tree(&mut self, instants: u64) {
        if let (Some(beginning), true) = (self.beginning, self.process_set.is_tree()) {
            self.process_set.began(beginning.started, instants);
        }
    }

    /// Has the recording begin with its process, of which so many samples were missed before the first look. Of a tree
    /// the processes say what was missed: which of them has a Python is not known yet.
    fn note_beginning(
        &mut self,
        beginning: LaunchTime,
        missed: u64,
        events: &mut EventWriter<'_>,
        costs: &mut Costs,
    ) {
        costs.start = beginning.started;
        if self.process_set.is_tree() {
            return;
        }
        let at = beginning.started;
        events.metric(at, MetricValue::BeforePython(beginning.time_without_python()));
        events.lose(LossReason::Late, Scope::Session, at, missed);
    }

    /// Reports what was found and what it cost up to now; returns when that is.
    fn report(&mut self, events: &mut EventWriter<'_>, costs: &mut Costs, is_over: bool) -> Timestamp {
        self.process_set.resolve_pending(events);
        let now = clock::now();
        self.process_set.report(events, now);
        costs.report(events, is_over, now);
        now
    }
}

/// Keeps below the quota of our control group from now on, if it has one.
fn own_quota() -> Option<QuotaGuard> {
    CpuQuota::own().map(|quota| QuotaGuard::new(quota, clock::now(), clock::own_cpu_time()))
}

/// What the session itself has used, by its clocks.
struct Costs {
    start: Timestamp,
    own_before: Nanos,
    /// The same, as it was reported last.
    own_reported: Nanos,
    /// The mean gap between two instants.
    interval: Option<Nanos>,
    next_look_at_memory: Timestamp,
}

impl Costs {
    fn from_now() -> Self {
        let start = clock::now();
        let own_before = clock::own_cpu_time();
        Costs { start, own_before, own_reported: own_before, interval: None, next_look_at_memory: start }
    }

    /// Reports what was used up to `now`.
    fn report(&mut self, events: &mut EventWriter<'_>, is_over: bool, now: Timestamp) {
        events.metric(now, MetricValue::Sampled(self.start));
        let own_cpu = clock::own_cpu_time();
        let before = std::mem::replace(&mut self.own_reported, own_cpu);
        events.metric(now, MetricValue::OwnCpu(own_cpu.saturating_sub(before)));
        if is_over || now >= self.next_look_at_memory {
            self.next_look_at_memory = now + MEMORY_GAP;
            events.metric(now, MetricValue::OwnMemory(clock::own_peak_memory()));
        }
    }
}
