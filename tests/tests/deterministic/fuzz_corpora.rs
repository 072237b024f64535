//! What the fuzzers have learnt, replayed: every stored input of every fuzz target.

use anyhow::Result;
use profiler_tests::fuzzing::{FuzzTarget, TARGETS, replay};
use profiler_tests::suite::Test;

fn stored_inputs_are_survived((name, target): &(&'static str, FuzzTarget)) -> Result<()> {
    replay(name, *target)
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    let each = TARGETS.map(|(name, target)| (name.to_owned(), (name, target)));
    Test::of_each("stored_inputs_are_survived", each, stored_inputs_are_survived)
}
