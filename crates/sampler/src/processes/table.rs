//! The table of the processes of a session: by their ids, in the order in which they are looked at, with their parents.

use std::collections::HashMap;

use profiler_model::{Pid, Timestamp};
use profiler_profile::{ProcessId, ProcessInfo, Renaming, Scope};

use super::host::{ProcessHost, ProcessSampling, RuntimeOf, SamplersByPid};
use super::member::{MemberState, TrackedProcess};
use super::pending::NativeTime;
use crate::event_writer::EventWriter;

/// The processes of a session.
#[derive(Debug)]
pub struct ProcessTable<H: ProcessHost> {
    members: HashMap<Pid, TrackedProcess<H>>,
    /// In the order in which they are looked at. Another one is the first at each instant.
    order: Vec<Pid>,
    turn: usize,
}

impl<H: ProcessHost> Default for ProcessTable<H> {
    fn default() -> Self {
        ProcessTable { members: HashMap::new(), order: Vec::new(), turn: 0 }
    }
}

impl<H: ProcessHost> ProcessTable<H> {
    /// Adds a process.
    pub fn add(&mut self, pid: Pid, member: TrackedProcess<H>) {
        if self.members.insert(pid, member).is_none() {
            self.order.push(pid);
        }
    }

    /// Removes a process. In the dictionary its children stay its children: `process` is its id there.
    pub fn remove(&mut self, pid: Pid, process: Option<ProcessId>) -> Option<TrackedProcess<H>> {
        let member = self.members.remove(&pid)?;
        for orphan in self.members.values_mut().filter(|other| other.parent == Some(pid)) {
            (orphan.parent, orphan.parent_process) = (None, process);
        }
        self.order.retain(|other| *other != pid);
        Some(member)
    }

    /// Removes all processes.
    pub fn take_all(&mut self) -> impl Iterator<Item = TrackedProcess<H>> + use<H> {
        self.order.clear();
        std::mem::take(&mut self.members).into_values()
    }

    /// A process.
    pub fn get(&self, pid: Pid) -> Option<&TrackedProcess<H>> {
        self.members.get(&pid)
    }

    /// A process.
    pub fn get_mut(&mut self, pid: Pid) -> Option<&mut TrackedProcess<H>> {
        self.members.get_mut(&pid)
    }

    /// All processes.
    pub fn members(&self) -> impl Iterator<Item = &TrackedProcess<H>> {
        self.members.values()
    }

    /// All processes with their ids.
    pub fn members_mut(&mut self) -> impl Iterator<Item = (Pid, &mut TrackedProcess<H>)> {
        self.members.iter_mut().map(|(pid, member)| (*pid, member))
    }

    /// The samplers of those that are sampled.
    pub fn samplers(&mut self) -> impl Iterator<Item = &mut H::Sampler> {
        self.members.values_mut().filter_map(TrackedProcess::sampler)
    }

    /// The number of processes.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// The ids of all processes.
    pub fn pids(&self) -> Vec<Pid> {
        self.order.clone()
    }

    /// A process that was added, if it is there, and its descendants.
    pub fn descended_from(&self, root: Pid) -> Vec<Pid> {
        let descends = |pid: &Pid| self.members[pid].descends_from(*pid, root);
        self.order.iter().copied().filter(descends).collect()
    }

    /// The same in the order in which the processes are looked at at the next instant.
    pub fn next_turn(&mut self) -> Vec<Pid> {
        self.turn = self.turn.wrapping_add(1);
        let mut order = self.order.clone();
        let first = self.turn % order.len().max(1);
        order.rotate_left(first);
        order
    }

    /// How many processes are sampled.
    pub fn sampled(&self) -> usize {
        self.members().filter(|member| member.is_sampled()).count()
    }

    /// Whether any process has been sampled so far.
    pub fn was_any_sampled(&self) -> bool {
        self.members().any(|member| member.was_sampled)
    }

    /// A sampler was asked for samples of a process: notes whether it can take some.
    pub fn note_sampled(&mut self, pid: Pid) {
        if let Some(member) = self.get_mut(pid)
            && let MemberState::Sampled(sampler) = &member.state
        {
            member.was_sampled |= sampler.was_met();
        }
    }

