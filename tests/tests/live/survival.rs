//! The target runs on when the profiler is killed, at a few random moments. `cargo xtask soak` kills more often.

use anyhow::Result;
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Test};
use profiler_tests::survival::{Survivor, When};
use profiler_tests::test;

fn target_outlives_a_killed_profiler(case: &Case) -> Result<()> {
    let mut target = Survivor::start(case)?;
    for when in [When::Starting, When::Sampling, When::Sampling] {
        target.outlive(when)?;
    }
    target.finish()
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(target_outlives_a_killed_profiler).on(On::Every).by(PAUSE_AND_BPF)]
}
