//! What the user is doing: looking, reading the help or typing.

/// The longest text that can be typed: file names end at 4,095 bytes.
pub(super) const MAX_TYPED: usize = 1_000;

/// What the user is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ViewMode {
    /// Looking.
    #[default]
    Look,
    /// Reading the help, with the cursor on this entry.
    Help(usize),
    /// Typing a filter.
    TypeFilter,
    /// Typing a file name.
    TypeFile(String),
}
