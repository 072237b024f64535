//! The ledger since the last reset.

use profiler_profile::{Event, Ledger};

/// The ledger of the whole run, and what of it does not count since the last reset.
#[derive(Clone, Debug, Default)]
pub(super) struct ResetLedger {
    whole: Ledger,
    /// The ledger at the last reset.
    before: Ledger,
    /// The samples that came in while the view was paused, since the last reset.
    left_out: u64,
}

impl ResetLedger {
    pub fn add(&mut self, event: &Event) {
        self.whole.add(event);
    }

    /// Counts a sample that came in while the view was paused.
    pub fn leave_out(&mut self) {
        self.left_out += 1;
    }

    /// The ledger of the whole run.
    pub fn whole(&self) -> &Ledger {
        &self.whole
    }

    /// The ledger since the last reset.
    pub fn since_reset(&self) -> Ledger {
        let mut ledger = self.whole.since(&self.before);
        ledger.leave_out(self.left_out);
        ledger
    }

    pub fn reset(&mut self) {
        self.before = self.whole.clone();
        self.left_out = 0;
    }
}
