//! Why no running CPython was found.

use profiler_memory::ReadError;

use crate::offsets::{OffsetsError, Version};

/// What a process is in which no CPython 3 was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPython {
    /// None of its modules is a Python.
    #[error("it is not a Python process")]
    NoModule,
    /// It runs Python 2.
    #[error("it runs Python 2; CPython 3.6 to 3.15 are supported")]
    Python2,
    /// It runs PyPy.
    #[error("it runs PyPy; CPython 3.6 to 3.15 are supported")]
    PyPy,
    /// Its Python is not built for 64 bits, little-endian.
    #[error("its Python is built for 32 bits or another architecture; 64-bit little-endian is supported")]
    OtherArchitecture,
}

/// Why no running CPython was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// There is none, and what is there instead.
    #[error("{0}")]
    NotPython(NotPython),
    /// There is one of a version that is not known.
    #[error("CPython {0} is not known: 3.6 to 3.15 are")]
    UnknownVersion(Version),
    /// It is a pre-release, or its description of itself is damaged.
    #[error(transparent)]
    Offsets(OffsetsError),
    /// There is one, but no thread runs in it yet, or any more: try again.
    #[error("its Python has no running interpreter (yet)")]
    NotInitialised,
    /// The process's memory cannot be read.
    #[error(transparent)]
    Unreadable(ReadError),
}

impl From<OffsetsError> for FindError {
    fn from(error: OffsetsError) -> Self {
        match error {
            OffsetsError::UnknownVersion(version) => FindError::UnknownVersion(version),
            other => FindError::Offsets(other),
        }
    }
}

/// Keeps the error that says most; one that concerns the whole process ends the search.
pub(super) fn keep_best(best: &mut Option<FindError>, error: FindError) -> Result<(), FindError> {
    use ReadError::{NoAnswer, NotPermitted, ProcessEnded};
    if matches!(error, FindError::Unreadable(ProcessEnded | NotPermitted | NoAnswer)) {
        return Err(error);
    }
    let rank = |error: &FindError| match error {
        FindError::NotInitialised => 3,
        FindError::UnknownVersion(_) | FindError::Offsets(_) => 2,
        FindError::Unreadable(_) => 1,
        FindError::NotPython(_) => 0,
    };
    if best.as_ref().is_none_or(|kept| rank(kept) < rank(&error)) {
        *best = Some(error);
    }
    Ok(())
}
