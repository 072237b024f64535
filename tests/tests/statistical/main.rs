//! Tier 3: tests that judge amounts: times, shares, counts. Each is alone on the machine.
#![allow(missing_docs)]

use std::process::ExitCode;

use profiler_tests::suite::Tier;

mod full_ring;
mod in_kernel;
mod in_the_way;
mod modes;
mod off_cpu;
mod own_namespace;
mod reused_numbers;

fn main() -> ExitCode {
    profiler_tests::suite::run(
        Tier::Statistical,
        profiler_tests::suites![
            full_ring,
            in_kernel,
            in_the_way,
            modes,
            off_cpu,
            own_namespace,
            reused_numbers
        ],
    )
}
