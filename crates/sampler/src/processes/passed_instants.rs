//! Instants at which no process was looked at, and processes that ended before they could be looked at for all instants of their
//! lives.
//!
//! Instants are counted once it is known which processes lived then: when the changes of the tree up to them were read. A
//! process that has ended is kept until all instants of its life have been counted, as a sampler that is late looks at instants
//! one by one that have passed long ago.

use profiler_model::{LossReason, Timestamp};
use profiler_profile::{Renaming, Scope};

use crate::event_writer::EventWriter;

/// Instants that wait to be counted: a minute at 1 kHz. More of them are counted at once, by what is known.
const MAX_LEFT_OUT: usize = 60_000;

/// An instant at which no process was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The instant.
    pub at: Timestamp,
    /// Why.
    pub reason: LossReason,
}

/// A Python that cannot be looked at any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GonePython {
    /// The process.
    pub scope: Scope,
    /// Why its instants are lost.
    pub reason: LossReason,
    /// It lived after this instant ...
    pub since: Timestamp,
    /// ... and up to this one.
    pub until: Timestamp,
}

/// What is still to be counted.
#[derive(Debug, Default)]
pub struct PassedInstants {
    left_out: Vec<LeftOut>,
    gone: Vec<GonePython>,
}

impl PassedInstants {
    /// Keeps an instant that has passed.
    pub fn leave_out(&mut self, instant: LeftOut) {
        self.left_out.push(instant);
    }

    /// Whether no more instants are to be kept.
    pub fn is_full(&self) -> bool {
        self.left_out.len() >= MAX_LEFT_OUT
    }

    /// Takes the instants up to `until`, in order.
    pub fn take_left_out(&mut self, until: Timestamp) -> Vec<LeftOut> {
        let mut taken: Vec<LeftOut> = self.left_out.extract_if(.., |instant| instant.at <= until).collect();
        taken.sort_by_key(|instant| instant.at);
        taken
    }

    /// Keeps a Python until all instants of its life are counted.
    pub fn keep_gone(&mut self, gone: GonePython) {
        self.gone.push(gone);
    }

    /// Counts the instant `at` for those that lived then.
    pub fn count_gone(&self, events: &mut EventWriter<'_>, at: Timestamp) {
        for gone in self.gone.iter().filter(|gone| gone.since < at && at <= gone.until) {
            events.lose(gone.reason, gone.scope, at, 1);
        }
    }

    /// Forgets those that ended up to `at`: all instants up to it have been counted.
    pub fn forget_gone(&mut self, at: Timestamp) {
        self.gone.retain(|gone| gone.until > at);
    }

    /// Gives what is kept its ids in the next dictionary.
    pub fn rename(&mut self, renaming: &mut Renaming<'_>) {
        for gone in &mut self.gone {
            if let Scope::Process(process) = &mut gone.scope {
                *process = renaming.process(*process);
            }
        }
    }
}
