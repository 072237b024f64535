//! A process of the scripted machine.

use super::law::Phase;

/// What a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// A Python that can be read from this instant on.
    Python { up_at: u64 },
    /// Something else.
    Other,
    /// Something that nobody may look into.
    Forbidden,
    /// Something whose memory does not answer.
    Silent,
}

/// A process.
#[derive(Clone, Debug)]
pub struct SimProcess {
    pub program: Program,
    /// The process that was added and from which it descends, or itself.
    pub root: u32,
    /// Whether it was added without its descendants.
    pub is_single: bool,
    /// How many threads its Python has.
    pub threads: u64,
    /// Whether it runs the program of the process that forked it.
    pub is_fork: bool,
    pub ended: Option<u64>,
    /// The programs that it has run, as far as the tree reports them.
    pub phases: Vec<Phase>,
    /// Whether a sampler was asked for samples of it.
    pub was_sampled: bool,
    pub start_time: u64,
}
