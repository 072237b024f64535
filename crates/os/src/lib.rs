//! Everything that is asked of Linux.
