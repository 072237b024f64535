//! What was sampled, and the sums of what is selected of it.

use profiler_model::Nanos;
use profiler_profile::{Profile, Tally, ThreadId};

use super::cost::Into;
use super::sampled::{IntervalEnd, Sampled};
use super::selection::Selection;
use super::tables::Tables;
use crate::Update;

/// The samples, which of them are selected, and what the selected ones cost.
#[derive(Debug)]
pub(super) struct Sums {
    pub sampled: Sampled,
    selection: Selection,
    pub tables: Tables,
}

impl Sums {
    /// Nothing yet. Intervals are to be this long.
    pub fn new(interval: Nanos, selection: Selection, full_filenames: bool) -> Self {
        Sums { sampled: Sampled::new(interval), selection, tables: Tables::new(full_filenames) }
    }

    pub fn profile(&self) -> &Profile {
        self.sampled.profile()
    }

    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Takes in what is new. Returns how an interval has ended, if one has.
    pub fn take_in(&mut self, update: Update) -> Option<IntervalEnd> {
        let Sums { sampled, selection, tables } = self;
        update.frames.iter().for_each(|frame| tables.push_frame(frame));
        update.stacks.iter().for_each(|(parent, frame)| tables.push_stack(*parent, *frame));
        let end = sampled.take_in(update, |profile, tally| {
            if selection.includes(tally) {
                tables.add(profile, tally.stack, tally.weights, Into::StartAndCurrent);
            }
        });
        match end {
            None => {}
            Some(IntervalEnd::Whole) => self.tables.roll(),
            Some(IntervalEnd::Joined) => self.sum_anew(),
        }
        end
    }

    /// Changes the selection, and sums anew.
    pub fn select(&mut self, change: impl FnOnce(&mut Selection)) {
        change(&mut self.selection);
        self.sum_anew();
    }

    /// Selects the next thread, after the last one all threads.
    pub fn select_next_thread(&mut self) {
        self.selection.select_next(self.sampled.profile().threads().map(|(id, _)| id));
        self.sum_anew();
    }

    /// Forgets the samples and the ledger up to now.
    pub fn reset(&mut self) {
        self.sampled.reset();
        self.tables.clear();
    }

    /// The function that a thread was in last.
    pub fn current_function(&self, thread: ThreadId) -> Option<u32> {
        let stack = self.sampled.activity().thread(thread).last?.stack?;
        self.tables.innermost_function(self.profile(), stack)
    }

    fn sum_anew(&mut self) {
        let Sums { sampled, selection, tables } = self;
        let profile = sampled.profile();
        let is_selected = |tally: &Tally| selection.includes(tally);
        tables.clear();
        tables.add_all(profile, profile.tallies().iter().copied().filter(is_selected), Into::Start);
        tables.add_all(profile, sampled.recent().filter(is_selected), Into::Current);
        tables.roll();
        tables.add_all(profile, sampled.current().filter(is_selected), Into::Current);
    }
}
