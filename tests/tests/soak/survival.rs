//! The target runs on when the profiler is killed at random moments: over a hundred times on each interpreter.

use anyhow::Result;
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Test};
use profiler_tests::survival::{Survivor, When};
use profiler_tests::{soak, test};

fn target_outlives_profilers_killed_for_a_minute(case: &Case) -> Result<()> {
    let mut target = Survivor::start(case)?;
    let mut kills = 0;
    soak(|| {
        // One in four while it starts.
        target.outlive(if kills % 4 == 0 { When::Starting } else { When::Sampling })?;
        kills += 1;
        Ok(())
    })?;
    println!("{kills} kills");
    target.finish()
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(target_outlives_profilers_killed_for_a_minute).on(On::Every).by(PAUSE_AND_BPF)]
}
