//! Tier 3: tests that judge amounts: times, shares, counts. Each is alone on the machine.
#![allow(missing_docs)]

mod amounts;
mod c_hosts;
mod full_ring;
mod in_kernel;
mod in_the_way;
mod launch;
mod losses;
mod modes;
mod naps;
mod native_ticks;
mod off_cpu;
mod own_namespace;
mod reused_numbers;
mod science_gil;
mod tables;
mod threads_processes;
mod top;
mod tree;
mod waiting;

use std::process::ExitCode;

use profiler_tests::suite::Tier;

fn main() -> ExitCode {
    profiler_tests::suite::run(
        Tier::Statistical,
        profiler_tests::suites![
            amounts,
            c_hosts,
            full_ring,
            in_kernel,
            in_the_way,
            launch,
            losses,
            modes,
            naps,
            native_ticks,
            off_cpu,
            own_namespace,
            reused_numbers,
            science_gil,
            tables,
            threads_processes,
            top,
            tree,
            waiting
        ],
    )
}
