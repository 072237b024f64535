//! The scripted machine: processes that are born, run other programs, become Pythons, fall silent and end, and samplers that see
//! of that what real ones see. It notes when which process was looked at, for the law to be checked against.

use std::collections::BTreeMap;

use profiler_model::{LossReason, Nanos, Pid, Timestamp};
use profiler_profile::{ProcessId, ProcessInfo};
use profiler_python::NotPython;
use profiler_target::{AttachError, Change};

use super::super::host::{ProcessHost, ProcessSampling, SamplersByPid};
use super::law::{Phase, PhaseStart};
use super::sim_process::{Program, SimProcess};
use super::sim_sampler::SimSampler;
use crate::event_writer::EventWriter;
use crate::process_sampler::Sampled;

/// The root of the tree.
pub const ROOT: u32 = 1;

/// What a look at a process costs, in nanoseconds.
const LOOK_COST: u64 = 20_000;

/// Something that the tree is still to report.
#[derive(Clone, Copy, Debug)]
struct Unreported {
    change: Change,
    /// Whether the next look comes before the report.
    is_delayed: bool,
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    pub clock: u64,
    /// Whether descendants of the root belong to the session.
    pub is_tree: bool,
    /// Whether the tree reports births, `exec`s and ends, and does not look for children only.
    reports: bool,
    /// All processes that there have been, those with reused ids included.
    pub processes: BTreeMap<u32, SimProcess>,
    /// Processes whose id was used again.
    pub reused: Vec<SimProcess>,
    unreported: Vec<Unreported>,
    /// The processes that the tree knows.
    known: Vec<u32>,
    /// The instant that is being looked at: its number and when it was due.
    pub due: (usize, u64),
    /// Whether processes are being looked at.
    pub is_looking: bool,
    /// When the last look began.
    pub began: u64,
    /// Samples beyond the first of each look at a process.
    pub more_samples: u64,
    /// What an attempt to attach costs.
    pub attach_cost: u64,
    starts: u64,
}

impl Machine {
    pub fn new(reports: bool, root: Program, is_known: bool) -> Self {
        let mut machine = Machine {
            clock: 1_000_000_000,
            is_tree: true,
            reports,
            processes: BTreeMap::new(),
            reused: Vec::new(),
            unreported: Vec::new(),
            known: vec![ROOT],
            due: (0, 0),
            is_looking: false,
            began: 0,
            more_samples: 0,
            attach_cost: 100_000,
            starts: 0,
        };
        machine.insert((ROOT, ROOT), root, is_known, 1);
        let start = if is_known { PhaseStart::Inherited } else { PhaseStart::Found };
        machine.processes.get_mut(&ROOT).unwrap().phases.push(Phase::new(start, machine.clock));
        machine
    }

    /// Starts a process that no known process forked, and that is added, without its descendants if it is single; returns whether its
    /// id was free.
    pub fn start(&mut self, pid: u32, program: Program, is_single: bool) -> bool {
        if self.is_taken(pid) {
            return false;
        }
        self.insert((pid, pid), program, false, 1);
        self.known.push(pid);
        let start = if is_single { PhaseStart::Single } else { PhaseStart::Found };
        let phase = Phase::new(start, self.clock);
        let process = self.processes.get_mut(&pid).unwrap();
        process.is_single = is_single;
        process.phases.push(phase);
        true
    }

    fn is_taken(&self, pid: u32) -> bool {
        let is_of_pid = |unreported: &Unreported| pid_of(unreported.change) == Pid::new(pid);
        self.known.contains(&pid) || self.unreported.iter().any(is_of_pid) || self.is_alive(pid)
    }

    fn insert(&mut self, (pid, root): (u32, u32), program: Program, is_fork: bool, threads: u64) {
        self.starts += 1;
        let process = SimProcess {
            program,
            root,
            is_single: false,
            threads,
            is_fork,
            ended: None,
            phases: Vec::new(),
            was_sampled: false,
            start_time: self.starts,
        };
        self.reused.extend(self.processes.insert(pid, process).filter(|before| !before.phases.is_empty()));
    }

    pub fn is_alive(&self, pid: u32) -> bool {
        self.processes.get(&pid).is_some_and(|process| process.ended.is_none())
    }

    fn report(&mut self, change: Change, is_delayed: bool) {
        let is_single = self.processes[&pid_of(change).as_u32()].is_single;
        if self.reports && !is_single {
            self.unreported.push(Unreported { change, is_delayed });
        }
    }

    /// `parent` forks. The Python of the child can be read after `delay`.
    pub fn fork(&mut self, parent: u32, pid: u32, threads: u64, delay: u64) {
        let can_fork = self.is_alive(parent) && self.known.contains(&parent);
        if self.is_taken(pid) || !can_fork || self.processes[&parent].is_single {
            return;
        }
        let root = self.processes[&parent].root;
        let program = match self.processes[&parent].program {
            Program::Python { up_at } => Program::Python { up_at: up_at.max(self.clock + delay) },
            other => other,
        };
        self.insert((pid, root), program, true, threads);
        let (at, root) = (Some(self.time()), Pid::new(root));
        self.report(Change::Born { pid: Pid::new(pid), root, parent: Pid::new(parent), at }, false);
    }

