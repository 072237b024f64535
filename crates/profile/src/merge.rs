//! Adding one profile to another: several targets, several windows of time, several recordings.

use crate::timeline::Entry;
use crate::{FrameId, ProcessId, Profile, StackId, Tally, ThreadId, ThreadInfo, Weights};

/// What the handles of the other profile are in this one, by index.
struct Mapping {
    stacks: Vec<StackId>,
    threads: Vec<ThreadId>,
}

impl Profile {
    /// Adds everything that `other` holds, its ledger included. Equal frames, stacks, processes and threads
    /// become one. A timeline is kept where this profile keeps one; samples of `other` that were taken
    /// without a timeline are then in the sums only.
    pub fn merge(&mut self, other: &Profile) {
        let mapping = self.map(other);
        for tally in other.tallies() {
            self.add_tally(mapping.tally(tally));
        }
        if self.keeps_timeline() {
            for (thread, _) in other.threads() {
                self.adopt_runs(other, thread, &mapping);
            }
        }
        self.ledger_mut().merge(other.ledger());
    }

    /// Adds the frames, stacks, processes and threads of `other`.
    fn map(&mut self, other: &Profile) -> Mapping {
        let frames: Vec<FrameId> = other.frames().map(|(_, frame)| self.frame(frame)).collect();
        let mut stacks: Vec<StackId> = Vec::with_capacity(other.stacks().len());
        for (_, parent, frame) in other.stacks() {
            let parent = parent.map(|parent| stacks[parent.index()]);
            stacks.push(self.push(parent, frames[frame.index()]));
        }
        let mut processes: Vec<ProcessId> = Vec::new();
        for (_, process) in other.processes() {
            let mut process = process.clone();
            process.parent = process.parent.map(|parent| processes[parent.index()]);
            processes.push(self.process(process));
        }
        let mut threads = Vec::new();
        for (_, thread) in other.threads() {
            let process = processes[thread.process.index()];
            threads.push(self.thread(ThreadInfo { process, ..thread.clone() }));
        }
        Mapping { stacks, threads }
    }

    fn adopt_runs(&mut self, other: &Profile, thread: ThreadId, mapping: &Mapping) {
        let Some(runs) = other.timeline(thread) else { return };
        let mut entries = Vec::new();
        for run in runs {
            // Its weights are in the sums already.
            let empty = Tally {
                thread: run.thread,
                stack: run.stack,
                state: run.state,
                holds_gil: run.holds_gil,
                weights: Weights::default(),
            };
            let tally = self.add_tally(mapping.tally(&empty));
            entries.extend(Entry::adopted(&run, tally));
        }
        self.adopt_entries(mapping.threads[thread.index()], entries);
    }
}

impl Mapping {
    /// A tally of the other profile in the handles of this one.
    fn tally(&self, tally: &Tally) -> Tally {
        Tally {
            thread: self.threads[tally.thread.index()],
            stack: tally.stack.map(|stack| self.stacks[stack.index()]),
            ..*tally
        }
    }
}
