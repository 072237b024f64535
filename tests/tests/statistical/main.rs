//! Tier 3: tests that judge amounts: times, shares, counts. Each is alone on the machine.
#![allow(missing_docs)]

use std::process::ExitCode;

use profiler_tests::suite::Tier;

mod threads_processes;
mod waiting;

fn main() -> ExitCode {
    profiler_tests::suite::run(Tier::Statistical, profiler_tests::suites![threads_processes, waiting])
}
