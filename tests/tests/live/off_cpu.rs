//! Time off the CPU as the kernel reports it: what threads wait for that waited before they were watched. That all of the time
//! of each is shown is for the statistical tests, what each mode shows for `modes`.

use anyhow::Result;
use profiler_tests::suite::{Case, On, Sampler, Test};
use profiler_tests::{Collapsed, Fixture, Profiler, test, wait_until_still, waits};

fn threads_that_wait_from_the_start_have_reasons(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, "waiting/waiting.py", &[])?;
    wait_until_still(fixture.pid())?;
    let record = Profiler::new("record").words("-t --sampler bpf --mode wall -d 0.2 -f raw -o -");
    waits::must_have_reasons(&Collapsed::parse(&record.pid(&fixture).succeed()?.stdout)?)
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(threads_that_wait_from_the_start_have_reasons).on(On::Layouts).by(&[Sampler::Bpf])]
}
