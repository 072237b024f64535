//! A stack as views draw it: its frames, and on top of them marks for what is known of the time beside it.

use profiler_model::ThreadState;
use profiler_profile::{Basis, Run, StackId, Tally};

/// What tells apart how samples are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DrawnStack {
    /// The frames below the marks.
    pub(crate) stack: Option<StackId>,
    marks: Option<Marks>,
}

/// The marks on top of a stack, as values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Marks {
    basis: Basis,
    /// What the thread waited for, where a mark says so.
    state: Option<ThreadState>,
}

impl DrawnStack {
    /// How the samples of a tally are drawn.
    pub(crate) fn of_tally(tally: &Tally) -> Self {
        DrawnStack { stack: tally.stack, marks: Marks::of(tally.basis, tally.state) }
    }

    /// How the samples of a run are drawn.
    pub(crate) fn of_run(run: &Run) -> Self {
        DrawnStack { stack: run.stack, marks: Marks::of(run.basis, run.state) }
    }

    /// The marks, if there are any.
    pub(crate) fn marks(self) -> Option<Marks> {
        self.marks
    }

    /// Whether there is neither a frame nor a mark.
    pub(crate) fn is_empty(self) -> bool {
        self.stack.is_none() && self.marks.is_none()
    }
}

impl Marks {
    fn of(basis: Basis, state: ThreadState) -> Option<Self> {
        match basis {
            Basis::Instant => None,
            Basis::Unsampled => Some(Marks { basis, state: None }),
            Basis::OffCpu | Basis::LostOffCpu(_) | Basis::ShortOffCpu => {
                Some(Marks { basis, state: Some(state) })
            }
        }
    }

    /// The names of the marks, outermost first.
    pub(crate) fn labels(self) -> Vec<String> {
        let origin = match self.basis {
            Basis::Instant | Basis::OffCpu => None,
            Basis::LostOffCpu(reason) => Some(format!("<stack lost: {reason}>")),
            Basis::ShortOffCpu => Some("<short waits>".to_owned()),
            Basis::Unsampled => Some("<running, not sampled>".to_owned()),
        };
        origin.into_iter().chain(self.state.map(|state| format!("<{state}>"))).collect()
    }
}
