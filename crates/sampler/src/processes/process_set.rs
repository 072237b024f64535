//! Follows the processes of a session from their births to their ends, and looks at all of them at each instant. What became of
//! an instant is counted by the accounts.

use profiler_model::{LossReason, Nanos, Pid, Timestamp};
use profiler_profile::{ProcessInfo, Renaming};
use profiler_target::{AttachError, Change};

use super::accounts::{Departure, InstantAccounts, ProcessClocks};
use super::due_instants::DueInstants;
use super::host::{ProcessHost, ProcessSampling, RuntimeOf};
use super::member::{MemberState, Origin, TrackedProcess};
use super::pending::PendingAttach;
use super::table::ProcessTable;
use crate::event_writer::EventWriter;
use crate::process_sampler::Sampled;

/// The time that may go into finding Pythons of new processes at one instant: samples of other processes wait meanwhile.
const MAX_ATTACH_TIME: Nanos = Nanos::from_nanos(3_000_000);
/// The same if the in-kernel program samples the others: only the caller waits.
const MAX_ATTACH_TIME_BESIDE_PROGRAM: Nanos = Nanos::from_nanos(50_000_000);

/// A process that is younger than this may still become a Python: a tree whose other processes have ended waits for it.
const TIME_TO_COME_UP: Nanos = Nanos::from_nanos(2_000_000_000);

/// The processes of a session.
#[derive(Debug)]
pub struct ProcessSet<H: ProcessHost> {
    host: H,
    accounts: InstantAccounts<H>,
    /// The part of the instants that are sampled: less than 1 if sampling all of them takes too much CPU time.
    part_sampled: f64,
}

impl<H: ProcessHost> ProcessSet<H> {
    /// No processes, on `host`.
    pub fn new(host: H) -> Self {
        ProcessSet { host, accounts: InstantAccounts::default(), part_sampled: 1.0 }
    }

    /// Adds a process with its runtime, if that is known, and its descendants if `with_descendants`. A process that is there already
    /// is left as it is.
    pub fn add_root(&mut self, root: Pid, runtime: Option<RuntimeOf<H>>, with_descendants: bool) {
        if self.table().get(root).is_some() {
            return;
        }
        if with_descendants {
            self.host.follow_descendants(root);
        }
        let cpu = self.host.cpu_time(root).unwrap_or_default();
        let origin = Origin::Added { with_descendants };
        let mut member = TrackedProcess::new(self.host.search(root), origin, self.host.now(), cpu);
        member.inherited = runtime;
        self.accounts.table.add(root, member);
    }

    /// The system.
    pub fn host(&self) -> &H {
        &self.host
    }

    /// The system and the table of processes.
    pub fn parts(&mut self) -> (&mut H, &mut ProcessTable<H>) {
        (&mut self.host, &mut self.accounts.table)
    }

    /// The samplers of those that are sampled.
    pub fn samplers(&mut self) -> impl Iterator<Item = &mut H::Sampler> {
        self.accounts.table.samplers()
    }

    /// How many processes are sampled.
    pub fn sampled(&self) -> usize {
        self.accounts.table.sampled()
    }

    /// Whether there is one process, whose descendants are not followed.
    pub fn is_single(&self) -> bool {
        !self.host.is_tree() && self.table().len() == 1
    }

    /// When a process that has no Python yet is looked at next.
    pub fn next_attempt(&self) -> Timestamp {
        self.accounts.table.next_attempt()
    }

    /// A process that is still there, but whose memory does not answer.
    pub fn silent(&self) -> Option<Pid> {
        self.accounts.table.silent()
    }

    /// Whether nothing is left to sample: all processes that were added have ended or do not answer, and so it is with all of their
    /// descendants that are Pythons or may become one.
    pub fn are_gone(&self, now: Timestamp) -> bool {
        self.table().members().all(|member| match &member.state {
            MemberState::Sampled(_) => false,
            MemberState::Pending(pending) => {
                let may_come_up = member.was_added() || now.since(pending.since) <= TIME_TO_COME_UP;
                pending.is_silent() || !may_come_up
            }
        })
    }

    /// Begins the recording with `root`, which was started at `began` to be sampled, `instants` ago.
    pub fn began(&mut self, root: Pid, began: Timestamp, instants: u64) {
        self.accounts.began(root, began, instants);
    }

    /// Has nothing count as missed that a process without Python did before `now`.
    pub fn miss_from(&mut self, now: Timestamp) {
        for (pid, member) in self.accounts.table.members_mut() {
            if let Some(pending) = member.pending() {
                pending.leave_out(now, self.host.cpu_time(pid));
            }
        }
    }

