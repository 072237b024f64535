//! The processes of a session: which are sampled, which have no Python (yet), and what became of each.
//!
//! A process whose Python is not up is tried again, at once after an `exec` and else ever less often. A child
//! of a sampled process shares all addresses with it until it runs another program, so its Python need not be
//! found again, only proved.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use profiler_account::{Schedule, Tick, UnattachedTime, ticks};
use profiler_bpf::{Record, RingLoss};
use profiler_model::{LossReason, Nanos, OtherPython, Pid, Timestamp};
use profiler_os::{Process, clock, readiness};
use profiler_profile::{Loss, MarkKind, MetricValue, ProcessCounts, ProcessId, ProcessInfo, Renaming, Scope};
use profiler_target::{AttachError, Change, ForkedRuntime, Search, Target, Tree};

use crate::SamplerOptions;
use crate::bpf::{BpfProgram, RingLosses};
use crate::event_writer::EventWriter;
use crate::pause::Runners;
use crate::probe::Probe;
use crate::process_sampler::{ProcessSampler, Sampled};

/// While a process has no Python, it is looked for after this time at first, and ever less often.
const FIRST_ATTACH_GAP: Nanos = Nanos::from_nanos(5_000_000);
/// The longest gap where each `exec` is told: only an interpreter that starts late in a running program is
/// still to be noticed.
const LONGEST_TOLD_GAP: Nanos = Nanos::from_nanos(8_000_000_000);
/// The longest gap elsewhere.
const LONGEST_GAP: Nanos = Nanos::from_nanos(500_000_000);

/// So much of one instant may go into finding the Pythons of new processes: the samples of the others wait
/// meanwhile.
const MAX_ATTACH_TIME: Nanos = Nanos::from_nanos(3_000_000);
/// Where the in-kernel program samples the others meanwhile, only the caller waits, to be told how far it is.
const MAX_ATTACH_TIME_BESIDE_PROGRAM: Nanos = Nanos::from_nanos(50_000_000);

/// A process that is younger than this may still become a Python: a tree whose other processes have ended waits
/// for it.
const TIME_TO_COME_UP: Nanos = Nanos::from_nanos(2_000_000_000);

/// Births anywhere on the machine wake us; this bounds how often.
const SHORTEST_WAIT_OF_TREES: Nanos = Nanos::from_nanos(1_000_000);
/// Where no births are told, they are looked for this often.
const WAIT_OF_UNTOLD_TREES: Nanos = Nanos::from_nanos(10_000_000);

/// So many instants that were left out are kept for those of whom it is not known yet that they lived then: a minute of
/// a thousand a second. A sampler that is later than that says so of all others.
const MAX_LEFT_OUT: usize = 60_000;

/// The processes of a session.
#[derive(Debug)]
pub struct ProcessSet {
    options: SamplerOptions,
    root: Pid,
    /// The tree, where children are followed.
    tree: Option<Tree>,
    process_set: HashMap<Pid, TrackedProcess>,
    /// In the order in which they are sampled, the first one being another one at each instant.
    order: Vec<Pid>,
    turn: usize,
    /// What became of those that are gone.
    counts: ProcessCounts,
    /// CPU time of those that are gone.
    cpu_of_gone: Nanos,
    /// With threads that were asked to stop and have not yet.
    leaving: Vec<Probe>,
    /// Whether it matters which CPU a thread has.
    watches_turns: bool,
    /// The in-kernel program, where it takes the samples.
    kernel: Option<BpfProgram>,
    /// When what it sent was read last.
    last_read: Timestamp,
    /// After this instant nothing is looked at any more; what was sampled is lost.
    latest_look: Timestamp,
    /// When sampling ended, once it has.
    end: Option<Timestamp>,
    /// The part of the instants that are sampled: fewer where sampling all of them takes too much CPU time.
    part_sampled: f64,
    /// When the root was started, if that was to sample it and its tree.
    began: Option<Timestamp>,
    reported: Reported,
    /// Since when those may have had their Pythons that were found at the last instant.
    newcomers: Vec<Timestamp>,
    /// The instants that were left out since the tree was followed last: who was born meanwhile lived at some of them.
    left_out: Vec<Timestamp>,
}

/// What was reported already.
#[derive(Debug, Default)]
struct Reported {
    /// The CPU time of the targets.
    cpu: Nanos,
    counts: Option<ProcessCounts>,
    other_pythons: BTreeSet<OtherPython>,
}

/// A process.
#[derive(Debug)]
struct TrackedProcess {
    parent: Option<Pid>,
    /// The parent in the profile, once the parent is gone.
    parent_process: Option<ProcessId>,
    /// The process in the profile, once it is there.
    process: Option<ProcessId>,
    /// When it was born, if that was while it was watched and it has not been sampled yet.
    born: Option<Timestamp>,
    /// When it was started, in the kernel's ticks: what tells it from a later one of the same number.
    start_time: Option<u64>,
    /// What it has from the process that forked it.
    forked_runtime: Option<ForkedRuntime>,
    was_sampled: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Sampled(Box<ProcessSampler>),
    Pending(PendingAttach),
}

/// A process that has no Python (yet).
#[derive(Debug)]
struct PendingAttach {
    /// The search for its Python.
    search: Search,
    /// Since when.
    since: Timestamp,
    /// When its Python is looked for next, and the gap after that.
    next: Timestamp,
    gap: Nanos,
    /// Why there was none at the last look.
    why: Option<AttachError>,
    /// What passed meanwhile.
    missed: UnattachedTime,
    /// Whether it is known that it began to run this program at `since`.
    is_new_program: bool,
}

