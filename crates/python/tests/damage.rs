//! Targets that lie: thousands of stored processes with damaged memory are surveyed in full. Nothing may
//! panic, nothing may read or allocate without limit (`Limited` sees to that), and whatever comes out is
//! within the limits that are promised.

use profiler_python::{MAX_FRAMES, MAX_INTERPRETERS, MAX_STRING_CODE_POINTS, MAX_THREAD_STATES};
use profiler_tests::damage::{CHANGE_BYTES, Damage, Limited};
use profiler_tests::snapshot::{LoadedModule, StoredProcess};
use profiler_tests::survey::{Survey, survey};

/// How often each stored process is damaged.
const ROUNDS: u64 = 1000;

/// How many words are damaged at most in a round.
const MAX_CHANGES: u64 = 24;

/// SplitMix64: random numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    fn changes(&mut self) -> Vec<u8> {
        let count = 1 + self.next() % MAX_CHANGES;
        let bytes = std::iter::repeat_with(|| self.next().to_le_bytes()).flatten();
        bytes.take(count as usize * CHANGE_BYTES).collect()
    }
}

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
        let damage = Damage::of(&process.memory);
        let modules = process.modules().unwrap();
        let modules: Vec<_> = modules.iter().map(LoadedModule::as_module).collect();
        let alive = process.alive();
        let mut random = Random(u64::from(process.about.alive[0]));
        let mut unlike = 0;
        for _ in 0..ROUNDS {
            let memory = Limited::new(damage.by(&random.changes()));
            let seen = survey(&modules, &memory, &alive).ok();
            seen.iter().for_each(check);
            unlike += u64::from(seen.as_ref() != Some(&process.about.survey));
        }
        // Otherwise the damage would not hit what is read.
        assert!(unlike > ROUNDS / 2, "{}: only {unlike} of {ROUNDS} surveys are different", process.id);
    }
}
