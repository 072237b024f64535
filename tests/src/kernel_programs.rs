//! The programs that the profiler loads into the kernel: whether that is possible here, and which it holds.

use std::fs;

use anyhow::Result;

use crate::requirement::{is_root, missing};

/// Whether the in-kernel programs can be loaded.
///
/// # Panics
/// When they cannot, and skipping is forbidden.
pub fn can_load_programs() -> bool {
    if !is_root() {
        missing("the in-kernel sampler needs root");
    }
    is_root()
}

/// The numbers of the programs that a process holds, each once.
///
/// # Errors
/// When there is no such process.
pub fn programs_of(pid: u32) -> Result<Vec<u32>> {
    let mut held = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
        // A file may be closed meanwhile.
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let ids = text.lines().filter_map(|line| line.strip_prefix("prog_id:"));
        held.extend(ids.map(|id| id.trim().parse::<u32>()).collect::<Result<Vec<_>, _>>()?);
    }
    held.sort_unstable();
    held.dedup();
    Ok(held)
}