impl PendingAttach {
    /// Whether the memory of the process did not answer, so that it was dropped.
    fn is_silent(&self) -> bool {
        matches!(self.why, Some(AttachError::NoAnswer(_)))
    }

    fn from(pid: Pid, since: Timestamp, cpu: Nanos, is_new_program: bool) -> Self {
        PendingAttach {
            search: Search::new(pid),
            since,
            next: since,
            gap: FIRST_ATTACH_GAP,
            why: None,
            missed: UnattachedTime::since(since, cpu),
            is_new_program,
        }
    }

    /// Why samples of it are lost.
    fn loss(&self) -> LossReason {
        match self.why {
            Some(AttachError::Unreadable { .. }) => LossReason::ListsUnreadable,
            _ => LossReason::NoRuntime,
        }
    }

    /// Counts those of the instants that it lived at.
    fn count_since(&mut self, instants: &[Timestamp]) {
        instants.iter().filter(|instant| **instant > self.since).for_each(|at| self.missed.count(*at, 1));
    }

    /// It was looked at, at `now` and with so much CPU time, and had no Python.
    fn had_none(&mut self, why: AttachError, now: Timestamp, cpu: Option<Nanos>, longest: Nanos) {
        self.missed.had_none(now, cpu);
        self.why = Some(why);
        self.next = clock::now() + self.gap;
        self.gap = Nanos::from_nanos((self.gap.as_nanos() * 2).min(longest.as_nanos()));
    }
}

impl TrackedProcess {
    fn waiting(pid: Pid, parent: Option<Pid>, born: Option<Timestamp>, now: Timestamp) -> Self {
        // What one that was there before has done so far was not asked for.
        let cpu = if born.is_some() { None } else { Process::new(pid).cpu_time() };
        let cpu = cpu.unwrap_or_default();
        TrackedProcess {
            parent,
            parent_process: None,
            process: None,
            born,
            start_time: None,
            forked_runtime: None,
            was_sampled: false,
            state: State::Pending(PendingAttach::from(pid, born.unwrap_or(now), cpu, false)),
        }
    }

    fn forked_runtime(&self) -> Option<ForkedRuntime> {
        match &self.state {
            State::Sampled(sampler) => Some(sampler.target().forked_runtime()),
            State::Pending(_) => self.forked_runtime.clone(),
        }
    }
}

/// Filling.
impl ProcessSet {
    /// One process, of which `target` is known; with all its descendants if `with_children`.
    pub fn new(root: Pid, target: Option<Target>, with_children: bool, options: SamplerOptions) -> Self {
        let now = clock::now();
        let mut process_set = ProcessSet {
            options,
            root,
            tree: with_children.then(|| Tree::below(root)),
            process_set: HashMap::from([(root, TrackedProcess::waiting(root, None, None, now))]),
            order: vec![root],
            turn: 0,
            counts: ProcessCounts::default(),
            cpu_of_gone: Nanos::ZERO,
            leaving: Vec::new(),
            watches_turns: false,
            kernel: None,
            last_read: now,
            latest_look: Timestamp::MAX,
            end: None,
            part_sampled: 1.0,
            began: None,
            reported: Reported::default(),
            newcomers: Vec::new(),
            left_out: Vec::new(),
        };
        if let (Some(member), Some(target)) = (process_set.process_set.get_mut(&root), target) {
            member.forked_runtime = Some(target.forked_runtime());
        }
        process_set
    }

    /// Learns who was born, has become another program or has ended. `due` is the instant that is sampled next
    /// or just now.
    pub fn follow_tree(&mut self, events: &mut EventWriter<'_>, due: Timestamp, now: Timestamp) {
        let changes = self.tree.as_mut().map(|tree| tree.changes(now)).unwrap_or_default();
        for change in changes {
            match change {
                Change::Born { pid, parent, at } => self.add(pid, parent, at, now),
                Change::Executed { pid, at } => self.program_changed(events, pid, at, true),
                Change::Ended { pid, at } => {
                    self.count_short_life(events, pid, due, at);
                    self.remove(events, pid);
                }
            }
        }
    }

    fn add(&mut self, pid: Pid, parent: Pid, born: Option<Timestamp>, now: Timestamp) {
        let mut member = TrackedProcess::waiting(pid, Some(parent), born, now);
        if let State::Pending(waiting) = &mut member.state {
            if born.is_none() && self.began.is_some() {
                // It is a descendant of what was started to be sampled: all that it has done belongs to that.
                waiting.missed = UnattachedTime::since(now, Nanos::ZERO);
            }
            waiting.count_since(&self.left_out);
        }
        // One that was found and not told of may have become another program since.
        if born.is_some() && self.tree.as_ref().is_some_and(Tree::is_told) {
            member.forked_runtime = self.process_set.get(&parent).and_then(TrackedProcess::forked_runtime);
        }
        if self.process_set.insert(pid, member).is_none() {
            self.order.push(pid);
        }
    }

    /// The process runs another program: whatever was known of its Python is void.
    fn program_changed(
        &mut self,
        events: &mut EventWriter<'_>,
        pid: Pid,
        at: Timestamp,
        is_new_program: bool,
    ) {
        let Some(member) = self.process_set.get_mut(&pid) else { return };
        member.forked_runtime = None;
        let cpu = match &member.state {
            State::Pending(before) => before.missed.cpu_without_python(),
            State::Sampled(_) => Process::new(pid).cpu_time().unwrap_or_default(),
        };
        let mut waiting = PendingAttach::from(pid, at, cpu, is_new_program);
        waiting.count_since(&self.left_out);
        let before = std::mem::replace(&mut member.state, State::Pending(waiting));
        if let State::Sampled(sampler) = before {
            self.give_up(events, *sampler);
        }
    }

