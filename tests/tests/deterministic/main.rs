//! Tier 1: tests without a live target; as many at a time as there are CPUs. (The crates' own unit tests are of this tier, too.)
#![allow(missing_docs)]

use std::process::ExitCode;

use anyhow::{Result, ensure};
use profiler_tests::account::{Account, minors};
use profiler_tests::suite::Tier;

mod asyncio;
mod damage;
mod dump_layouts;
mod fuzz_corpora;
mod locals;
mod numpy_values;
mod objects;

/// The newest minor version of CPython 3 that is supported.
const NEWEST_MINOR: u32 = 15;

/// Whether accounts of all minor versions from the first one on are stored.
fn every_version_is_stored<A: Account>(first: u32) -> Result<()> {
    let stored = minors::<A>()?;
    ensure!(stored == (first..=NEWEST_MINOR).collect::<Vec<_>>(), "stored are 3.x with x in {stored:?}");
    Ok(())
}

fn main() -> ExitCode {
    profiler_tests::suite::run(
        Tier::Deterministic,
        profiler_tests::suites![asyncio, damage, dump_layouts, fuzz_corpora, locals, numpy_values, objects],
    )
}
