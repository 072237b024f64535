//! Which PID namespace the mounted `/proc` belongs to.
//!
//! The crate `procfs` reads the link `/proc/self` only to open a process; a link that exists and cannot be read, which shows
//! that this process does not exist in that namespace, is an ordinary error there.

use std::fs;

/// Whose processes `/proc` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcView {
    /// Those that have the same ids for this process.
    Own,
    /// Those of another PID namespace: its process 7 is not our process 7.
    OtherNamespace,
    /// None: it is not mounted.
    Missing,
}

/// Whose processes `/proc` shows to this process.
pub fn proc_view() -> ProcView {
    match fs::read_link("/proc/self") {
        Ok(own) if own.to_str() == Some(&std::process::id().to_string()) => ProcView::Own,
        Ok(_) => ProcView::OtherNamespace,
        // The link exists, but this process has no id in that namespace.
        Err(_) if fs::symlink_metadata("/proc/self").is_ok() => ProcView::OtherNamespace,
        Err(_) => ProcView::Missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_proc_shows_own_namespace() {
        assert_eq!(proc_view(), ProcView::Own);
    }
}
