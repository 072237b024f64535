//! The counts of the ledger as JSON, for scripts: the same in every JSON format of a profile.

use profiler_model::LossReason;
use profiler_profile::Ledger;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// The counts of the ledger.
#[derive(Serialize)]
pub(crate) struct LedgerView<'a> {
    attempts: u64,
    shown: u64,
    not_asked_for: u64,
    lost: Losses<'a>,
    /// Of stacks that are shown.
    #[serde(skip_serializing_if = "is_zero")]
    without_kernel_frames: u64,
}

/// What most profiles have none of is not told.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl<'a> LedgerView<'a> {
    pub(crate) fn new(ledger: &'a Ledger) -> Self {
        LedgerView {
            attempts: ledger.attempts(),
            shown: ledger.shown(),
            not_asked_for: ledger.not_asked_for(),
            lost: Losses(ledger),
            without_kernel_frames: ledger.without_kernel_frames(),
        }
    }
}

/// The losses by reason, those that occurred.
struct Losses<'a>(&'a Ledger);

impl Serialize for Losses<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let losses: Vec<(LossReason, u64)> = self.0.losses();
        let mut map = serializer.serialize_map(Some(losses.len()))?;
        for (reason, times) in losses {
            map.serialize_entry(&reason.to_string(), &times)?;
        }
        map.end()
    }
}