    pub fn execute(&mut self, pid: u32, program: Program) {
        if self.is_alive(pid) {
            let process = self.processes.get_mut(&pid).unwrap();
            (process.program, process.is_fork) = (program, false);
            self.report(Change::Executed { pid: Pid::new(pid), at: self.time() }, false);
        }
    }

    /// Without an `exec`. A process without Python gets none.
    pub fn set_program(&mut self, pid: u32, program: Program) {
        if let Some(process) = self.processes.get_mut(&pid)
            && matches!(process.program, Program::Python { .. })
        {
            process.program = program;
        }
    }

    /// If the report is delayed, the next look finds that it has ended, provided that it is sampled. Of a process that is not, the
    /// instants between its end and the report would count.
    pub fn end(&mut self, pid: u32, is_delayed: bool) {
        if self.is_alive(pid) {
            let is_sampled = self.processes[&pid].phases.last().is_some_and(Phase::is_sampled);
            let is_delayed = is_delayed && is_sampled;
            self.processes.get_mut(&pid).unwrap().ended = Some(self.clock);
            self.report(Change::Ended { pid: Pid::new(pid), at: self.time() }, is_delayed);
        }
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_nanos(self.clock)
    }

    fn phase(&mut self, pid: Pid) -> &mut Phase {
        self.processes.get_mut(&pid.as_u32()).unwrap().phases.last_mut().unwrap()
    }

    fn end_phase(&mut self, pid: Pid, at: Timestamp) {
        let next_look = self.due.0 + usize::from(!self.is_looking);
        let phase = self.phase(pid);
        (phase.end, phase.first_look_after) = (Some(at.as_nanos()), Some(next_look));
    }

    /// Takes note of a change that is being reported.
    fn note(&mut self, change: Change) {
        match change {
            Change::Born { pid, parent, at, .. } => {
                let is_known = self.phase(parent).has_known_python();
                let start = match at {
                    Some(_) if self.reports && is_known => PhaseStart::Inherited,
                    _ => PhaseStart::Found,
                };
                let since = at.map_or(self.clock, Timestamp::as_nanos);
                self.known.push(pid.as_u32());
                let process = self.processes.get_mut(&pid.as_u32()).unwrap();
                process.phases.push(Phase::new(start, since));
            }
            Change::Executed { pid, at } => {
                self.end_phase(pid, at);
                let phases = &mut self.processes.get_mut(&pid.as_u32()).unwrap().phases;
                phases.push(Phase::new(PhaseStart::Executed, at.as_nanos()));
            }
            Change::Ended { pid, at } => {
                self.end_phase(pid, at);
                self.known.retain(|known| *known != pid.as_u32());
            }
        }
    }

    /// The children of known processes that the tree finds by looking for them.
    fn found(&self) -> Vec<Change> {
        let is_new = |(pid, process): &(&u32, &SimProcess)| {
            process.ended.is_none() && process.phases.is_empty() && !self.known.contains(pid)
        };
        let at = Some(self.time());
        let born = |(pid, process): (&u32, &SimProcess)| {
            let root = Pid::new(process.root);
            // Whoever its parent was, the first process has adopted it.
            Change::Born { pid: Pid::new(*pid), root, parent: Pid::new(ROOT), at }
        };
        self.processes.iter().filter(is_new).map(born).collect()
    }
}

impl ProcessHost for Machine {
    type Sampler = SimSampler;
    type Target = Pid;
    type Search = Pid;

    fn now(&self) -> Timestamp {
        self.time()
    }

    fn latest_look(&self) -> Timestamp {
        Timestamp::MAX
    }

    fn is_tree(&self) -> bool {
        self.is_tree
    }

    fn follow_descendants(&mut self, _: Pid) {}

    fn changes(&mut self, _: Timestamp) -> Vec<Change> {
        self.began = self.clock;
        let mut changes = Vec::new();
        if self.reports {
            let mut delayed = Vec::new();
            for unreported in std::mem::take(&mut self.unreported) {
                match unreported.is_delayed && self.is_looking {
                    true => delayed.push(Unreported { is_delayed: false, ..unreported }),
                    false => changes.push(unreported.change),
                }
            }
            self.unreported = delayed;
            // As the tree does, nothing is reported of processes that are not in it.
            changes.retain(|change| match change {
                Change::Born { .. } => true,
                Change::Executed { pid, .. } | Change::Ended { pid, .. } => {
                    self.known.contains(&pid.as_u32()) || self.processes[&pid.as_u32()].phases.is_empty()
                }
            });
        } else {
            changes = self.found();
        }
        changes.iter().for_each(|change| self.note(*change));
        changes
    }

    fn reports_changes(&self) -> bool {
        self.reports
    }

    fn watch_without_python(&mut self, _pid: Pid) {}