    /// Has the next samples stand for nothing that was before `now`.
    pub fn count_from(&mut self, now: Timestamp) {
        self.samplers().for_each(|sampler| sampler.count_from(now));
        self.miss_from(now);
    }

    /// Has this part of the instants be sampled from now on.
    pub fn sample_part(&mut self, part: f64) {
        self.part_sampled = part;
        self.samplers().for_each(|sampler| sampler.sample_part(part));
    }

    /// Changes the sample rate, in samples per second.
    pub fn set_rate(&mut self, rate_hz: f64) {
        let period = self.host.tick_period();
        for (pid, member) in self.accounts.table.members_mut() {
            match &mut member.state {
                MemberState::Sampled(sampler) => sampler.set_rate(rate_hz, self.part_sampled),
                MemberState::Pending(pending) => {
                    if let Some(period) = period {
                        pending.change_period(period, self.host.cpu_time(pid));
                    }
                }
            }
        }
    }

    /// Stops sampling a process that was added, and its descendants. On a schedule, those instants up to now are lost that were not
    /// sampled yet.
    pub fn remove_root(&mut self, events: &mut EventWriter<'_>, root: Pid) {
        let (now, is_scheduled) = (self.host.now(), self.host.tick_period().is_none());

        self.follow_tree(events, now);
        for pid in self.accounts.table.descended_from(root) {
            self.count_unanswered(events, pid, now);
            self.accounts.owe_instants_until(events, pid, now, Departure::Removed { is_scheduled });
            let clocks = self.clocks_of(pid, now);
            self.accounts.count_rest(events, pid, clocks);
            if let Some(sampler) = self.accounts.table.get_mut(pid).and_then(TrackedProcess::sampler) {
                sampler.resolve_pending(events);
                sampler.name_last_threads(events);
            }
            self.give_up(events, pid, now);
            self.host.leave(pid);
        }
    }

    /// Records what was captured and has waited for its names.
    pub fn resolve_pending(&mut self, events: &mut EventWriter<'_>) {
        self.samplers().for_each(|sampler| sampler.resolve_pending(events));
    }

    /// Gives what is kept its ids in the next dictionary. It follows a cut.
    pub fn rename(&mut self, renaming: &mut Renaming<'_>) {
        self.accounts.rename(renaming);
    }

    /// Lets go of threads that stopped only after they had been given up.
    pub fn release_late(&mut self) {
        self.samplers().for_each(ProcessSampling::release_late);
        self.host.release_late();
    }

    /// Ends sampling; all that is known is up to `end`.
    pub fn release_all(&mut self, events: &mut EventWriter<'_>, end: Timestamp) {
        self.release_late();
        self.accounts.count_left_out_until(events, Timestamp::MAX);
        self.resolve_pending(events);
        self.samplers().for_each(|sampler| sampler.name_last_threads(events));
        for pid in self.accounts.table.pids() {
            self.count_unanswered(events, pid, end);
            let clocks = self.clocks_of(pid, end);
            self.accounts.count_rest(events, pid, clocks);
        }
        // All that the in-kernel program was told goes with it.
        self.host.stop();
        for mut member in self.accounts.table.take_all() {
            member.report_native(events);
            self.accounts.census.add_gone(&member);
            if let MemberState::Sampled(sampler) = member.state {
                self.accounts.census.add_cpu_of_gone(self.host.give_up(*sampler, events, end));
            }
        }
        self.host.release_all();
    }

    /// Reports what the processes that are sampled have used, and what became of all.
    pub fn report(&mut self, events: &mut EventWriter<'_>, now: Timestamp) {
        self.accounts.report(events, now);
        self.report_counts(events, now);
    }

    /// Reports what became of the processes, if there may be several.
    pub fn report_counts(&mut self, events: &mut EventWriter<'_>, now: Timestamp) {
        if self.host.is_tree() {
            self.accounts.report_counts(events, now);
        }
    }

    /// An instant has passed at which no process was looked at.
    pub fn leave_out(&mut self, events: &mut EventWriter<'_>, reason: LossReason, at: Timestamp) {
        self.accounts.leave_out(events, reason, at);
    }

    /// Learns which processes were born, run another program or have ended.
    pub fn follow_tree(&mut self, events: &mut EventWriter<'_>, now: Timestamp) {
        for change in self.host.changes(now) {
            match change {
                Change::Born { pid, root, parent, at } => {
                    self.accounts.count_left_out_until(events, at.unwrap_or(now));
                    self.add(pid, (root, parent), at, now);
                }
                Change::Executed { pid, at } => {
                    self.accounts.count_left_out_until(events, at);
                    self.owe_instants_until(events, pid, at, now);
                    self.search_again(events, pid, at, true, now);
                }
                Change::Ended { pid, at } => {
                    self.accounts.count_left_out_until(events, at);
                    self.owe_instants_until(events, pid, at, now);
                    self.remove(events, pid, now);
                }
            }
        }
        self.accounts.count_left_out_until(events, now);
    }

