//! Which samples the sums are made of.

use profiler_profile::{Tally, ThreadId};

/// The samples that the user has selected.
#[derive(Clone, Copy, Debug)]
pub struct Selection {
    /// Whether samples of threads that wait are included.
    pub include_idle: bool,
    /// Whether only samples with the GIL are selected.
    pub gil_only: bool,
    /// The only thread that is selected; all threads if there is none.
    pub thread: Option<ThreadId>,
}

impl Selection {
    /// Whether samples of this kind are selected.
    pub(super) fn includes(&self, tally: &Tally) -> bool {
        self.thread.is_none_or(|thread| thread == tally.thread)
            && (self.include_idle || tally.state.is_running())
            && (!self.gil_only || tally.holds_gil)
    }

    /// Selects the first of these threads, then the next one each time, then all of them.
    pub(super) fn select_next(&mut self, mut threads: impl Iterator<Item = ThreadId>) {
        self.thread = match self.thread {
            None => threads.next(),
            Some(present) => threads.skip_while(|id| *id != present).nth(1),
        };
    }

    /// Selects one thread, or all threads if it was the selected one already.
    pub(super) fn switch_thread(&mut self, thread: Option<ThreadId>) {
        self.thread = if self.thread == thread { None } else { thread };
    }
}
