//! One process of a session: which instants count for it, and what became of it.

use profiler_model::{Nanos, Pid, Timestamp};
use profiler_profile::{ProcessCounts, ProcessId, Renaming, Scope, Skip};
use profiler_target::AttachError;

use super::host::{ProcessHost, ProcessSampling, RuntimeOf};
use super::pending::{NativeTime, PendingAttach};
use crate::event_writer::EventWriter;

/// How a process came to be sampled.
#[derive(Clone, Copy, Debug)]
pub enum Origin {
    /// It was added by itself.
    Added {
        /// Whether its descendants are sampled, too.
        with_descendants: bool,
    },
    /// It descends from one that was added.
    Descendant {
        /// That one.
        root: Pid,
        /// The process that started it.
        parent: Pid,
        /// When it was born, if that was while its tree was watched.
        born: Option<Timestamp>,
    },
}

/// A process.
#[derive(Debug)]
pub struct TrackedProcess<H: ProcessHost> {
    /// The process that was added and from which it descends; `None` if it was added itself.
    root: Option<Pid>,
    /// Whether it was added by itself, so that its samples are lost as long as it has no Python.
    is_single: bool,
    /// The process that started it, as long as that is there.
    pub parent: Option<Pid>,
    /// The parent in the dictionary, once the parent is gone.
    pub parent_process: Option<ProcessId>,
    /// The process in the dictionary, once it is there.
    pub process: Option<ProcessId>,
    /// When it was born, if that was while it was watched and it has not been sampled yet.
    pub born: Option<Timestamp>,
    /// When it was started, in the kernel's ticks: what tells it from a later one of the same number.
    pub start_time: Option<u64>,
    /// The runtime that it has from the process that forked it.
    pub inherited: Option<RuntimeOf<H>>,
    /// Which instants count for it.
    pub life: Life,
    /// Whether a thread of it was found by a sampler.
    pub was_sampled: bool,
    /// What is being done with it.
    pub state: MemberState<H>,
}

/// What is being done with a process.
#[derive(Debug)]
pub enum MemberState<H: ProcessHost> {
    /// Its Python is sampled.
    Sampled(Box<H::Sampler>),
    /// Its Python is looked for.
    Pending(PendingAttach<H::Search>),
}

/// The instants that count for a process.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// It is watched since this instant: its birth, or the moment at which it was found.
    pub since: Timestamp,
    /// When it began to run this program, if that was while it was watched.
    pub executed: Option<Timestamp>,
    /// The instants after this one count for this program, once its Python was found.
    pub python_since: Option<Timestamp>,
}

impl Life {
    /// A process that is watched since `since`.
    pub fn since(since: Timestamp) -> Self {
        Life { since, executed: None, python_since: None }
    }

    /// Its program is watched since this instant.
    pub fn program_since(&self) -> Timestamp {
        self.executed.unwrap_or(self.since)
    }

    /// Whether the instant `at` was one of another program of this process.
    pub fn is_before_program(&self, at: Timestamp) -> bool {
        self.executed.is_some_and(|executed| at <= executed)
    }
}

impl<H: ProcessHost> TrackedProcess<H> {
    /// A process that was not looked at, and had used `cpu` that belongs to nobody.
    pub fn new(search: H::Search, origin: Origin, now: Timestamp, cpu: Nanos) -> Self {
        let (root, parent, born) = match origin {
            Origin::Added { .. } => (None, None, None),
            Origin::Descendant { root, parent, born } => (Some(root), Some(parent), born),
        };
        let since = born.unwrap_or(now);
        TrackedProcess {
            root,
            is_single: matches!(origin, Origin::Added { with_descendants: false }),
            parent,
            parent_process: None,
            process: None,
            born,
            start_time: None,
            inherited: None,
            life: Life::since(since),
            was_sampled: false,
            state: MemberState::Pending(PendingAttach::new(search, since, cpu, false)),
        }
    }

    /// Whether it was added, and does not descend from one that was.
    pub fn was_added(&self) -> bool {
        self.root.is_none()
    }

