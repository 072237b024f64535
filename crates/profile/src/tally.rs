//! Samples summed by what makes them equal: thread, stack, basis, state and GIL. When they were taken is lost here;
//! `timeline` keeps it where it is asked for.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use profiler_model::ThreadState;
use rustc_hash::FxBuildHasher;

use crate::handle::TallyId;
use crate::{Basis, Sample, StackId, ThreadId, Weights};

/// All samples of one thread that had one stack in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Whose.
    pub thread: ThreadId,
    /// The stack, or `None` where the thread had no frame.
    pub stack: Option<StackId>,
    /// What is known of the time beside the stack.
    pub basis: Basis,
    /// What the thread was doing.
    pub state: ThreadState,
    /// Whether it held the GIL.
    pub holds_gil: bool,
    /// What the samples stand for together.
    pub weights: Weights,
}

impl Tally {
    /// The tally of one sample with that basis.
    pub const fn of(sample: &Sample, basis: Basis) -> Self {
        Tally {
            thread: sample.thread,
            stack: sample.stack,
            basis,
            state: sample.state,
            holds_gil: sample.holds_gil,
            weights: Weights::of(sample),
        }
    }

    /// What makes two samples equal.
    fn key(&self) -> (ThreadId, Option<StackId>, Basis, ThreadState, bool) {
        (self.thread, self.stack, self.basis, self.state, self.holds_gil)
    }
}

/// The tallies of a profile in order of first appearance.
#[derive(Clone, Debug, Default)]
pub(crate) struct TallyTable {
    rows: Vec<Tally>,
    index: HashTable<TallyId>,
}

impl TallyTable {
    /// Adds a tally to the one it equals. Returns which one that is.
    pub(crate) fn add(&mut self, tally: Tally) -> TallyId {
        let hash = FxBuildHasher.hash_one(tally.key());
        let rows = &mut self.rows;
        if let Some(&known) = self.index.find(hash, |id| rows[id.index()].key() == tally.key()) {
            rows[known.index()].weights += tally.weights;
            return known;
        }
        let id = TallyId::new(rows.len());
        rows.push(tally);
        self.index.insert_unique(hash, id, |id| FxBuildHasher.hash_one(rows[id.index()].key()));
        id
    }

    /// All tallies.
    pub(crate) fn rows(&self) -> &[Tally] {
        &self.rows
    }
}
