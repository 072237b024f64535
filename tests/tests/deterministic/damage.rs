//! Targets that lie: thousands of stored processes with damaged memory are surveyed in full. Nothing may
//! panic, nothing may read or allocate without limit (`Limited` sees to that), and whatever comes out is
//! within the limits that are promised.

use anyhow::Result;
use profiler_python::{MAX_FRAMES, MAX_INTERPRETERS, MAX_STRING_CODE_POINTS, MAX_THREAD_STATES};
use profiler_tests::damage::DamagePlan;
use profiler_tests::snapshot::{LoadedModule, StoredId, StoredProcess};
use profiler_tests::suite::Test;
use profiler_tests::survey::{Survey, survey};

/// How each stored process is damaged; the seed is the id of its first thread.
const DAMAGE: DamagePlan = DamagePlan { rounds: 1000, most_changes: 24, seed: 0 };

fn check(survey: &Survey) {
    assert!(survey.interpreters.len() <= MAX_INTERPRETERS);
    for interpreter in &survey.interpreters {
        assert!(interpreter.threads.len() <= MAX_THREAD_STATES);
        for thread in &interpreter.threads {
            let Ok(frames) = &thread.frames else { continue };
            assert!(frames.len() <= MAX_FRAMES);
            for frame in frames {
                assert!(frame.function.chars().count() <= MAX_STRING_CODE_POINTS + 1);
                assert!(frame.file.chars().count() <= MAX_STRING_CODE_POINTS + 1);
            }
        }
    }
}

fn damaged_processes_are_survived(id: &StoredId) -> Result<()> {
    let process = StoredProcess::of_id(id)?;
    let modules = process.modules()?;
    let modules: Vec<_> = modules.iter().map(LoadedModule::as_module).collect();
    let alive = process.alive();
    let plan = DamagePlan { seed: process.about.alive[0].into(), ..DAMAGE };
    plan.carry_out(&process.memory, |memory, _| {
        let seen = survey(&modules, memory, &alive).ok();
        seen.iter().for_each(check);
        seen
    })
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    Test::of_each("damaged_processes_are_survived", StoredProcess::ids(), damaged_processes_are_survived)
}