    fn forget(&mut self, pid: Pid) {
        self.known.retain(|known| *known != pid.as_u32());
    }

    fn leave(&mut self, pid: Pid) {
        self.end_phase(pid, self.time());
        self.forget(pid);
    }

    fn cpu_time(&self, _: Pid) -> Option<Nanos> {
        None
    }

    fn describe(&self, pid: Pid) -> ProcessInfo {
        let start_time = self.processes.get(&pid.as_u32()).map(|process| process.start_time);
        ProcessInfo { pid, start_time, ..ProcessInfo::default() }
    }

    fn describe_target(&self, target: &Pid) -> ProcessInfo {
        ProcessInfo { python_version: Some("3.13.0".to_owned()), ..self.describe(*target) }
    }

    fn search(&self, pid: Pid) -> Pid {
        pid
    }

    fn attach(&mut self, search: &mut Pid) -> Result<Pid, AttachError> {
        let (pid, began) = (*search, self.began);
        self.clock += self.attach_cost;
        let (seq, now) = (self.due.0, self.clock - self.attach_cost);
        let process = &self.processes[&pid.as_u32()];
        let result = match process.program {
            _ if process.ended.is_some() => Err(AttachError::ProcessEnded(pid)),
            Program::Python { up_at } if up_at <= self.clock => Ok(pid),
            Program::Python { .. } => Err(AttachError::NotInitialised(pid)),
            Program::Other => {
                let (executable, what) = (String::new(), NotPython::NoModule);
                Err(AttachError::NotPython { pid, executable, what })
            }
            Program::Forbidden => Err(AttachError::NotPermitted(pid)),
            Program::Silent => Err(AttachError::NoAnswer(pid)),
        };
        let phase = self.phase(pid);
        match result {
            Ok(_) => phase.attached(seq),
            Err(AttachError::ProcessEnded(_)) if phase.is_single() => phase.found_ended(seq),
            Err(AttachError::ProcessEnded(_)) => phase.end = Some(began),
            Err(AttachError::NoAnswer(_)) => phase.silent_at(seq),
            Err(_) => phase.had_none(seq, now),
        }
        result
    }

    fn inherit(&mut self, (): &(), pid: Pid) -> Option<Pid> {
        let process = &self.processes[&pid.as_u32()];
        let is_up = matches!(process.program, Program::Python { up_at } if up_at <= self.clock);
        let is_there = process.ended.is_none() && process.is_fork && is_up;
        if is_there {
            let seq = self.due.0;
            self.phase(pid).attached(seq);
        }
        is_there.then_some(pid)
    }

    fn tick_period(&self) -> Option<Nanos> {
        None
    }

    fn begin(
        &mut self,
        target: Pid,
        process: ProcessId,
        _: Option<Timestamp>,
        _: &mut EventWriter<'_>,
    ) -> SimSampler {
        SimSampler::new(target, process)
    }

    fn sample(
        &mut self,
        sampler: &mut SimSampler,
        events: &mut EventWriter<'_>,
        now: Timestamp,
        _: Nanos,
    ) -> Sampled {
        let (pid, (seq, due)) = (sampler.pid, self.due);
        self.clock += LOOK_COST;
        let clock = self.clock;
        let process = self.processes.get_mut(&pid.as_u32()).unwrap();
        process.was_sampled = true;
        let (program, threads, is_over) = (process.program, process.threads, process.ended.is_some());
        if is_over {
            sampler.resolve_pending(events);
            self.phase(pid).found_ended(seq);
            return Sampled::Ended;
        }
        self.phase(pid).looked(due);
        match program {
            Program::Python { up_at } if up_at <= clock => {
                sampler.take(events, now, threads);
                self.more_samples += threads - 1;
                Sampled::Going
            }
            Program::Silent => {
                events.lose(LossReason::NoAnswer, sampler.scope(), now, 1);
                self.phase(pid).silent_at(seq);
                Sampled::Silent
            }
            _ => {
                events.lose(LossReason::NoRuntime, sampler.scope(), now, 1);
                self.phase(pid).lost_python(seq);
                Sampled::WithoutRuntime
            }
        }
    }

    fn pass_over(&mut self, sampler: &mut SimSampler, events: &mut EventWriter<'_>, due: Timestamp) {
        events.lose(LossReason::Late, sampler.scope(), due, 1);
    }

    fn collect_rest(&mut self, _: Pid, _: &mut dyn SamplersByPid<SimSampler>, _: &mut EventWriter<'_>) {}

    fn give_up(&mut self, mut sampler: SimSampler, events: &mut EventWriter<'_>, _: Timestamp) -> Nanos {
        sampler.resolve_pending(events);
        Nanos::from_nanos(7)
    }

    fn release_late(&mut self) {}

    fn stop(&mut self) {}

    fn release_all(&mut self) {}
}

fn pid_of(change: Change) -> Pid {
    match change {
        Change::Born { pid, .. } | Change::Executed { pid, .. } | Change::Ended { pid, .. } => pid,
    }
}
