//! Targets that lie: thousands of stored processes with damaged memory are surveyed in full. Nothing may
//! panic, nothing may read or allocate without limit (`Limited` sees to that), and whatever comes out is
//! within the limits that are promised.

use profiler_python::{MAX_FRAMES, MAX_INTERPRETERS, MAX_STRING_CODE_POINTS, MAX_THREAD_STATES};
use profiler_tests::damage::DamagePlan;
use profiler_tests::snapshot::{LoadedModule, StoredProcess};
use profiler_tests::survey::{Survey, survey};

/// How often each stored process is damaged.
const ROUNDS: u64 = 1000;

/// How many words are damaged at most in a round.
const MAX_CHANGES: u64 = 24;

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

#[test]
fn damaged_processes_are_survived() {
    for process in StoredProcess::all().unwrap() {
        let modules = process.modules().unwrap();
        let modules: Vec<_> = modules.iter().map(LoadedModule::as_module).collect();
        let alive = process.alive();
        let plan =
            DamagePlan { rounds: ROUNDS, most_changes: MAX_CHANGES, seed: process.about.alive[0].into() };
        plan.carry_out(&process.memory, |memory, _| {
            let seen = survey(&modules, memory, &alive).ok();
            seen.iter().for_each(check);
            seen
        })
        .unwrap();
    }
}
