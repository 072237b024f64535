//! Tier 3: tests that judge amounts: times, shares, counts. Each is alone on the machine.
#![allow(missing_docs)]

mod amounts;
mod science_gil;
mod tables;
mod threads_processes;
mod waiting;

use std::process::ExitCode;

use profiler_tests::suite::Tier;

fn main() -> ExitCode {
    profiler_tests::suite::run(
        Tier::Statistical,
        profiler_tests::suites![amounts, science_gil, tables, threads_processes, waiting],
    )
}