    fn give_up(&mut self, events: &mut EventWriter<'_>, mut sampler: ProcessSampler) {
        sampler.resolve_pending(events);
        sampler.count_unseen(events, self.end.unwrap_or_else(clock::now));
        if let Some(kernel) = &mut self.kernel {
            sampler.leave_kernel(kernel);
        }
        sampler.look_at_clock();
        self.cpu_of_gone += sampler.cpu_used();
        let mut probe = sampler.into_probe();
        probe.release_late();
        if probe.has_late() {
            self.leaving.push(probe);
        }
    }

    /// A Python that ended before it was looked at was missed, if the instant `due` was in its life.
    fn count_short_life(&self, events: &mut EventWriter<'_>, pid: Pid, due: Timestamp, ended: Timestamp) {
        let Some(TrackedProcess { state: State::Pending(waiting), forked_runtime: Some(_), .. }) =
            self.process_set.get(&pid)
        else {
            return;
        };
        let also_this_one = u64::from((waiting.since..=ended).contains(&due));
        let count = waiting.missed.instants() + also_this_one;
        events.lose(LossReason::ShortLived, self.scope_of(pid), ended, count);
    }

    /// Records what the scheduler's programs have sent of a process that has ended, and what they know of it beside that: its
    /// last waits may have been over only after the ring was read.
    fn flush_last_off_cpu(&mut self, events: &mut EventWriter<'_>, pid: Pid) {
        if self.kernel.as_ref().is_none_or(|kernel| kernel.off_cpu.is_none()) {
            return;
        }
        self.take_sent(events);
        if let (Some(kernel), Some(TrackedProcess { state: State::Sampled(sampler), .. })) =
            (&mut self.kernel, self.process_set.get_mut(&pid))
        {
            sampler.flush_all_off_cpu(kernel, events, None);
        }
    }

    fn remove(&mut self, events: &mut EventWriter<'_>, pid: Pid) {
        self.flush_last_off_cpu(events, pid);
        self.count_unanswered(events, pid, clock::now());
        // Its children are still to be shown as its children.
        let has_children = self.process_set.values().any(|other| other.parent == Some(pid));
        let process = has_children.then(|| self.process_id(events, pid));
        let Some(member) = self.process_set.remove(&pid) else { return };
        for orphan in self.process_set.values_mut().filter(|other| other.parent == Some(pid)) {
            (orphan.parent, orphan.parent_process) = (None, process);
        }
        member.count(&mut self.counts);
        if let State::Sampled(sampler) = member.state {
            self.give_up(events, *sampler);
        }
        self.order.retain(|other| *other != pid);
        if let Some(tree) = &mut self.tree {
            tree.forget(pid);
        }
    }

    /// The process in the profile; if it is not there yet, as a process without Python.
    fn process_id(&mut self, events: &mut EventWriter<'_>, pid: Pid) -> ProcessId {
        let mut line = vec![pid];
        while let Some(member) = self.process_set.get(&line[line.len() - 1])
            && let (None, Some(parent)) = (member.process, member.parent)
            && self.process_set.contains_key(&parent)
            && !line.contains(&parent)
        {
            line.push(parent);
        }
        let mut parent = None;
        for pid in line.into_iter().rev() {
            let Some(member) = self.process_set.get_mut(&pid) else { continue };
            let above = parent.or(member.parent_process);
            parent =
                Some(*member.process.get_or_insert_with(|| events.dictionary.process(bare_info(pid, above))));
        }
        parent.unwrap_or_else(|| events.dictionary.process(bare_info(pid, None)))
    }
}

/// Sampling.
impl ProcessSet {
    /// Takes one sample of every thread of every process that is wanted; the instant was due at `due`.
    pub fn sample(&mut self, events: &mut EventWriter<'_>, due: Timestamp) {
        self.look_at_all(events, due, clock::now(), 1);
    }

    /// Looks at every process; `instants` is how many are due for each.
    fn look_at_all(&mut self, events: &mut EventWriter<'_>, due: Timestamp, began: Timestamp, instants: u64) {
        self.newcomers.clear();
        self.follow_tree(events, due, began);
        self.left_out.clear();
        self.turn = self.turn.wrapping_add(1);
        let mut order = self.order.clone();
        let first = self.turn % order.len().max(1);
        order.rotate_left(first);
        let longest = match self.kernel {
            Some(_) => MAX_ATTACH_TIME_BESIDE_PROGRAM,
            None => MAX_ATTACH_TIME,
        };
        let mut attaching = Nanos::ZERO;
        for pid in order {
            let now = clock::now();
            if now > self.latest_look {
                self.leave_unlooked(events, pid, due, instants);
                continue;
            }
            if matches!(self.process_set.get(&pid), Some(TrackedProcess { state: State::Pending(_), .. })) {
                if attaching <= longest {
                    self.try_to_attach(events, pid, now);
                    attaching += clock::now().since(now);
                }
                self.count_missed_instants(events, pid, due, instants);
            }
            self.sample_one(events, pid, now, began.since(due));
        }
    }

    /// Counts what is lost of a process that there is no time to look at.
    fn leave_unlooked(&mut self, events: &mut EventWriter<'_>, pid: Pid, due: Timestamp, instants: u64) {
        let is_in_kernel = self.kernel.is_some();
        match self.process_set.get_mut(&pid).map(|member| &mut member.state) {
            Some(State::Sampled(sampler)) if is_in_kernel => sampler.count_unregistered(events),
            Some(State::Sampled(_)) => events.lose(LossReason::Late, self.scope_of(pid), due, 1),
            Some(State::Pending(_)) => self.count_missed_instants(events, pid, due, instants),
            None => {}
        }
    }

