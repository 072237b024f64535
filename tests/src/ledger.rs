//! The ledger of a recording, from the JSON that `record --ledger-json` or a format of `record` writes. This is its only
//! reader in the tests: nothing reads the words of the closing lines.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

/// What became of every attempt to take a sample, and what the recording cost.
///
/// The formats carry the counts only; everything else is zero then.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Ledger {
    /// All attempts.
    pub attempts: u64,
    /// The samples that are shown.
    pub shown: u64,
    /// Those that succeeded, but were not asked for.
    pub not_asked_for: u64,
    /// Those that are missing, by reason.
    pub lost: BTreeMap<String, u64>,
    /// Stacks that lack their frames of the kernel.
    #[serde(default)]
    pub without_kernel_frames: u64,
    /// CPU time of the target that lost samples stand for, in seconds.
    #[serde(default)]
    pub lost_cpu: f64,
    /// For how long was sampled, in seconds.
    #[serde(default)]
    pub duration: f64,
    /// For how long in the beginning there was no Python yet, in seconds.
    #[serde(default)]
    pub before_python: f64,
    /// Stops of threads of the target.
    #[serde(default)]
    pub stops: Times,
    /// Times for which threads of the target were held up inside the kernel.
    #[serde(default)]
    pub interruptions: Times,
    /// CPU time of the target meanwhile, in seconds.
    #[serde(default)]
    pub target_cpu: f64,
    /// CPU time of the profiler, in seconds.
    #[serde(default)]
    pub own_cpu: f64,
    /// Memory of the profiler at its peak, in bytes.
    #[serde(default)]
    pub own_memory: u64,
    /// Instants at which nothing had to be stopped.
    #[serde(default)]
    pub instants_without_stop: u64,
    /// Processes of a tree, by what became of them.
    #[serde(default)]
    pub processes: BTreeMap<String, u64>,
}

/// How often something happened and for how long.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Times {
    /// How often.
    pub count: u64,
    /// Seconds in all.
    pub total: f64,
    /// Seconds at most.
    pub longest: f64,
}

impl Ledger {
    /// Reads it, and checks that its counts add up.
    ///
    /// # Errors
    /// When it is none, or attempts are not the sum of their outcomes.
    pub fn read(json: &Value) -> Result<Self> {
        let ledger: Ledger =
            serde_json::from_value(json.clone()).with_context(|| format!("a ledger: {json}"))?;
        let outcomes = ledger.shown + ledger.not_asked_for + ledger.lost();
        ensure!(ledger.attempts == outcomes, "the ledger does not add up: {json}");
        Ok(ledger)
    }

    /// All samples that are missing.
    pub fn lost(&self) -> u64 {
        self.lost.values().sum()
    }

    /// Those that are missing for one reason, by its name.
    pub fn lost_for(&self, reason: &str) -> u64 {
        self.lost.get(reason).copied().unwrap_or(0)
    }

    /// Processes of a tree with this outcome: `found`, `sampled`, `without_python`, `not_permitted`, `missed`.
    pub fn processes_of(&self, outcome: &str) -> u64 {
        self.processes.get(outcome).copied().unwrap_or(0)
    }

    /// The share of the attempts that is not lost.
    pub fn share_kept(&self) -> f64 {
        1.0 - self.lost() as f64 / self.attempts.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_that_do_not_add_up_are_refused() {
        let ledger =
            |shown: u64| json!({"attempts": 7, "shown": shown, "not_asked_for": 1, "lost": {"late": 2}});
        assert_eq!(Ledger::read(&ledger(4)).unwrap().lost(), 2);
        assert!(Ledger::read(&ledger(5)).is_err());
    }
}
