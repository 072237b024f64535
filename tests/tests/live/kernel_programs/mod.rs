//! Which programs the kernel has. Not in the library of the tests: the fuzzer, which uses that as well, would have to
//! build the loader.

use aya::programs::loaded_programs;

/// Those of `programs` that are loaded.
pub fn still_loaded(programs: &[u32]) -> Vec<u32> {
    // One that goes while they are listed is no longer there.
    let all = loaded_programs().flatten();
    all.map(|program| program.id()).filter(|id| programs.contains(id)).collect()
}