    /// Has nothing be looked at after `latest`.
    pub fn look_until(&mut self, latest: Timestamp) {
        self.latest_look = latest;
    }

    /// When a process that has no Python yet is looked at next.
    fn next_attempt(&self) -> Timestamp {
        let waiting = self.process_set.values().filter_map(|member| match &member.state {
            State::Pending(waiting) => Some(waiting.next),
            State::Sampled(_) => None,
        });
        waiting.min().unwrap_or(Timestamp::MAX)
    }

    /// Has the in-kernel program take the samples.
    pub fn sample_by(&mut self, kernel: BpfProgram) {
        self.kernel = Some(kernel);
    }

    /// The in-kernel program.
    pub fn kernel(&mut self) -> Option<&mut BpfProgram> {
        self.kernel.as_mut()
    }

    /// Waits until the in-kernel program has sent much, a process was born somewhere, one that is there may have got its
    /// Python, or this instant has come: the program samples a process as soon as it was told of it, and short-lived ones
    /// wait for nobody.
    pub fn wait_until(&self, instant: Timestamp) {
        let instant = instant.min(self.next_attempt());
        let births = self.tree.as_ref().and_then(Tree::descriptor);
        let latest = match (&self.tree, births) {
            (None, _) => instant,
            (Some(_), Some(_)) => {
                clock::sleep_until(instant.min(clock::now() + SHORTEST_WAIT_OF_TREES));
                instant
            }
            (Some(_), None) => instant.min(clock::now() + WAIT_OF_UNTOLD_TREES),
        };
        let sent = self.kernel.as_ref().map(BpfProgram::descriptor);
        let descriptors: Vec<_> = sent.into_iter().chain(births).collect();
        readiness::wait_until(&descriptors, latest);
    }

    /// Records what the in-kernel program has sent, and brings up to date what it knows.
    pub fn read_kernel(&mut self, events: &mut EventWriter<'_>) {
        let now = clock::now();
        self.take_sent(events);
        let period = self.kernel.as_ref().map_or(Nanos::ZERO, BpfProgram::period).as_nanos();
        // Where nothing ticks there are no instants to miss.
        let instants = now.since(self.last_read).as_nanos().checked_div(period).unwrap_or(0);
        self.last_read = self.last_read + Nanos::from_nanos(instants * period);
        self.look_at_all(events, now, now, instants);
        if let Some(kernel) = &mut self.kernel {
            kernel.follow_cpus(now);
        }
    }

    /// Reads it until each process that is there has been looked at, or a reading ends after so long.
    pub fn read_kernel_until_all_are_met(&mut self, events: &mut EventWriter<'_>, at_most: Nanos) {
        let latest = clock::now() + at_most;
        self.read_kernel(events);
        while clock::now() < latest && self.next_attempt() <= clock::now() {
            self.read_kernel(events);
        }
    }

    /// Lets the in-kernel program rest until it is read again, and records what it has sent up to now. One that tells how
    /// long threads wait goes on: it has to know all of their time.
    pub fn let_kernel_rest(&mut self, events: &mut EventWriter<'_>) {
        if let Some(kernel) = self.kernel.as_mut().filter(|kernel| kernel.off_cpu.is_none()) {
            kernel.rest();
            self.take_sent(events);
        }
    }

    /// Since when threads are watched as they leave their CPUs, if they are.
    pub fn watched_since(&mut self) -> Option<Timestamp> {
        self.samplers().filter_map(|sampler| sampler.watched_since()).min()
    }

    /// Whether threads off the CPU are wanted that the in-kernel program does not tell of.
    pub fn wants_looks_off_cpu(&self) -> bool {
        let tells_nothing_of_them = self.kernel.as_ref().is_some_and(|kernel| kernel.off_cpu.is_none());
        tells_nothing_of_them && (self.options.include_idle || self.options.gil_only)
    }

    /// Records what threads off the CPU do, at the instant that was due at `due`.
    pub fn look_off_cpu(&mut self, events: &mut EventWriter<'_>, due: Timestamp) {
        self.samplers().for_each(|sampler| sampler.look_off_cpu(events, due));
    }

    /// Forgets what the in-kernel program has sent of a time for which nobody asked. Names, and what proves them, are needed
    /// all the same, and waits are told exactly, whenever they were.
    pub fn skip_sent(&mut self, now: Timestamp) {
        let (Some(kernel), process_set) = (&mut self.kernel, &mut self.process_set) else { return };
        if kernel.off_cpu.is_some() {
            return;
        }
        let mut with_all_names = Vec::new();
        kernel.skip(&mut |record| {
            let pid = match &record {
                Record::Names(names) => names.process(),
                Record::Stack(stack) => stack.process(),
                _ => return,
            };
            match (record, process_set.get_mut(&pid).map(|member| &mut member.state)) {
                (Record::Names(names), Some(State::Sampled(sampler))) => {
                    with_all_names.extend(sampler.take_names(&names).then_some(pid));
                }
                (Record::Stack(stack), Some(State::Sampled(sampler))) => sampler.note_proofs(&stack),
                _ => {}
            }
        });
        self.want_all_names(with_all_names);
        self.last_read = now;
        self.count_from(now);
    }

