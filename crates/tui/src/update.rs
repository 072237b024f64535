//! What the sampling side hands to the live view: everything that is new in its profile since the last time.
//!
//! Frames, stacks, processes and threads come in the order of their handles, so that the view's own profile
//! gives them the same handles, and samples mean the same on both sides.

use std::sync::Arc;

use profiler_model::{Frame, Timestamp};
use profiler_profile::{FrameId, Ledger, ProcessInfo, Profile, Sample, StackId, ThreadInfo};

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
    /// New samples, in order of time.
    pub samples: Vec<Sample>,
    /// What threads were doing at instants at which all of a process were looked at, and what they used between them;
    /// `None` where each sample tells that as well.
    pub looks: Option<Vec<Sample>>,
    /// The ledger as it is now.
    pub ledger: Ledger,
    /// The resident memory of the targets in bytes, where it was looked at.
    pub memory: Option<u64>,
    /// Why sampling has ended, if it has.
    pub end: Option<String>,
}

impl Update {
    /// How many samples and looks it brings.
    pub(crate) fn len(&self) -> usize {
        self.samples.len() + self.looks.as_ref().map_or(0, Vec::len)
    }
}

/// Remembers what of a profile was handed over already.
#[derive(Debug, Default)]
pub struct Feed {
    frames: usize,
    stacks: usize,
    /// By process, whether its Python was known.
    processes: Vec<bool>,
    names: Vec<Option<Arc<str>>>,
}

impl Feed {
    /// What is new in the profile, which must [keep its recent samples](Profile::keep_recent) and be the same
    /// at every call.
    pub fn update(&mut self, profile: &mut Profile, at: Timestamp) -> Update {
        let mut stacks: Vec<_> = profile
            .stacks()
            .rev()
            .take(profile.stacks().len() - self.stacks)
            .map(|(_, parent, frame)| (parent, frame))
            .collect();
        stacks.reverse();
        let frames: Vec<Frame> = profile.frames().skip(self.frames).map(|(_, frame)| frame.clone()).collect();
        let processes = self.new_processes(profile);
        let threads = self.new_threads(profile);
        self.frames += frames.len();
        self.stacks += stacks.len();
        let mut samples = profile.take_recent();
        // Those of the CPUs' clocks and those from outside come one after the other.
        samples.sort_by_key(|sample| sample.at);
        let (looks, ledger) = (profile.take_looks(), profile.ledger().clone());
        Update { at, frames, stacks, processes, threads, samples, looks, ledger, memory: None, end: None }
    }

    fn new_processes(&mut self, profile: &Profile) -> Vec<ProcessInfo> {
        let was_known = std::mem::take(&mut self.processes);
        self.processes = profile.processes().map(|(_, process)| process.python_version.is_some()).collect();
        let has_news = |index: usize| was_known.get(index) != self.processes.get(index);
        let all = profile.processes().enumerate();
        all.filter(|(index, _)| has_news(*index)).map(|(_, (_, process))| process.clone()).collect()
    }

    fn new_threads(&mut self, profile: &Profile) -> Vec<ThreadInfo> {
        let mut new = Vec::new();
        for (id, thread) in profile.threads() {
            match self.names.get_mut(id.index()) {
                Some(known) if *known == thread.name => continue,
                Some(known) => known.clone_from(&thread.name),
                None => self.names.push(thread.name.clone()),
            }
            new.push(thread.clone());
        }
        new
    }
}
