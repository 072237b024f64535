//! Tier 1: tests without a live target; as many at a time as there are CPUs. (The crates' own unit tests are of this tier, too.)
#![allow(missing_docs)]

mod asyncio;
mod completions;
mod damage;
mod dump_layouts;
mod fuzz_corpora;
mod lines;
mod locals;
mod numpy_values;
mod objects;

use std::process::ExitCode;

use profiler_tests::suite::Tier;

fn main() -> ExitCode {
    profiler_tests::suite::run(Tier::Deterministic, profiler_tests::suites![asyncio, completions, damage, dump_layouts, fuzz_corpora, lines, locals, numpy_values, objects])
}
