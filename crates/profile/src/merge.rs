//! Adding one profile to another: several targets, several windows of time, several recordings.

use crate::mapping::Mapping;
use crate::timeline::Entry;
use crate::{Profile, Tally, ThreadId, Weights};

impl Profile {
    /// Adds everything that `other` holds, its ledger included. Equal frames, stacks, processes and threads
    /// become one. A timeline is kept where this profile keeps one; samples of `other` that were taken
    /// without a timeline are then in the sums only.
    pub fn merge(&mut self, other: &Profile) {
        let mut mapping = Mapping::default();
        mapping.extend(self.dictionary_mut(), other.dictionary());
        self.merge_by(other, mapping);
    }

    /// The same with the ids of `other` in this profile.
    pub(crate) fn merge_by(&mut self, other: &Profile, mapping: Mapping) {
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

    fn adopt_runs(&mut self, other: &Profile, thread: ThreadId, mapping: &Mapping) {
        let Some(runs) = other.timeline(thread) else { return };
        let mut entries = Vec::new();
        for run in runs {
            // Its weights are in the sums already.
            let empty = Tally {
                thread: run.thread,
                stack: run.stack,
                basis: run.basis,
                state: run.state,
                holds_gil: run.holds_gil,
                weights: Weights::default(),
            };
            let tally = self.add_tally(mapping.tally(&empty));
            entries.extend(Entry::adopted(&run, tally));
        }
        self.adopt_entries(mapping.thread(thread), entries);
    }
}
