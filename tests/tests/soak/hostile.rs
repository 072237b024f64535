//! Hostile targets for longer than a run of the tests allows: ten thousand threads, and threads and processes that live
//! a millisecond, without end.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use profiler_tests::hostile::{
    CHURN, LATE, ManyThreads, must_be_free, must_dump_or_fail, must_make_progress,
};
use profiler_tests::suite::{Case, On, Sampler, Test};
use profiler_tests::test;
use profiler_tests::{Fixture, process_state, soak};

const ALL_SAMPLERS: &[Sampler] = &[Sampler::Pause, Sampler::Bpf, Sampler::Peek];

fn ten_thousand_threads_are_sampled(case: &Case) -> Result<()> {
    const THREADS: u64 = 10_000;
    let Some(target) = ManyThreads::start(case.interpreter, THREADS)? else { return Ok(()) };
    let sampler = case.sampler_words();
    // The in-kernel program knows no thread at first, and loses what works until it has learned of ten thousand.
    let work = Duration::from_secs(if case.sampler() == Sampler::Bpf { 15 } else { 1 });
    soak(|| {
        target.must_be_dumped()?;
        // Without a stop, what works is lost now and then, and without `-i` there is nothing else.
        let words: &[&str] = match case.sampler() {
            Sampler::Peek => &["-r 100 -i"],
            _ => &["-r 500", "-r 100 -i"],
        };
        for words in words {
            target.must_be_recorded(&format!("{words} {sampler}"), work, &[LATE])?;
        }
        target.must_be_shown_by_top(&sampler)
    })
}

fn threads_come_and_go(case: &Case) -> Result<()> {
    let mut fixture = Fixture::start(case.interpreter, CHURN, &["threads"])?;
    soak(|| {
        for words in ["-r 200", "-r 200 -i -t"] {
            must_make_progress(&mut fixture, &format!("{words} {}", case.sampler_words()))?;
        }
        must_dump_or_fail(&fixture)?;
        must_be_free(fixture.pid())
    })
}

fn processes_come_and_go(case: &Case) -> Result<()> {
    let mut fixture = Fixture::start(case.interpreter, CHURN, &["processes"])?;
    soak(|| {
        for words in ["-s -r 200", "-s -r 200 -i"] {
            must_make_progress(&mut fixture, &format!("{words} {}", case.sampler_words())).context(words)?;
        }
        // It waits for each of its children: one that was left stopped would have ended this.
        ensure!(process_state(fixture.pid())? != 't', "left traced");
        Ok(())
    })
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(ten_thousand_threads_are_sampled).by(ALL_SAMPLERS),
        test!(threads_come_and_go).on(On::Minors(&[6, 10, 12, 14])).by(ALL_SAMPLERS),
        test!(processes_come_and_go).by(ALL_SAMPLERS),
    ]
}
