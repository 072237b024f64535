//! Tier 1: tests without a live target; as many at a time as there are CPUs. (The crates' own unit tests are of this tier, too.)
#![allow(missing_docs)]

use std::process::ExitCode;

use profiler_tests::suite::Tier;

mod bad_input;
mod hostile;
mod top;

fn main() -> ExitCode {
    profiler_tests::suite::run(Tier::Deterministic, profiler_tests::suites![bad_input, hostile, top])
}
