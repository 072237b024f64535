//! A session: one target sampled on a schedule, into a profile and its ledger.

use std::ops::ControlFlow;

use profiler_memory::ReadError;
use profiler_model::{Frame, FrameKind, LossReason, Nanos, ThreadKey, ThreadState, Timestamp};
use profiler_os::{clock, priority};
use profiler_profile::{
    FrameId, Ledger, ProcessId, ProcessInfo, Profile, Sample, StackId, ThreadId, ThreadInfo,
};
use profiler_python::{GilAddresses, RawStack};

use crate::Target;
use crate::code_names::CodeNames;
use crate::codes::Capture;
use crate::instant::Instant;
use crate::names::ThreadNames;
use crate::probe::{GilGroup, Probe};
use crate::roster::{KnownStack, Thread};
use crate::schedule::Schedule;

/// The callback of [`Session::run`] is called at least this often.
const CALLBACK_GAP: Nanos = Nanos::from_nanos(50_000_000);

/// While a target has no Python (it is being replaced by `exec`), it is looked for this often at first,
/// and ever less often.
const FIRST_ATTACH_GAP: Nanos = Nanos::from_nanos(5_000_000);
const LONGEST_ATTACH_GAP: Nanos = Nanos::from_nanos(500_000_000);

/// A way of taking samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SamplerKind {
    /// Stops one thread for a moment.
    #[default]
    Pause,
    /// Stops nothing, and keeps what it can prove.
    Peek,
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
}

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Time since it began.
    pub elapsed: Nanos,
    /// Samples shown.
    pub samples: u64,
    /// Samples lost.
    pub lost: u64,
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
}

/// Samples one target.
#[derive(Debug)]
pub struct Session {
    probe: Probe,
    options: SamplerOptions,
    code_names: CodeNames<FrameId>,
    names: ThreadNames,
    process: Option<ProcessId>,
    /// Set while the target has no Python: when to look for one again, and the gap after that.
    without_runtime: Option<(Timestamp, Nanos)>,
    /// Whether the target turned out to have ended.
    ended: bool,
}

impl Session {
    /// A session of `target` that has not begun.
    pub fn new(target: Target, options: SamplerOptions) -> Self {
        Session {
            code_names: CodeNames::new(*target.process()),
            probe: Probe::new(target, options.kind),
            options,
            names: ThreadNames::default(),
            process: None,
            without_runtime: None,
            ended: false,
        }
    }

    /// Samples until `limit` is over, `callback` breaks or the target ends. The callback is called about
    /// twenty times a second, while nothing is stopped; everything lost and what the session cost is in the
    /// profile's ledger by then.
    pub fn run(
        &mut self,
        profile: &mut Profile,
        limit: Option<Nanos>,
        callback: &mut dyn FnMut(&Progress, &mut Profile) -> ControlFlow<()>,
    ) -> End {
        match self.options.kind {
            // It must not lose its CPU while a thread is stopped.
            SamplerKind::Pause => {
                priority::want_promptness();
            }
            SamplerKind::Peek => clock::want_exact_wakeups(),
        }
        let mut costs = Costs::from_now(&self.probe.target);
        let start = costs.start;
        let mut schedule = Schedule::new(self.options.rate_hz, start, start.as_nanos());
        profile.ledger_mut().interval = Some(schedule.mean_gap());
        let deadline = limit.map_or(Timestamp::MAX, |limit| start + limit);
        let mut next_callback = start;
        let end = loop {
            let now = clock::now();
            if now >= deadline {
                break End::TimeOver;
            }
            if now >= next_callback {
                next_callback = now + CALLBACK_GAP;
                costs.look(&self.probe.target);
                costs.settle(profile.ledger_mut());
                self.probe.release_late();
                if callback(&progress(profile, start, now), profile).is_break() {
                    break End::Asked;
                }
            }
            if now < schedule.next() {
                clock::sleep_until(schedule.next().min(next_callback).min(deadline));
                continue;
            }
            self.sample(profile, now);
            if self.ended {
                break End::TargetEnded;
            }
            let late = schedule.go_on(clock::now());
            profile.ledger_mut().count_lost_times(LossReason::Late, late);
        };
        self.probe.release_all();
        costs.look(&self.probe.target);
        costs.settle(profile.ledger_mut());
        end
    }

    /// Takes one sample of every thread that is wanted.
    fn sample(&mut self, profile: &mut Profile, now: Timestamp) {
        if self.without_runtime.is_some() {
            profile.ledger_mut().count_lost(LossReason::NoRuntime);
            self.look_for_runtime(now);
            return;
        }
        let result = self.probe.look(now).and_then(|()| self.sample_threads(profile, now));
        match result {
            Ok(()) => self.names.update(&self.probe.target, &self.probe.roster, profile, now),
            Err(error) => self.runtime_is_gone(profile, error, now),
        }
    }

