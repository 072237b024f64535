//! The accounts of instants: for each instant that was due in the life of a Python there is one event. This decides and counts
//! only: what the clocks say comes in as arguments.

use profiler_model::{LossReason, Nanos, Pid, Timestamp};
use profiler_profile::{MetricValue, Renaming};

use super::census::Census;
use super::due_instants::DueInstants;
use super::host::{ProcessHost, RuntimeOf};
use super::member::{Life, MemberState, TrackedProcess};
use super::passed_instants::{GonePython, LeftOut, PassedInstants};
use super::pending::PendingAttach;
use super::table::ProcessTable;
use crate::event_writer::EventWriter;

/// What the clocks say of a process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessClocks {
    /// The time.
    pub now: Timestamp,
    /// The CPU time that the process has used, if it is still there.
    pub cpu: Option<Nanos>,
    /// The period of the in-kernel program's ticks, if these are the instants, and not those of a schedule.
    pub period: Option<Nanos>,
}

/// The processes of a session with the instants that count for them.
#[derive(Debug)]
pub struct InstantAccounts<H: ProcessHost> {
    /// The processes.
    pub table: ProcessTable<H>,
    /// What became of them.
    pub census: Census,
    passed: PassedInstants,
    /// A process that was started to be sampled with its descendants, and when.
    launched: Option<(Pid, Timestamp)>,
}

/// Why a process is not sampled any more.
#[derive(Clone, Copy, Debug)]
pub enum Departure {
    /// It has ended, or runs another program.
    Ended {
        /// Whether the instants are those of a schedule.
        is_scheduled: bool,
    },
    /// It is not to be sampled any more.
    Removed {
        /// Whether the instants are those of a schedule.
        is_scheduled: bool,
    },
}

impl Departure {
    /// Why the instants of a sampled process are lost that a late sampler has yet to come to.
    fn loss(self) -> LossReason {
        if self.is_removal() { LossReason::Late } else { LossReason::ProcessEnded }
    }

    fn is_removal(self) -> bool {
        matches!(self, Departure::Removed { .. })
    }

    fn is_scheduled(self) -> bool {
        let (Departure::Ended { is_scheduled } | Departure::Removed { is_scheduled }) = self;
        is_scheduled
    }
}

impl<H: ProcessHost> Default for InstantAccounts<H> {
    fn default() -> Self {
        InstantAccounts {
            table: ProcessTable::default(),
            census: Census::default(),
            passed: PassedInstants::default(),
            launched: None,
        }
    }
}

impl<H: ProcessHost> InstantAccounts<H> {
    /// Begins the recording with `root`, which was started at `began` to be sampled with its descendants, `instants` ago.
    pub fn began(&mut self, root: Pid, began: Timestamp, instants: u64) {
        self.launched = Some((root, began));
        let Some(member) = self.table.get_mut(root) else { return };
        member.life = Life::since(began);
        if let Some(pending) = member.pending() {
            pending.begin_at(began, instants);
        }
    }

    /// Adds a process that was born, or found at `now`, with the runtime that it has from its parent.
    pub fn add(
        &mut self,
        pid: Pid,
        mut member: TrackedProcess<H>,
        inherited: Option<RuntimeOf<H>>,
        now: Timestamp,
    ) {
        member.inherited = inherited;
        let is_launched = self.launched.is_some_and(|(root, _)| member.descends_from(pid, root));
        if let (None, true, Some(pending)) = (member.born, is_launched, member.pending()) {
            // It is a descendant of what was started to be sampled: all that it has done belongs to that.
            pending.count_all_cpu(now);
        }
        self.table.add(pid, member);
    }

    /// An instant has passed at which no process was looked at.
    pub fn leave_out(&mut self, events: &mut EventWriter<'_>, reason: LossReason, at: Timestamp) {
        self.passed.leave_out(LeftOut { at, reason });
        if self.passed.is_full() {
            self.count_left_out_until(events, at);
        }
    }

    /// Counts the instants up to `until` at which no process was looked at for the processes that lived then.
    pub fn count_left_out_until(&mut self, events: &mut EventWriter<'_>, until: Timestamp) {
        for LeftOut { at, reason } in self.passed.take_left_out(until) {
            self.table.count_left_out(at, &mut |scope| events.lose(reason, scope, at, 1));
            self.passed.count_gone(events, at);
        }
    }

    /// All processes that are there were looked at for these instants: counts them for those that are not there any more.
    pub fn count_gone(&mut self, events: &mut EventWriter<'_>, due: DueInstants) {
        self.passed.count_gone(events, due.last);
        self.passed.forget_gone(due.last);
    }

    /// Counts instants for a process without Python. A process that was added by itself loses its samples. Of a tree, only a process
    /// that turns out to be a Python does.
    pub fn count_pending(&mut self, events: &mut EventWriter<'_>, pid: Pid, due: DueInstants) {
        let Some(member) = self.table.get_mut(pid) else { return };
        let (scope, life, needs_python) = (member.scope(), member.life, member.needs_python());
        let Some(pending) = member.pending() else { return };
        match needs_python && !pending.is_silent() {
            true => events.lose(pending.loss(), scope, due.last, due.later_than(life.since)),
            false => pending.count(due.last, due.later_than(life.program_since())),
        }
    }

