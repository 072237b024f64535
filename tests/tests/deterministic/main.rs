//! Tier 1: tests without a live target; as many at a time as there are CPUs. (The crates' own unit tests are of this tier, too.)
#![allow(missing_docs)]

mod completions;
mod lines;

use std::process::ExitCode;

use profiler_tests::suite::Tier;

fn main() -> ExitCode {
    profiler_tests::suite::run(Tier::Deterministic, profiler_tests::suites![completions, lines])
}
