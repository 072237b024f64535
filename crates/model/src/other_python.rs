//! Pythons that run in a process beside the one that was found first.

use crate::Pid;

/// A Python that runs in a process beside the one that was found first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OtherPython {
    /// The process.
    pub pid: Pid,
    /// Its version, such as `3.11.7`.
    pub version: String,
    /// The path of its module, as the process sees it.
    pub path: String,
}