    /// The sampler of a process that is to be sampled for these instants. The instant of a schedule, if a late sampler comes to
    /// it, may be one of the program that the process ran before: that is counted already.
    pub fn sampler_due(&mut self, pid: Pid, due: DueInstants) -> Option<&mut H::Sampler> {
        let member = self.table.get_mut(pid)?;
        let is_counted = due.is_scheduled() && member.life.is_before_program(due.last);
        member.sampler().filter(|_| !is_counted)
    }

    /// A process ran its program up to `end`, or is not sampled any more. If that was a Python, those instants of it are lost at
    /// which it was not looked at: the ones that have passed, and, on a schedule, the ones up to `end` that a late sampler has yet
    /// to come to.
    pub fn owe_instants_until(
        &mut self,
        events: &mut EventWriter<'_>,
        pid: Pid,
        end: Timestamp,
        departure: Departure,
    ) {
        let Some(member) = self.table.get_mut(pid) else { return };
        let (scope, is_inherited) = (member.scope(), member.inherited.is_some());
        let owes_rest = departure.is_removal() && (is_inherited || member.needs_python());
        let (left_out_since, since) = (member.left_out_since(), member.life.program_since());
        let (reason, since) = match &mut member.state {
            MemberState::Sampled(_) => (departure.loss(), left_out_since),
            MemberState::Pending(pending) if pending.is_silent() => (LossReason::NoAnswer, since),
            // What passed so far is counted with the rest.
            MemberState::Pending(_) if owes_rest => (LossReason::Late, since),
            MemberState::Pending(pending) if is_inherited => {
                events.lose(LossReason::ShortLived, scope, end, pending.take_instants());
                (LossReason::ShortLived, since)
            }
            MemberState::Pending(_) => return,
        };
        if departure.is_scheduled() {
            self.passed.keep_gone(GonePython { scope, reason, since, until: end });
        }
    }

    /// Counts what a process, whose Python was found just now, did before.
    pub fn count_missed(&mut self, events: &mut EventWriter<'_>, pid: Pid, clocks: ProcessClocks) {
        let is_first = !self.census.was_any_sampled() && !self.table.was_any_sampled();
        let began = self.launched.filter(|(root, _)| pid == *root && is_first).map(|(_, began)| began);
        let Some(member) = self.table.get_mut(pid) else { return };
        let (scope, owes_all, needs_python) =
            (member.scope(), member.owes_all_instants(), member.needs_python());
        let MemberState::Pending(pending) = &member.state else { return };
        let since = pending.without_python();
        let python_since = if owes_all { member.life.program_since() } else { since };
        member.life.python_since.get_or_insert(python_since);
        if needs_python {
            return;
        }
        let (without, unseen) = pending.missed(clocks.period, clocks.cpu);
        match began {
            Some(began) => events.metric(clocks.now, MetricValue::BeforePython(since.since(began))),
            None if owes_all => events.lose(LossReason::NoRuntime, scope, clocks.now, without),
            None => {}
        }
        events.lose(LossReason::Late, scope, clocks.now, unseen);
    }

    /// Counts what is lost of a process whose memory does not answer, since the last time.
    pub fn count_unanswered(&mut self, events: &mut EventWriter<'_>, pid: Pid, clocks: ProcessClocks) {
        let Some(member) = self.table.get_mut(pid) else { return };
        let scope = member.scope();
        if let Some(pending) = member.pending().filter(|pending| pending.is_silent()) {
            let lost = pending.take_unanswered(clocks.now, clocks.period, clocks.cpu);
            events.lose(LossReason::NoAnswer, scope, clocks.now, lost);
        }
    }

    /// Counts what is lost of a process that is still there at the end of the session. If it is a fork of a Python, it is one.
    pub fn count_rest(&mut self, events: &mut EventWriter<'_>, pid: Pid, clocks: ProcessClocks) {
        let Some(member) = self.table.get_mut(pid).filter(|member| member.inherited.is_some()) else {
            return;
        };
        let scope = member.scope();
        if let Some(pending) = member.pending().filter(|pending| !pending.is_silent()) {
            let reason = if pending.why.is_some() { pending.loss() } else { LossReason::Late };
            let (without, unseen) = pending.missed(clocks.period, clocks.cpu);
            events.lose(reason, scope, clocks.now, without + unseen);
        }
    }

    /// Reports what the processes that are sampled have used, and what became of all.
    pub fn report(&mut self, events: &mut EventWriter<'_>, now: Timestamp) {
        self.census.report(&mut self.table, events, now);
    }

    /// Reports what became of the processes.
    pub fn report_counts(&mut self, events: &mut EventWriter<'_>, now: Timestamp) {
        self.census.report_counts(&self.table, events, now);
    }

    /// Whatever was known of the Python of a process is void: its search begins anew. Returns its sampler, if it had one.
    pub fn search_again(&mut self, pid: Pid, pending: PendingAttach<H::Search>) -> Option<Box<H::Sampler>> {
        let member = self.table.get_mut(pid)?;
        member.inherited = None;
        if pending.is_new_program {
            (member.life.executed, member.life.python_since) = (Some(pending.since), None);
        }
        match std::mem::replace(&mut member.state, MemberState::Pending(pending)) {
            MemberState::Sampled(sampler) => Some(sampler),
            MemberState::Pending(_) => None,
        }
    }

    /// Gives what is kept its ids in the next dictionary.
    pub fn rename(&mut self, renaming: &mut Renaming<'_>) {
        self.table.rename(renaming);
        self.passed.rename(renaming);
    }
}
