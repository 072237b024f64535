//! Tier 1: tests without a live target; as many at a time as there are CPUs. (The crates' own unit tests are of this tier, too.)
#![allow(missing_docs)]

mod asyncio;
mod bad_input;
mod completions;
mod damage;
mod dump_layouts;
mod fuzz_corpora;
mod hostile;
mod lines;
mod locals;
mod numpy_values;
mod objects;
mod top;

use std::process::ExitCode;

use profiler_tests::suite::Tier;

fn main() -> ExitCode {
    profiler_tests::suite::run(
        Tier::Deterministic,
        profiler_tests::suites![
            asyncio,
            bad_input,
            completions,
            damage,
            dump_layouts,
            fuzz_corpora,
            hostile,
            lines,
            locals,
            numpy_values,
            objects,
            top
        ],
    )
}