    /// Ends what the in-kernel program does, and records what is left of it; returns when it ended.
    pub fn end_kernel(&mut self, events: &mut EventWriter<'_>) -> Timestamp {
        for member in self.process_set.values_mut() {
            if let (State::Sampled(sampler), Some(kernel)) = (&mut member.state, &self.kernel) {
                sampler.prepare_end_of_intervals(kernel);
            }
        }
        let end = self.kernel.as_mut().map_or_else(clock::now, BpfProgram::stop);
        self.read_kernel(events);
        let (Some(kernel), process_set) = (&mut self.kernel, &mut self.process_set) else { return end };
        for member in process_set.values_mut() {
            if let State::Sampled(sampler) = &mut member.state {
                sampler.flush_all_off_cpu(kernel, events, Some(end));
            }
        }
        end
    }

    fn take_sent(&mut self, events: &mut EventWriter<'_>) {
        let (Some(kernel), process_set) = (&mut self.kernel, &mut self.process_set) else { return };
        let period = kernel.period();
        let latest = self.latest_look;
        let mut with_all_names = Vec::new();
        kernel.read(&mut |record| {
            let pid = match &record {
                Record::Stack(stack) => stack.process(),
                Record::Names(names) => names.process(),
                Record::OffCpu(interval) => interval.process(),
                Record::DeepStack(stack) => stack.process(),
                Record::Unregistered(process, _) => *process,
            };
            let sampler = process_set.get_mut(&pid).and_then(|member| match &mut member.state {
                State::Sampled(sampler) => Some(sampler),
                State::Pending(_) => None,
            });
            match (record, sampler) {
                (Record::Stack(stack), Some(sampler)) => {
                    let Tick { weight, late } =
                        Tick::after(stack.weight(), stack.missed(), stack.behind(), stack.period());
                    let (scope, at) = (sampler.scope(), stack.time());
                    events.lose(LossReason::Late, scope, at, late);
                    events.lose(LossReason::RateLimited, scope, at, ticks(stack.rested(), period));
                    if clock::now() > latest {
                        return events.lose(LossReason::Late, scope, at, 1);
                    }
                    sampler.take_stack(events, &stack, weight + stack.rested());
                }
                (Record::Names(names), Some(sampler)) => {
                    with_all_names.extend(sampler.take_names(&names).then_some(pid));
                }
                (Record::Stack(stack), None) => {
                    events.lose(LossReason::ProcessEnded, Scope::Session, stack.time(), 1);
                }
                (Record::OffCpu(interval), Some(sampler)) => sampler.take_interval(events, &interval),
                (Record::DeepStack(stack), Some(sampler)) => sampler.take_deep_stack(events, &stack),
                (Record::Unregistered(..), Some(sampler)) => sampler.meet_stranger(),
                // What a process did while it was not looked at yet, or any more.
                (
                    Record::Names(_) | Record::OffCpu(_) | Record::DeepStack(_) | Record::Unregistered(..),
                    None,
                ) => {}
            }
        });
        self.want_all_names(with_all_names);
        self.take_native_ticks(events);
    }

    /// Counts the ticks that met threads without Python.
    fn take_native_ticks(&mut self, events: &mut EventWriter<'_>) {
        let Some(kernel) = &mut self.kernel else { return };
        let period = kernel.period();
        let counts = kernel.take_native_ticks();
        events.lose(LossReason::BufferFull, Scope::Session, clock::now(), counts.unattributed_ticks);
        for native in counts.threads {
            let member = self.process_set.get_mut(&native.process);
            let Some(State::Sampled(sampler)) = member.map(|member| &mut member.state) else {
                events.lose(LossReason::ProcessEnded, Scope::Session, native.last, native.ticks);
                continue;
            };
            events.lose(LossReason::Late, sampler.scope(), native.last, native.late);
            let throttled = ticks(native.rested, period);
            events.lose(LossReason::RateLimited, sampler.scope(), native.last, throttled);
            sampler.take_native(&native);
        }
    }

    /// Has the in-kernel program send names with every sample of these processes.
    fn want_all_names(&mut self, pids: Vec<Pid>) {
        let Some(kernel) = &mut self.kernel else { return };
        for pid in pids {
            if let Some(State::Sampled(sampler)) = self.process_set.get(&pid).map(|member| &member.state) {
                let _ = kernel.register_process(pid, sampler.target().offsets(), true);
            }
        }
    }

    fn sample_one(&mut self, events: &mut EventWriter<'_>, pid: Pid, now: Timestamp, late: Nanos) {
        let Some(member) = self.process_set.get_mut(&pid) else { return };
        let State::Sampled(sampler) = &mut member.state else { return };
        let outcome = match &mut self.kernel {
            Some(kernel) => sampler.look_in_kernel(kernel, events, now),
            None => sampler.sample(events, now, late),
        };
        member.was_sampled |= sampler.has_threads() && sampler.has_room();
        match outcome {
            Sampled::Going => {}
            Sampled::Ended => self.remove(events, pid),
            Sampled::Silent => {
                self.program_changed(events, pid, now, false);
                if let Some(TrackedProcess { state: State::Pending(waiting), .. }) =
                    self.process_set.get_mut(&pid)
                {
                    waiting.had_none(AttachError::NoAnswer(pid), now, None, LONGEST_GAP);
                }
            }
            Sampled::WithoutRuntime => {
                self.program_changed(events, pid, now, false);
                self.try_to_attach(events, pid, now);
            }
        }
    }