    fn sample_threads(&mut self, profile: &mut Profile, now: Timestamp) -> Result<(), ReadError> {
        let suspended = self.probe.suspended()?;
        for group in GilGroup::all(&self.probe.roster) {
            let mut wanted = Vec::new();
            for index in group.threads {
                let thread = &self.probe.roster.threads[index];
                if suspended.contains(&index) {
                    self.not_asked_for(profile, index, now);
                } else if thread.is_running()
                    || (self.options.include_idle && thread.unchanged_stack().is_none())
                {
                    wanted.push(index);
                } else {
                    self.settle_asleep(profile, index, group.gil.as_ref(), now);
                }
            }
            if let (true, Some(gil)) = (self.options.gil_only, group.gil.as_ref()) {
                self.keep_holder(profile, gil, &mut wanted, now);
            }
            if wanted.is_empty() {
                profile.ledger_mut().count_without_stop();
                continue;
            }
            for instant in self.probe.capture(group.gil.as_ref(), &wanted)? {
                self.settle(profile, instant, group.gil.as_ref(), now);
            }
        }
        Ok(())
    }

    /// Of the threads `wanted`, keeps the one that may hold the GIL: no other will be shown.
    fn keep_holder(
        &mut self,
        profile: &mut Profile,
        gil: &GilAddresses,
        wanted: &mut Vec<usize>,
        now: Timestamp,
    ) {
        let state = self.probe.roster.gil_state(gil).filter(|state| state.exists);
        if let Some(state) = state {
            let holder = self.probe.roster.find(state.last_holder);
            let others: Vec<usize> = wanted.extract_if(.., |index| Some(*index) != holder).collect();
            others.into_iter().for_each(|index| self.not_asked_for(profile, index, now));
        }
    }

    /// Records what is known without reading anything: the thread sleeps, as it did before.
    fn settle_asleep(
        &mut self,
        profile: &mut Profile,
        index: usize,
        gil: Option<&GilAddresses>,
        now: Timestamp,
    ) {
        let known = self.probe.roster.threads[index].unchanged_stack();
        match known {
            Some(known) if self.options.include_idle && !self.options.gil_only => {
                let state = self.probe.roster.threads[index].state(gil);
                self.record(profile, index, known.stack, state, false, now);
            }
            _ => self.not_asked_for(profile, index, now),
        }
    }

    /// Resolves and records what was captured; counts what was lost.
    fn settle(
        &mut self,
        profile: &mut Profile,
        instant: Instant,
        gil: Option<&GilAddresses>,
        now: Timestamp,
    ) {
        let ledger = profile.ledger_mut();
        instant.stops.iter().for_each(|stop| ledger.count_stop(*stop));
        if instant.stops.is_empty() {
            ledger.count_without_stop();
        }
        let holder = instant.holder;
        for (index, stack) in instant.stacks {
            let holds_gil = holder == Some(self.probe.roster.threads[index].python.address);
            let resolved = match stack {
                Ok(_) if self.options.gil_only && !holds_gil => {
                    self.not_asked_for(profile, index, now);
                    continue;
                }
                Ok(raw) => self.resolve(profile, &raw, &instant.capture),
                Err(reason) => Err(reason),
            };
            match resolved {
                Ok(stack) => {
                    let state = self.keep_stack(index, stack, gil);
                    self.record(profile, index, stack, state, holds_gil, now);
                }
                Err(reason) => {
                    profile.ledger_mut().count_lost(reason);
                    self.check_after_loss(reason);
                }
            }
        }
    }

    /// Remembers a proved stack for as long as its thread sleeps; returns the thread's state.
    fn keep_stack(
        &mut self,
        index: usize,
        stack: Option<StackId>,
        gil: Option<&GilAddresses>,
    ) -> ThreadState {
        let thread = &mut self.probe.roster.threads[index];
        if thread.is_running() {
            // It goes on running, and may fall asleep elsewhere without being put on a CPU again.
            thread.known = None;
            if let Ok(schedule) = thread.files.schedule() {
                // Exact, if a stop has just taken the thread off its CPU.
                thread.schedule = schedule;
            }
        } else {
            thread.known = Some(KnownStack { stack, times_run: thread.schedule.times_run });
        }
        thread.state(gil)
    }

    fn resolve(
        &mut self,
        profile: &mut Profile,
        raw: &RawStack,
        capture: &Capture,
    ) -> Result<Option<StackId>, LossReason> {
        let named =
            self.code_names.root_first(&self.probe.target, capture, raw, &mut |frame| profile.frame(frame));
        self.probe.learn_code(capture, raw, named.is_ok());
        let ids = named?;
        let mark = raw.truncated.then(|| profile.frame(&truncation_mark()));
        Ok(profile.stack(mark.into_iter().chain(ids)))
    }

