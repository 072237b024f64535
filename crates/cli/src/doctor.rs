//! `profiler doctor`: what this host allows, what a process is, and what is missing to profile it.
//!
//! `report` finds out, `text` and `json` print. Nothing is done to the process but reading it.

mod json;
mod report;
mod text;

use crate::destination::write_to_stdout;
use crate::plan::DoctorPlan;
use report::Report;

/// The exit status when `record` would not work.
const UNFIT: u8 = 1;

/// Looks and prints; returns the exit status.
///
/// # Errors
/// When stdout cannot be written.
pub fn run(plan: &DoctorPlan) -> anyhow::Result<u8> {
    let report = Report::of(plan.pid);
    write_to_stdout(|out| {
        if plan.json {
            json::write(&report, out)?;
        } else {
            text::write(&report, out)?;
        }
        Ok(())
    })?;
    Ok(if report.obstacles.is_empty() { 0 } else { UNFIT })
}