    fn add(&mut self, pid: Pid, (root, parent): (Pid, Pid), born: Option<Timestamp>, now: Timestamp) {
        if self.table().get(pid).is_some_and(TrackedProcess::was_added) {
            return;
        }
        // What a process that was there before has done so far was not asked for.
        let cpu = if born.is_some() { None } else { self.host.cpu_time(pid) };
        let search = self.host.search(pid);
        let origin = Origin::Descendant { root, parent, born };
        let member = TrackedProcess::new(search, origin, now, cpu.unwrap_or_default());
        // A process that was found, and not reported, may run another program by now.
        let is_fork = born.is_some() && self.host.reports_changes();
        let parent = self.table().get(parent).filter(|_| is_fork);
        let inherited = parent.and_then(TrackedProcess::runtime);
        self.accounts.add(pid, member, inherited, now);
    }

    /// Whatever was known of the Python of a process is void since `since`.
    fn search_again(
        &mut self,
        events: &mut EventWriter<'_>,
        pid: Pid,
        since: Timestamp,
        is_new_program: bool,
        now: Timestamp,
    ) {
        let cpu = match self.table().get(pid).map(|member| &member.state) {
            Some(MemberState::Pending(before)) => before.cpu_without_python(),
            Some(MemberState::Sampled(_)) => self.host.cpu_time(pid).unwrap_or_default(),
            None => return,
        };
        self.accounts.table.get_mut(pid).into_iter().for_each(|member| member.report_native(events));
        let pending = PendingAttach::new(self.host.search(pid), since, cpu, is_new_program);
        if let Some(sampler) = self.accounts.search_again(pid, pending) {
            self.accounts.census.add_cpu_of_gone(self.host.give_up(*sampler, events, now));
        }
    }

    /// A process ran its program up to `end`: its instants that nobody looked at are lost.
    fn owe_instants_until(&mut self, events: &mut EventWriter<'_>, pid: Pid, end: Timestamp, now: Timestamp) {
        self.count_unanswered(events, pid, now);
        let is_scheduled = self.host.tick_period().is_none();
        self.accounts.owe_instants_until(events, pid, end, Departure::Ended { is_scheduled });
    }

    fn remove(&mut self, events: &mut EventWriter<'_>, pid: Pid, now: Timestamp) {
        self.give_up(events, pid, now);
        self.host.forget(pid);
    }

    fn give_up(&mut self, events: &mut EventWriter<'_>, pid: Pid, now: Timestamp) {
        self.host.collect_rest(pid, &mut self.accounts.table, events);
        self.count_unanswered(events, pid, now);
        let process = self.accounts.table.process_of_parent(&self.host, events, pid);
        let Some(mut member) = self.accounts.table.remove(pid, process) else { return };
        member.report_native(events);
        self.accounts.census.add_gone(&member);
        if let MemberState::Sampled(sampler) = member.state {
            self.accounts.census.add_cpu_of_gone(self.host.give_up(*sampler, events, now));
        }
    }

    /// Counts what is lost of a process since the last time, if its memory does not answer.
    fn count_unanswered(&mut self, events: &mut EventWriter<'_>, pid: Pid, now: Timestamp) {
        if self.table().get(pid).is_some_and(TrackedProcess::is_silent) {
            let clocks = self.clocks_of(pid, now);
            self.accounts.count_unanswered(events, pid, clocks);
        }
    }

    fn clocks_of(&self, pid: Pid, now: Timestamp) -> ProcessClocks {
        ProcessClocks { now, cpu: self.host.cpu_time(pid), period: self.host.tick_period() }
    }

    fn table(&self) -> &ProcessTable<H> {
        &self.accounts.table
    }

    /// Looks at every process for the instants that are due; the look began at `began`.
    pub fn look(&mut self, events: &mut EventWriter<'_>, due: DueInstants, began: Timestamp) {
        self.follow_tree(events, began);
        let longest = match self.host.tick_period() {
            Some(_) => MAX_ATTACH_TIME_BESIDE_PROGRAM,
            None => MAX_ATTACH_TIME,
        };
        let mut attaching = Nanos::ZERO;
        for pid in self.accounts.table.next_turn() {
            let now = self.host.now();
            if now > self.host.latest_look() {
                self.pass_over(events, pid, due);
                continue;
            }
            if self.accounts.table.get(pid).is_some_and(|member| !member.is_sampled()) {
                if attaching <= longest {
                    self.try_to_attach(events, pid, now, began);
                    attaching += self.host.now().since(now);
                }
                self.accounts.count_pending(events, pid, due);
            }
            self.sample_one(events, pid, due, began, now);
        }
        self.accounts.count_gone(events, due);
    }

