//! The in-kernel sampler where something is in its way: targets that are gone at once. Others that sample, limits and rates are
//! for the statistical tests, CPUs that go for the soak tests; what it needs to be loaded at all is for `kernel_refusals`, a full
//! ring for `full_ring`.

use std::time::Duration;

use anyhow::{Result, ensure};
use profiler_tests::suite::{Case, PAUSE_AND_BPF, Test};
use profiler_tests::{Fixture, Profiler, Scratch, one_interpreter, test};

fn record(case: &Case, scratch: &Scratch) -> Profiler {
    let words = format!("{} -f raw -r 1000 -o", case.sampler_words());
    Profiler::new("record").words(&words).arg(scratch.file("out.txt"))
}

fn commands_that_end_at_once_are_reported(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    // One without Python, and one that ends before anything is seen.
    let without_python = ["sh", "-c", "exit 7"].map(Into::into).to_vec();
    for words in [without_python, one_interpreter().inline_words("raise SystemExit(7)")] {
        let run = record(case, &scratch).command(&words).run()?;
        ensure!(run.code() == Some(7), "{words:?}: {run:?}");
        run.must_say(&[])?;
    }
    Ok(())
}

fn targets_killed_meanwhile_are_reported(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    // From before it is looked at to when it is sampled.
    for millis in [0, 8, 16, 24] {
        let mut fixture = Fixture::inline(one_interpreter(), "print('ready', flush=True)\nwhile True: pass")?;
        let running = record(case, &scratch).pid(&fixture).spawn()?;
        std::thread::sleep(Duration::from_millis(millis));
        fixture.kill()?;
        let run = running.wait()?;
        ensure!(matches!(run.code(), Some(0 | 1)), "killed after {millis} ms: {run:?}");
        run.must_say(&["ended", "no process"])?;
    }
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(commands_that_end_at_once_are_reported).by(PAUSE_AND_BPF),
        test!(targets_killed_meanwhile_are_reported).by(PAUSE_AND_BPF),
    ]
}
