//! What became of the processes of a tree.

/// How many processes a tree had, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessCounts {
    /// Those that were sampled.
    pub sampled: u64,
    /// Those that had no Python, as far as was seen.
    pub without_python: u64,
    /// Those that the operating system did not let us look into.
    pub not_permitted: u64,
    /// Those that ended before they were looked at.
    pub missed: u64,
}

impl ProcessCounts {
    /// All of them.
    pub fn found(&self) -> u64 {
        self.sampled + self.without_python + self.not_permitted + self.missed
    }

    /// Adds others.
    pub(super) fn add(&mut self, other: ProcessCounts) {
        self.sampled += other.sampled;
        self.without_python += other.without_python;
        self.not_permitted += other.not_permitted;
        self.missed += other.missed;
    }
}