    /// Counts what is lost of a process that there is no time to look at.
    fn pass_over(&mut self, events: &mut EventWriter<'_>, pid: Pid, due: DueInstants) {
        match self.accounts.sampler_due(pid, due) {
            Some(sampler) => self.host.pass_over(sampler, events, due.last),
            None => self.accounts.count_pending(events, pid, due),
        }
    }

    fn sample_one(
        &mut self,
        events: &mut EventWriter<'_>,
        pid: Pid,
        due: DueInstants,
        began: Timestamp,
        now: Timestamp,
    ) {
        let Some(sampler) = self.accounts.sampler_due(pid, due) else { return };
        let outcome = self.host.sample(sampler, events, now, began.since(due.last));
        self.accounts.table.note_sampled(pid);
        match outcome {
            Sampled::Going => {}
            Sampled::Ended => self.remove(events, pid, now),
            Sampled::Silent => {
                self.search_again(events, pid, now, false, now);
                self.had_none(events, pid, AttachError::NoAnswer(pid), now, None);
            }
            Sampled::WithoutRuntime => {
                self.search_again(events, pid, now, false, now);
                self.try_to_attach(events, pid, now, began);
            }
        }
    }

    /// Looks for the Python of a process that has none, if it is time to. All changes up to `known_until` are known.
    fn try_to_attach(
        &mut self,
        events: &mut EventWriter<'_>,
        pid: Pid,
        now: Timestamp,
        known_until: Timestamp,
    ) {
        let runtime = self.accounts.table.runtime_for(pid);
        let Some(member) = self.accounts.table.get_mut(pid) else { return };
        let MemberState::Pending(pending) = &mut member.state else { return };
        if now < pending.next() {
            return;
        }
        if pending.is_silent() {
            return self.count_unanswered(events, pid, now);
        }
        // Before the look: it may have one just after it.
        let cpu = self.host.cpu_time(pid);
        let inherited = runtime.and_then(|runtime| self.host.inherit(&runtime, pid));
        let found = match inherited {
            Some(target) => Ok(target),
            None => self.host.attach(&mut pending.search),
        };
        let found = found.map(|target| (self.host.describe_target(&target), target));
        match found {
            Ok((info, target)) if member.is_started_at(info.start_time) => {
                self.attached(events, pid, target, info);
            }
            Ok(_) | Err(AttachError::NoSuchProcess(_) | AttachError::ProcessEnded(_)) => {
                self.owe_instants_until(events, pid, known_until, now);
                self.remove(events, pid, now);
            }
            Err(error) => self.had_none(events, pid, error, now, cpu),
        }
    }

    /// Samples a process from now on whose Python was found.
    fn attached(&mut self, events: &mut EventWriter<'_>, pid: Pid, target: H::Target, info: ProcessInfo) {
        let parent = self.accounts.table.get(pid).and_then(|member| member.parent);
        let parent = parent.filter(|parent| self.accounts.table.get(*parent).is_some());
        let parent = parent.map(|parent| self.accounts.table.process_id(&self.host, events, parent));
        let Some(member) = self.accounts.table.get_mut(pid) else { return };
        let parent = parent.or(member.parent_process);
        let process = events.dictionary.process(ProcessInfo { parent, ..info });
        let born = member.born.take();
        member.process = Some(process);
        let clocks = self.clocks_of(pid, self.host.now());
        self.accounts.count_missed(events, pid, clocks);
        let mut sampler = self.host.begin(target, process, born, events);
        sampler.sample_part(self.part_sampled);
        if let Some(member) = self.accounts.table.get_mut(pid) {
            member.state = MemberState::Sampled(Box::new(sampler));
        }
    }

    /// A process was looked at, at `now` and with so much CPU time, and had no Python.
    fn had_none(
        &mut self,
        events: &mut EventWriter<'_>,
        pid: Pid,
        why: AttachError,
        now: Timestamp,
        cpu: Option<Nanos>,
    ) {
        let (after, is_exec_reported) = (self.host.now(), self.host.reports_changes());
        let Some(member) = self.accounts.table.get_mut(pid) else { return };
        let (scope, is_inherited) = (member.scope(), member.inherited.is_some());
        let Some(pending) = member.pending() else { return };
        let has_none = matches!(why, AttachError::NotPython { .. });
        pending.had_none(why, now, cpu, after, is_exec_reported);
        if pending.is_silent() && is_inherited {
            events.lose(LossReason::NoAnswer, scope, now, pending.take_instants());
        }
        if has_none {
            self.host.watch_without_python(pid);
        }
    }
}
