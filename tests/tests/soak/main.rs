//! What takes too long for every run of the tests, or fails by chance once in some hundred runs: `cargo xtask soak`.
#![allow(missing_docs)]

mod hostile;
mod in_kernel;
mod in_the_way;
#[path = "../live/kernel_programs/mod.rs"]
mod kernel_programs;
mod survival;
mod tables;
mod tree;

use std::process::ExitCode;

use profiler_tests::suite::Tier;

fn main() -> ExitCode {
    profiler_tests::suite::run(
        Tier::Soak,
        profiler_tests::suites![hostile, in_kernel, in_the_way, survival, tables, tree],
    )
}
