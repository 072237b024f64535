//! Where the kernel lacks what the in-kernel programs want: each is refused with the reason, or another sampler is taken
//! and that is said. Which rights they take is for `in_kernel`.

use std::ffi::OsString;

use anyhow::Result;
use profiler_tests::{Collapsed, Fixture, Profiler, Scratch, can_load_programs, one_interpreter, place};

const LABYRINTH: &str = "labyrinth/labyrinth.py";

/// What is said where the kernel's types are not to be had.
const NO_TYPES: &str = "the kernel does not describe its types";

fn record(place: &[OsString], scratch: &Scratch, words: &str) -> Profiler {
    Profiler::within(place, "record").words(&format!("{words} -d 0.2 -f raw -o")).arg(scratch.file("out.txt"))
}

fn busy() -> Result<Fixture> {
    Fixture::start(one_interpreter(), LABYRINTH, &[])
}

#[test]
fn without_the_kernels_types_waits_are_asked_for_and_cpu_time_is_sampled_as_ever() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    let (scratch, fixture) = (Scratch::new()?, busy()?);
    let record = |words| record(&place::without_types(), &scratch, words).pid(&fixture);
    record("--sampler bpf").succeed()?;
    record("--mode wall").succeed()?.must_say(&["sampler: pause", NO_TYPES])?;
    record("--mode off-cpu").fail(&[NO_TYPES, "--mode wall, which with --sampler pause"])?;
    record("--mode wall --sampler bpf").fail(&[NO_TYPES])?;
    Ok(())
}

#[test]
fn no_memory_need_be_locked() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    let (scratch, fixture) = (Scratch::new()?, busy()?);
    record(&place::without_locked_memory(), &scratch, "--mode wall --sampler bpf").pid(&fixture).succeed()?;
    let profile = Collapsed::parse(&std::fs::read_to_string(scratch.file("out.txt"))?)?;
    // All of the time of its only thread, whatever that did.
    assert!(profile.count(|_| true) > 0, "{profile:?}");
    Ok(())
}
