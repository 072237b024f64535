//! What became of every attempt to sample a thread.

use profiler_model::{LossReason, Nanos};

use crate::Loss;

/// The attempts by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcomes {
    pub shown: u64,
    pub not_asked_for: u64,
    /// By reason.
    lost: [u64; LossReason::ALL.len()],
    pub lost_cpu: Nanos,
}

impl Outcomes {
    pub fn add_loss(&mut self, loss: &Loss) {
        self.lost[loss.reason as usize] += loss.count;
        self.lost_cpu += loss.cpu;
    }

    /// All attempts.
    pub fn attempts(&self) -> u64 {
        self.shown + self.not_asked_for + self.lost()
    }

    pub fn lost(&self) -> u64 {
        self.lost.iter().sum()
    }

    pub fn lost_for(&self, reason: LossReason) -> u64 {
        self.lost[reason as usize]
    }

    /// Counts this many of the shown samples as not asked for.
    pub fn leave_out(&mut self, samples: u64) {
        let left_out = samples.min(self.shown);
        self.shown -= left_out;
        self.not_asked_for += left_out;
    }

    /// What was counted since the outcomes were as `earlier`.
    pub fn since(&self, earlier: &Outcomes) -> Outcomes {
        let mut lost = self.lost;
        lost.iter_mut().zip(earlier.lost).for_each(|(now, before)| *now = now.saturating_sub(before));
        Outcomes {
            shown: self.shown.saturating_sub(earlier.shown),
            not_asked_for: self.not_asked_for.saturating_sub(earlier.not_asked_for),
            lost,
            lost_cpu: self.lost_cpu.saturating_sub(earlier.lost_cpu),
        }
    }

    /// Adds what another run counted.
    pub fn merge(&mut self, other: &Outcomes) {
        self.shown += other.shown;
        self.not_asked_for += other.not_asked_for;
        self.lost.iter_mut().zip(other.lost).for_each(|(own, others)| *own += others);
        self.lost_cpu += other.lost_cpu;
    }
}
