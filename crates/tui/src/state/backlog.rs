//! The updates that wait while the view is frozen.

use std::collections::VecDeque;

use crate::Update;

/// The most samples that wait: an hour of a thread at 100 Hz is a third of it.
const MAX_HELD: usize = 1_000_000;

/// The updates that came in while the view was frozen, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    is_frozen: bool,
    held: VecDeque<Update>,
}

impl Backlog {
    pub fn is_frozen(&self) -> bool {
        self.is_frozen
    }

    pub fn set_frozen(&mut self, is_frozen: bool) {
        self.is_frozen = is_frozen;
    }

    pub fn push(&mut self, update: Update) {
        self.held.push_back(update);
    }

    /// Takes the oldest update.
    pub fn pop(&mut self) -> Option<Update> {
        self.held.pop_front()
    }

    /// Takes the oldest update if too many samples wait.
    pub fn pop_excess(&mut self) -> Option<Update> {
        let waiting: usize = self.held.iter().map(Update::len).sum();
        if waiting > MAX_HELD { self.pop() } else { None }
    }
}