    /// A single process that has no Python for the moment loses its samples; of a tree, only what turns out to
    /// be a Python does.
    fn count_missed_instants(
        &mut self,
        events: &mut EventWriter<'_>,
        pid: Pid,
        due: Timestamp,
        instants: u64,
    ) {
        if let Some(TrackedProcess { state: State::Pending(waiting), process, .. }) =
            self.process_set.get_mut(&pid)
        {
            match &self.tree {
                None if !waiting.is_silent() => {
                    let scope = member_scope(*process);
                    events.lose(waiting.loss(), scope, due, instants);
                }
                _ => waiting.missed.count(due, instants),
            }
        }
    }

    /// Looks for the Python of a process that has none, if it is time to.
    fn try_to_attach(&mut self, events: &mut EventWriter<'_>, pid: Pid, now: Timestamp) {
        let forked_runtime = self.forked_runtime_of(pid);
        let Some(member) = self.process_set.get_mut(&pid) else { return };
        let TrackedProcess { state: State::Pending(waiting), start_time, .. } = member else { return };
        if now < waiting.next {
            return;
        }
        if waiting.is_silent() {
            return self.count_unanswered(events, pid, now);
        }
        // Before the look: it may have one just after it.
        let cpu = Process::new(pid).cpu_time();
        let inherited = forked_runtime.and_then(|forked_runtime| Target::from_parent(&forked_runtime, pid));
        match inherited.map_or_else(|| waiting.search.attach(), Ok) {
            // The same process that it was, and no later one with its number.
            Ok(target) if *start_time.get_or_insert(target.start_time()) == target.start_time() => {
                self.attached(events, pid, target);
            }
            Ok(_) | Err(AttachError::NoSuchProcess(_) | AttachError::ProcessEnded(_)) => {
                self.count_short_life(events, pid, now, now);
                self.remove(events, pid);
            }
            Err(error) => {
                let is_told = self.tree.as_ref().is_some_and(Tree::is_told);
                let longest = if is_told { LONGEST_TOLD_GAP } else { LONGEST_GAP };
                waiting.had_none(error, now, cpu, longest);
            }
        }
    }

    /// Counts what is lost of a process whose memory does not answer, since the last time.
    fn count_unanswered(&mut self, events: &mut EventWriter<'_>, pid: Pid, now: Timestamp) {
        let period = self.kernel.as_ref().map(BpfProgram::period);
        let Some(TrackedProcess { state: State::Pending(waiting), .. }) = self.process_set.get_mut(&pid)
        else {
            return;
        };
        if waiting.is_silent() {
            waiting.next = now + LONGEST_GAP;
            let lost = waiting.missed.take_unseen(now, period, Process::new(pid).cpu_time());
            events.lose(LossReason::NoAnswer, self.scope_of(pid), now, lost);
        }
    }

    /// What the process may share with the one that forked it.
    fn forked_runtime_of(&self, pid: Pid) -> Option<ForkedRuntime> {
        let member = self.process_set.get(&pid)?;
        let is_new_program = matches!(&member.state, State::Pending(waiting) if waiting.is_new_program);
        if is_new_program {
            return None;
        }
        let of_parent = || self.process_set.get(&member.parent?)?.forked_runtime();
        member.forked_runtime.clone().or_else(of_parent)
    }

    /// Counts what the process, whose Python was found just now, did before that.
    fn count_missed(&mut self, events: &mut EventWriter<'_>, pid: Pid) {
        let is_first =
            self.counts.sampled == 0 && self.process_set.values().all(|member| !member.was_sampled);
        let period = self.kernel.as_ref().map(BpfProgram::period);
        let Some(TrackedProcess { state: State::Pending(waiting), .. }) = self.process_set.get(&pid) else {
            return;
        };
        if self.tree.is_none() {
            return;
        }
        let since = waiting.missed.without_python();
        let (without, unseen) = match period {
            None => waiting.missed.by_instants(),
            Some(period) => waiting.missed.by_ticks(period, Process::new(pid).cpu_time()),
        };
        let (scope, now) = (self.scope_of(pid), clock::now());
        match self.began.filter(|_| pid == self.root && is_first) {
            Some(began) => events.metric(now, MetricValue::BeforePython(since.since(began))),
            None if waiting.is_new_program => events.lose(LossReason::NoRuntime, scope, now, without),
            None => {}
        }
        events.lose(LossReason::Late, scope, now, unseen);
        self.newcomers.push(since);
    }

    /// Has the recording begin with the root, which was started at `began` to be sampled, so many instants ago.
    pub fn began(&mut self, began: Timestamp, instants: u64) {
        self.began = Some(began);
        if let Some(TrackedProcess { state: State::Pending(waiting), .. }) =
            self.process_set.get_mut(&self.root)
        {
            waiting.since = began;
            waiting.missed = UnattachedTime::since(began, Nanos::ZERO);
            // None of them is before that.
            waiting.missed.count(Timestamp::MAX, instants);
        }
    }

    /// Has so many of the instants be sampled from now on, as a part of 1.
    pub fn sample_part(&mut self, part: f64) {
        self.part_sampled = part;
        self.samplers().for_each(|sampler| sampler.sample_part(part));
    }

    /// Counts an instant that was left out for this reason, after the one that was sampled last, for all that were there.
    pub fn count_left_out(&mut self, events: &mut EventWriter<'_>, reason: LossReason, instant: Timestamp) {
        let too_young = self.newcomers.iter().filter(|since| **since > instant).count();
        // A single process without Python loses its samples as well. What is silent is counted as such.
        let least = usize::from(self.tree.is_none() && self.silent().is_none());
        let there = self.sampled().saturating_sub(too_young).max(least);
        events.lose(reason, Scope::Session, instant, there as u64);
        if self.tree.is_some() && self.left_out.len() < MAX_LEFT_OUT {
            self.left_out.push(instant);
        }
        for member in self.process_set.values_mut() {
            if let State::Pending(waiting) = &mut member.state {
                waiting.missed.count(instant, 1);
            }
        }
    }