    /// The first process whose memory does not answer.
    pub fn silent(&self) -> Option<Pid> {
        self.order.iter().copied().find(|pid| self.get(*pid).is_some_and(TrackedProcess::is_silent))
    }

    /// When a process that has no Python yet is looked at next.
    pub fn next_attempt(&self) -> Timestamp {
        let pending = self.members().filter_map(|member| match &member.state {
            MemberState::Pending(pending) => Some(pending.next()),
            MemberState::Sampled(_) => None,
        });
        pending.min().unwrap_or(Timestamp::MAX)
    }

    /// Counts an instant at which no process was looked at. Calls `lose` for those for which it is certainly lost; of the others it is
    /// not known yet whether they are Pythons.
    pub fn count_left_out(&mut self, at: Timestamp, lose: &mut dyn FnMut(Scope)) {
        for member in self.members.values_mut() {
            let since = member.left_out_since();
            let (scope, needs_python) = (member.scope(), member.needs_python());

            match &mut member.state {
                _ if since >= at => {}
                MemberState::Sampled(_) => lose(scope),
                MemberState::Pending(pending) if needs_python && !pending.is_silent() => lose(scope),
                MemberState::Pending(pending) => pending.count(at, 1),
            }
        }
    }

    /// What a process may share with the one that forked it.
    pub fn runtime_for(&self, pid: Pid) -> Option<RuntimeOf<H>> {
        let member = self.get(pid)?;
        let is_new_program = matches!(&member.state, MemberState::Pending(pending) if pending.is_new_program);
        if is_new_program {
            return None;
        }
        let of_parent = || self.get(member.parent?)?.runtime();
        member.inherited.clone().or_else(of_parent)
    }

    /// The process, as what events are about.
    pub fn scope_of(&self, pid: Pid) -> Scope {
        self.get(pid).map_or(Scope::Session, TrackedProcess::scope)
    }

    /// The process in the dictionary, if a child of it is there: as a process without Python, if it is not there yet.
    pub fn process_of_parent(
        &mut self,
        host: &H,
        events: &mut EventWriter<'_>,
        pid: Pid,
    ) -> Option<ProcessId> {
        let has_children = self.members().any(|other| other.parent == Some(pid));
        has_children.then(|| self.process_id(host, events, pid))
    }

    /// The process in the dictionary; if it is not there yet, as a process without Python.
    pub fn process_id(&mut self, host: &H, events: &mut EventWriter<'_>, pid: Pid) -> ProcessId {
        let mut line = vec![pid];
        while let Some(member) = self.get(line[line.len() - 1])
            && let (None, Some(parent)) = (member.process, member.parent)
            && self.members.contains_key(&parent)
            && !line.contains(&parent)
        {
            line.push(parent);
        }
        let mut describe =
            |pid, parent| events.dictionary.process(ProcessInfo { parent, ..host.describe(pid) });
        let mut parent = None;
        for pid in line.into_iter().rev() {
            let Some(member) = self.get_mut(pid) else { continue };
            let above = parent.or(member.parent_process);
            parent = Some(*member.process.get_or_insert_with(|| describe(pid, above)));
        }
        parent.unwrap_or_else(|| describe(pid, None))
    }

    /// Gives what is kept its ids in the next dictionary.
    pub fn rename(&mut self, renaming: &mut Renaming<'_>) {
        self.members.values_mut().for_each(|member| member.rename(renaming));
    }
}

impl<H: ProcessHost> SamplersByPid<H::Sampler> for ProcessTable<H> {
    fn sampler_of(&mut self, pid: Pid) -> Option<&mut H::Sampler> {
        self.get_mut(pid)?.sampler()
    }

    fn count_native(&mut self, pid: Pid, native: NativeTime) -> bool {
        let pending = self.get_mut(pid).and_then(TrackedProcess::pending);
        pending.map(|pending| pending.count_native(native)).is_some()
    }
}
