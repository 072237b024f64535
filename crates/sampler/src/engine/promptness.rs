//! How the sampling thread gets its CPU in time: by real-time priority, as long as the limit of CPU time allows it, and by a larger
//! share of its CPU otherwise.

use profiler_model::Timestamp;
use profiler_os::priority::{self, LargerShare, SchedulingClass};
use profiler_profile::{MarkKind, Scope};

use crate::event_writer::EventWriter;

/// The priority of the sampling thread.
#[derive(Debug, Default)]
pub struct Promptness {
    /// What ordinary work gets of its CPU while real-time priority is given up for it.
    share: Option<LargerShare>,
}

impl Promptness {
    /// Has the calling thread go ahead of ordinary work, as far as is permitted, and have a larger share than others whenever it
    /// does not.
    pub fn take(&mut self) -> SchedulingClass {
        self.take_share();
        priority::want_promptness()
    }

    /// Has the calling thread have a larger share than others.
    pub fn take_share(&mut self) {
        self.share = LargerShare::take();
    }

    /// Gives up both.
    pub fn leave(&mut self, events: &mut EventWriter<'_>, now: Timestamp) {
        if priority::leave_real_time() {
            events.mark(Scope::Session, now, MarkKind::RealTimeLeft);
        }
        self.share = None;
    }
}