    fn attached(&mut self, events: &mut EventWriter<'_>, pid: Pid, target: Target) {
        let parent = self.process_set.get(&pid).and_then(|member| member.parent);
        let parent = parent.filter(|parent| self.process_set.contains_key(parent));
        let parent = parent.map(|parent| self.process_id(events, parent));
        self.count_missed(events, pid);
        let Some(member) = self.process_set.get_mut(&pid) else { return };
        let process = events.dictionary.process(ProcessInfo {
            pid,
            start_time: Some(target.start_time()),
            parent: parent.or(member.parent_process),
            command_line: target.command_line().to_owned(),
            python_version: Some(target.version_text()),
            executable: target.executable().to_owned(),
        });
        member.process = Some(process);
        let mut sampler = ProcessSampler::new(target, self.options, process, member.born.take());
        sampler.sample_part(self.part_sampled);
        if self.watches_turns {
            sampler.watch_turns();
        }
        if let Some(kernel) = &mut self.kernel {
            // What cannot be read yet is looked at again soon.
            let _ = sampler.enter_kernel(kernel, events, clock::now());
        }
        member.state = State::Sampled(Box::new(sampler));
    }

    /// Which threads run, if there is one process and no more to come.
    pub fn runners(&self) -> Runners {
        let mut sampled = self.process_set.values();
        match (&self.tree, sampled.next().map(|member| &member.state)) {
            (None, Some(State::Sampled(sampler))) => sampler.runners(),
            (None, _) => Runners::None,
            (Some(_), _) => Runners::Many,
        }
    }

    /// Has what was captured last count for the instants of `schedule` that have passed since then, as far as all stood
    /// still in the only process.
    pub fn sample_again(&mut self, events: &mut EventWriter<'_>, schedule: &mut Schedule) {
        let mut sampled = self.process_set.values_mut();
        if let (None, Some(State::Sampled(sampler))) =
            (&self.tree, sampled.next().map(|member| &mut member.state))
        {
            sampler.sample_again(events, schedule);
        }
    }

    /// Has it be known from now on which CPU a thread has that is the only one to run.
    pub fn watch_turns(&mut self) {
        self.watches_turns = self.tree.is_none();
        self.samplers().for_each(ProcessSampler::watch_turns);
    }

    /// Has it not be known any more.
    pub fn unwatch_turns(&mut self) {
        self.watches_turns = false;
        self.samplers().for_each(ProcessSampler::unwatch_turns);
    }

    /// Whether something that was captured is to get its names before the instant `next`.
    pub fn is_resolving_due(&mut self, next: Timestamp) -> bool {
        self.samplers().any(|sampler| sampler.is_resolving_due(next))
    }

    /// Records what was captured and has waited for its names.
    pub fn resolve_pending(&mut self, events: &mut EventWriter<'_>) {
        self.samplers().for_each(|sampler| sampler.resolve_pending(events));
    }

    /// Has the next samples stand for nothing that was before `now`.
    pub fn count_from(&mut self, now: Timestamp) {
        self.samplers().for_each(|sampler| sampler.count_from(now));
        self.miss_from(now);
    }

    /// Has nothing count as missed that a process without Python did before `now`.
    pub fn miss_from(&mut self, now: Timestamp) {
        for (pid, member) in &mut self.process_set {
            if let State::Pending(waiting) = &mut member.state {
                waiting.missed.leave_out(now, Process::new(*pid).cpu_time());
            }
        }
    }

    /// Reports all that is known up to now: what was captured or sent, and how long what goes on has lasted.
    pub fn cut(&mut self, events: &mut EventWriter<'_>) {
        self.read_kernel(events);
        self.resolve_pending(events);
        let Some(kernel) = &mut self.kernel else { return };
        for member in self.process_set.values_mut() {
            if let State::Sampled(sampler) = &mut member.state {
                sampler.flush_all_off_cpu(kernel, events, None);
            }
        }
    }

    /// Gives what is kept its ids in the next dictionary. It follows a cut.
    pub fn rename(&mut self, renaming: &mut Renaming<'_>) {
        for member in self.process_set.values_mut() {
            member.process = member.process.map(|process| renaming.process(process));
            member.parent_process = member.parent_process.map(|process| renaming.process(process));
            if let State::Sampled(sampler) = &mut member.state {
                sampler.rename(renaming);
            }
        }
    }

    /// Lets go of threads that stopped only after they had been given up.
    pub fn release_late(&mut self) {
        self.samplers().for_each(ProcessSampler::release_late);
        self.leaving.iter_mut().for_each(Probe::release_late);
        self.leaving.retain(Probe::has_late);
    }

    /// The same at the end, waiting for them; threads that were met only just before get their names.
    pub fn release_all(&mut self, events: &mut EventWriter<'_>, end: Timestamp) {
        self.release_late();
        self.resolve_pending(events);
        self.samplers().for_each(|sampler| sampler.name_last_threads(events));
        for pid in self.order.clone() {
            self.count_unanswered(events, pid, clock::now());
        }
        // All that it was told goes with it.
        self.kernel = None;
        self.end = Some(end);
        for member in std::mem::take(&mut self.process_set).into_values() {
            member.count(&mut self.counts);
            if let State::Sampled(sampler) = member.state {
                self.give_up(events, *sampler);
            }
        }
        self.order.clear();
        self.leaving.iter_mut().for_each(Probe::release_all);
    }

