//! What the sampling side hands to the live view: everything that is new since the last time.
//!
//! Frames, stacks, processes and threads come in the order of their ids, so that the view's own profile gives them the same
//! ids, and events mean the same on both sides. The dictionary is never replaced.

use std::collections::BTreeSet;
use std::sync::Arc;

use profiler_model::{Frame, Pid, Timestamp};
use profiler_profile::{Dictionary, Event, FrameId, ProcessInfo, Sink, StackId, ThreadInfo};

/// What is new.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// When it was put together.
    pub at: Timestamp,
    /// New frames.
    pub frames: Vec<Frame>,
    /// New stacks: what each stands on, and its innermost frame.
    pub stacks: Vec<(Option<StackId>, FrameId)>,
    /// New processes, and those whose Python has become known.
    pub processes: Vec<ProcessInfo>,
    /// New threads, and those that have a new name.
    pub threads: Vec<ThreadInfo>,
    /// What happened, in order of time.
    pub events: Vec<Event>,
    /// The resident memory of the targets in bytes, where it was looked at.
    pub memory: Option<u64>,
    /// Why sampling has ended, if it has.
    pub end: Option<String>,
}

impl Update {
    /// How many events it brings.
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }
}

/// Collects what the view is to be handed, and remembers what of the dictionary was handed over already.
#[derive(Debug, Default)]
pub struct Feed {
    pending: Update,
    frames: usize,
    stacks: usize,
    /// By process, whether its Python was known.
    processes: Vec<bool>,
    names: Vec<Option<Arc<str>>>,
    revision: u64,
    pids: BTreeSet<Pid>,
}

impl Feed {
    /// What is new since the last time.
    pub fn update(&mut self, at: Timestamp) -> Update {
        let mut update = std::mem::take(&mut self.pending);
        // Those of the CPUs' clocks and those from outside come one after the other.
        update.events.sort_by_key(Event::at);
        Update { at, ..update }
    }

    /// The ids of all processes. One that has become another program is in the dictionary twice.
    pub fn pids(&self) -> &BTreeSet<Pid> {
        &self.pids
    }

    fn take_processes(&mut self, dictionary: &Dictionary) {
        for (id, process) in dictionary.processes() {
            let has_python = process.python_version.is_some();
            match self.processes.get_mut(id.index()) {
                Some(known) if *known == has_python => continue,
                Some(known) => *known = has_python,
                None => self.processes.push(has_python),
            }
            self.pids.insert(process.pid);
            self.pending.processes.push(process.clone());
        }
    }

    fn take_threads(&mut self, dictionary: &Dictionary) {
        for (id, thread) in dictionary.threads() {
            match self.names.get_mut(id.index()) {
                Some(known) if *known == thread.name => continue,
                Some(known) => known.clone_from(&thread.name),
                None => self.names.push(thread.name.clone()),
            }
            self.pending.threads.push(thread.clone());
        }
    }
}

impl Sink for Feed {
    fn take(&mut self, dictionary: &Dictionary, events: &[Event]) {
        let pending = &mut self.pending;
        pending.frames.extend(dictionary.frames().skip(self.frames).map(|(_, frame)| frame.clone()));
        let stacks = dictionary.stacks().skip(self.stacks);
        pending.stacks.extend(stacks.map(|(_, parent, frame)| (parent, frame)));
        (self.frames, self.stacks) = (dictionary.frames().len(), dictionary.stacks().len());
        let has_news = std::mem::replace(&mut self.revision, dictionary.revision()) != self.revision;
        if has_news || self.processes.len() != dictionary.processes().len() {
            self.take_processes(dictionary);
        }
        if has_news || self.names.len() != dictionary.threads().len() {
            self.take_threads(dictionary);
        }
        self.pending.events.extend_from_slice(events);
    }

    fn wants_looks(&self) -> bool {
        true
    }
}
