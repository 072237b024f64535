//! What takes too long for every run of the tests, or fails by chance once in some hundred runs: `cargo xtask soak`.
#![allow(missing_docs)]

use std::process::ExitCode;

use profiler_tests::suite::Tier;

mod hostile;
mod tree;

fn main() -> ExitCode {
    profiler_tests::suite::run(Tier::Soak, profiler_tests::suites![hostile, tree])
}
