//! A part of a profile: the samples that somebody wants to see, under the same handles.

use crate::handle::TallyId;
use crate::tally::TallyTable;
use crate::timeline::Timeline;
use crate::{Profile, Tally};

impl Profile {
    /// The samples that `wanted` wants, with all frames, stacks and threads under the handles that they have
    /// here. In the ledger, the others become samples that were not asked for.
    pub fn select(&self, wanted: impl Fn(&Tally) -> bool) -> Profile {
        let (tallies, timeline) = self.parts();
        let mut selected = TallyTable::default();
        let mut left_out = 0;
        let renamed: Vec<Option<TallyId>> = tallies
            .rows()
            .iter()
            .map(|tally| {
                if wanted(tally) {
                    return Some(selected.add(*tally));
                }
                left_out += tally.weights.samples;
                None
            })
            .collect();
        let timeline = timeline.map(|timeline| timeline.select(&renamed));
        let mut profile = self.with_samples(selected, timeline);
        profile.ledger_mut().leave_out(left_out);
        profile
    }

    /// The same frames, stacks, processes and threads under the same handles, no samples yet, and an empty
    /// timeline.
    pub fn without_samples(&self) -> Profile {
        let mut profile = self.with_samples(TallyTable::default(), Some(Timeline::default()));
        *profile.ledger_mut() = Default::default();
        profile
    }
}