    /// Whether this process with the id `pid` is `root` or descends from it.
    pub fn descends_from(&self, pid: Pid, root: Pid) -> bool {
        self.root.unwrap_or(pid) == root
    }

    /// Whether its samples are lost as long as it has no Python. A process of a tree that has none is only counted.
    pub fn needs_python(&self) -> bool {
        self.is_single
    }

    /// Instants at which the process was not looked at count for it after this one.
    pub fn left_out_since(&self) -> Timestamp {
        match self.needs_python() {
            true => self.life.since,
            false => self.life.python_since.unwrap_or(self.life.program_since()),
        }
    }

    /// What its forks share with it, if that is known.
    pub fn runtime(&self) -> Option<RuntimeOf<H>> {
        match &self.state {
            MemberState::Sampled(sampler) => sampler.runtime(),
            MemberState::Pending(_) => self.inherited.clone(),
        }
    }

    /// The search for its Python, if it has none that is known.
    pub fn pending(&mut self) -> Option<&mut PendingAttach<H::Search>> {
        match &mut self.state {
            MemberState::Pending(pending) => Some(pending),
            MemberState::Sampled(_) => None,
        }
    }

    /// Reports what its threads have run without Python, at its end or that of its program: they were not to be sampled.
    pub fn report_native(&mut self, events: &mut EventWriter<'_>) {
        let scope = self.scope();
        if let Some(pending) = self.pending() {
            let NativeTime { ticks, cpu, last } = pending.take_native();
            events.skip_with(Skip { cpu, wall: cpu, ..Skip::of(scope, last, ticks) });
        }
    }

    /// Its sampler, if it is sampled.
    pub fn sampler(&mut self) -> Option<&mut H::Sampler> {
        match &mut self.state {
            MemberState::Sampled(sampler) => Some(sampler),
            MemberState::Pending(_) => None,
        }
    }

    /// Whether it is sampled.
    pub fn is_sampled(&self) -> bool {
        matches!(self.state, MemberState::Sampled(_))
    }

    /// Whether its memory does not answer.
    pub fn is_silent(&self) -> bool {
        matches!(&self.state, MemberState::Pending(pending) if pending.is_silent())
    }

    /// Whether it has been a Python for as long as it runs this program, or is one that starts: what was missed of it is lost.
    pub fn owes_all_instants(&self) -> bool {
        let is_new_program = matches!(&self.state, MemberState::Pending(pending) if pending.is_new_program);
        is_new_program || self.inherited.is_some() || self.life.python_since.is_some()
    }

    /// Whether it is the process that was started at this time, and no later one with its number.
    pub fn is_started_at(&mut self, start_time: Option<u64>) -> bool {
        self.start_time = self.start_time.or(start_time);
        self.start_time == start_time
    }

    /// The process, as what events are about.
    pub fn scope(&self) -> Scope {
        self.process.map_or(Scope::Session, Scope::Process)
    }

    /// Counts the process by what became of it.
    pub fn count(&self, counts: &mut ProcessCounts) {
        match &self.state {
            _ if self.was_sampled => counts.sampled += 1,
            MemberState::Sampled(_) => counts.missed += 1,
            MemberState::Pending(PendingAttach { why: None, .. }) => counts.missed += 1,
            // It was a Python like its parent, and just about to be gone.
            MemberState::Pending(_) if self.inherited.is_some() => counts.missed += 1,
            MemberState::Pending(PendingAttach { why: Some(AttachError::NotPermitted(_)), .. }) => {
                counts.not_permitted += 1;
            }
            MemberState::Pending(_) => counts.without_python += 1,
        }
    }

    /// Gives what is kept its ids in the next dictionary.
    pub fn rename(&mut self, renaming: &mut Renaming<'_>) {
        self.process = self.process.map(|process| renaming.process(process));
        self.parent_process = self.parent_process.map(|process| renaming.process(process));
        if let Some(sampler) = self.sampler() {
            sampler.rename(renaming);
        }
    }
}
