//! Pythons that are in a process but not sampled.

use crate::Pid;

/// A Python that runs in a process beside the one that is sampled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OtherPython {
    /// The process.
    pub pid: Pid,
    /// Its version, such as `3.11.7`.
    pub version: String,
    /// The path of its module, as the process sees it.
    pub path: String,
}