    fn record(
        &mut self,
        profile: &mut Profile,
        index: usize,
        stack: Option<StackId>,
        state: ThreadState,
        holds_gil: bool,
        at: Timestamp,
    ) {
        if stack.is_none() {
            // A thread that has a thread state but runs no Python: there is nothing to show.
            self.not_asked_for(profile, index, at);
            return;
        }
        let thread = self.thread_id(profile, index);
        let known = &mut self.probe.roster.threads[index];
        let cpu = known.schedule.cpu.saturating_sub(known.counted_cpu);
        let wall = at.since(known.counted_until);
        known.counted_cpu = known.schedule.cpu;
        known.counted_until = at;
        profile.record(Sample { at, thread, stack, state, holds_gil, cpu, wall });
    }

    fn not_asked_for(&mut self, profile: &mut Profile, index: usize, at: Timestamp) {
        self.probe.roster.threads[index].counted_until = at;
        profile.ledger_mut().count_not_asked_for();
    }

    fn thread_id(&mut self, profile: &mut Profile, index: usize) -> ThreadId {
        if let Some(id) = self.probe.roster.threads[index].id {
            return id;
        }
        let process = *self.process.get_or_insert_with(|| profile.process(process_info(&self.probe.target)));
        let thread = &mut self.probe.roster.threads[index];
        let id = profile.thread(thread_info(&self.probe.target, thread, process));
        thread.id = Some(id);
        id
    }

    /// After a loss that can mean that the process is another one by now.
    fn check_after_loss(&mut self, reason: LossReason) {
        if matches!(reason, LossReason::ProcessEnded | LossReason::ThreadEnded) {
            // Or `exec` put another Python exactly where the old one was.
            self.probe.roster.distrust();
            self.ended = !self.probe.target.process().is_alive();
        }
    }

    /// The runtime could not be read: the process has ended, or `exec` has replaced it.
    fn runtime_is_gone(&mut self, profile: &mut Profile, error: ReadError, now: Timestamp) {
        if error == ReadError::ProcessEnded {
            // It has no memory any more: `exec` leaves no process without, not for a moment.
            self.ended = true;
            return;
        }
        profile.ledger_mut().count_lost(LossReason::NoRuntime);
        self.without_runtime = Some((now, FIRST_ATTACH_GAP));
        self.look_for_runtime(now);
    }

    fn look_for_runtime(&mut self, now: Timestamp) {
        let Some((when, gap)) = self.without_runtime else { return };
        if now < when {
            return;
        }
        let longer = Nanos::from_nanos((gap.as_nanos() * 2).min(LONGEST_ATTACH_GAP.as_nanos()));
        self.without_runtime = Some((now + gap, longer));
        if !self.probe.target.process().is_alive() {
            self.ended = true;
        } else if let Ok(target) = Target::attach(self.probe.target.pid()) {
            *self = Session::new(target, self.options);
        }
    }
}

/// What the session and its target have used, by their clocks.
struct Costs {
    start: Timestamp,
    own_before: Nanos,
    target_before: Nanos,
    target_last: Nanos,
}

impl Costs {
    fn from_now(target: &Target) -> Self {
        let target_before = target.process().cpu_time().unwrap_or_default();
        let own_before = clock::own_cpu_time();
        Costs { start: clock::now(), own_before, target_before, target_last: target_before }
    }

    /// Notes the target's clock while there is one.
    fn look(&mut self, target: &Target) {
        self.target_last = target.process().cpu_time().unwrap_or(self.target_last).max(self.target_last);
    }

    fn settle(&self, ledger: &mut Ledger) {
        ledger.period = Some((self.start, clock::now()));
        ledger.own_cpu = clock::own_cpu_time().saturating_sub(self.own_before);
        ledger.own_memory = clock::own_peak_memory();
        ledger.target_cpu = self.target_last.saturating_sub(self.target_before);
    }
}

fn progress(profile: &Profile, start: Timestamp, now: Timestamp) -> Progress {
    Progress { elapsed: now.since(start), samples: profile.ledger().shown(), lost: profile.ledger().lost() }
}

fn process_info(target: &Target) -> ProcessInfo {
    ProcessInfo {
        pid: target.pid(),
        parent: None,
        command_line: target.command_line().to_owned(),
        python_version: Some(target.version_text()),
        executable: target.executable().to_owned(),
    }
}

fn thread_info(target: &Target, thread: &Thread, process: ProcessId) -> ThreadInfo {
    ThreadInfo {
        key: ThreadKey { pid: target.pid(), tid: thread.tid },
        process,
        pthread_id: Some(thread.python.pthread_id),
        name: None,
        is_main: thread.tid.as_u32() == target.pid().as_u32(),
    }
}

/// Stands at the root of a stack whose outermost frames were left out.
fn truncation_mark() -> Frame {
    Frame { kind: FrameKind::Marker, function: "<truncated>".into(), ..Frame::default() }
}
