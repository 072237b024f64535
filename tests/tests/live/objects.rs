//! Strings, code objects and thread names, read from outside in a live process, are what the process itself reports. The
//! same is read of stored memory of every interpreter in tier 1.

use anyhow::{Context, Result, ensure};
use profiler_model::Pid;
use profiler_os::ProcessMemory;
use profiler_tests::Fixture;
use profiler_tests::account::Account;
use profiler_tests::account::objects::{KNOWN_OBJECTS, Objects};
use profiler_tests::suite::{Case, On, Test};
use profiler_tests::test;

/// So many modules that the index slots of their table are as wide as they get.
const MANY_MODULES: &str = "70000";

fn strings_code_objects_and_thread_names(case: &Case) -> Result<()> {
    let mut fixture = Fixture::inline(case.interpreter, KNOWN_OBJECTS)?;
    let memory = ProcessMemory::new(Pid::new(fixture.pid()));
    for more_modules in ["", MANY_MODULES] {
        let objects: Objects = serde_json::from_str(&fixture.ask(more_modules)?)?;
        objects.check(&memory, &memory).with_context(|| format!("{more_modules:?} more modules"))?;
    }
    fixture.close_stdin();
    let status = fixture.wait()?;
    ensure!(status.success(), "the program ended with {status}");
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(strings_code_objects_and_thread_names).on(On::Layouts)]
}
