//! Tier 3: tests that judge amounts: times, shares, counts. Each is alone on the machine.
#![allow(missing_docs)]

use std::process::ExitCode;

use profiler_tests::suite::Tier;

mod launch;
mod top;
mod tree;

fn main() -> ExitCode {
    profiler_tests::suite::run(Tier::Statistical, profiler_tests::suites![launch, top, tree])
}