    fn samplers(&mut self) -> impl Iterator<Item = &mut ProcessSampler> {
        self.process_set.values_mut().filter_map(|member| match &mut member.state {
            State::Sampled(sampler) => Some(&mut **sampler),
            State::Pending(_) => None,
        })
    }
}

/// Telling.
impl ProcessSet {
    /// Whether nothing is left to sample: the process has ended or does not answer, and so it is with all of its
    /// descendants that are Python or may become one.
    pub fn are_gone(&self, now: Timestamp) -> bool {
        self.process_set.get(&self.root).is_none_or(TrackedProcess::is_silent)
            && self.process_set.values().all(|member| match &member.state {
                State::Sampled(_) => false,
                State::Pending(waiting) => waiting.is_silent() || now.since(waiting.since) > TIME_TO_COME_UP,
            })
    }

    /// A process that is still there, but whose memory does not answer.
    pub fn silent(&self) -> Option<Pid> {
        self.order
            .iter()
            .copied()
            .find(|pid| self.process_set.get(pid).is_some_and(TrackedProcess::is_silent))
    }

    /// The CPU time that the first process has used.
    pub fn cpu_of_root(&self) -> Option<Nanos> {
        Process::new(self.root).cpu_time()
    }

    /// Whether descendants belong to it.
    pub fn is_tree(&self) -> bool {
        self.tree.is_some()
    }

    /// How many processes are sampled.
    pub fn sampled(&self) -> usize {
        self.process_set.values().filter(|member| matches!(member.state, State::Sampled(_))).count()
    }

    /// Reports how many processes there were, and what those that are sampled have used.
    pub fn report(&mut self, events: &mut EventWriter<'_>, now: Timestamp) {
        let mut cpu = self.cpu_of_gone;
        let mut other_pythons = Vec::new();
        for sampler in self.samplers() {
            sampler.look_at_clock();
            cpu += sampler.cpu_used();
            let scope = sampler.scope();
            other_pythons.extend(sampler.other_pythons(now).iter().map(|other| (scope, other.clone())));
        }
        let before = std::mem::replace(&mut self.reported.cpu, cpu);
        events.metric(now, MetricValue::TargetCpu(cpu.saturating_sub(before)));
        for (scope, other) in other_pythons {
            if self.reported.other_pythons.insert(other.clone()) {
                events.mark(scope, now, MarkKind::OtherPython(Arc::new(other)));
            }
        }
        self.report_counts(events, now);
    }

    /// Reports what was counted elsewhere: by the kernel, and by what became of the processes.
    pub fn report_counts(&mut self, events: &mut EventWriter<'_>, now: Timestamp) {
        self.report_ring_losses(events, now);
        if self.tree.is_some() {
            let mut counts = self.counts;
            self.process_set.values().for_each(|member| member.count(&mut counts));
            if self.reported.counts.replace(counts) != Some(counts) {
                events.metric(now, MetricValue::Processes(counts));
            }
        }
    }

    /// Reports what the ring had no room for. The time of its samples is lost with them, unless each sample stands for all
    /// that its thread ran since the one before.
    fn report_ring_losses(&mut self, events: &mut EventWriter<'_>, now: Timestamp) {
        let Some(kernel) = &mut self.kernel else { return };
        let has_exact_times = kernel.off_cpu.is_some();
        let RingLosses { threads, unattributed } = kernel.take_ring_losses();
        events.lose(LossReason::BufferFull, Scope::Session, now, unattributed);
        for RingLoss { process, thread, count, weight } in threads {
            let scope = match self.process_set.get(&process).map(|member| &member.state) {
                Some(State::Sampled(sampler)) => sampler.scope_of_thread(thread),
                _ => self.scope_of(process),
            };
            let cpu = if has_exact_times { Nanos::ZERO } else { weight };
            events.lose_with(Loss { cpu, ..Loss::of(LossReason::BufferFull, scope, now, count) });
        }
    }

    /// The process, as what events are about.
    fn scope_of(&self, pid: Pid) -> Scope {
        member_scope(self.process_set.get(&pid).and_then(|member| member.process))
    }
}

fn member_scope(process: Option<ProcessId>) -> Scope {
    process.map_or(Scope::Session, Scope::Process)
}

impl TrackedProcess {
    fn is_silent(&self) -> bool {
        matches!(&self.state, State::Pending(waiting) if waiting.is_silent())
    }

    /// Counts the process by what became of it.
    fn count(&self, counts: &mut ProcessCounts) {
        match &self.state {
            _ if self.was_sampled => counts.sampled += 1,
            State::Sampled(_) => counts.missed += 1,
            State::Pending(PendingAttach { why: None, .. }) => counts.missed += 1,
            // It was a Python like its parent, and just about to be gone.
            State::Pending(_) if self.forked_runtime.is_some() => counts.missed += 1,
            State::Pending(PendingAttach { why: Some(AttachError::NotPermitted(_)), .. }) => {
                counts.not_permitted += 1;
            }
            State::Pending(_) => counts.without_python += 1,
        }
    }
}

/// What is known of a process without Python.
fn bare_info(pid: Pid, parent: Option<ProcessId>) -> ProcessInfo {
    let process = Process::new(pid);
    ProcessInfo {
        pid,
        start_time: process.stat().ok().map(|stat| stat.start_time),
        parent,
        command_line: process.command_line().unwrap_or_default(),
        python_version: None,
        executable: process.executable().map(|path| path.display().to_string()).unwrap_or_default(),
    }
}
