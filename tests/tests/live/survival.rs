//! Whatever happens to the profiler, the target runs on: it is killed at random moments, a hundred times.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    Fixture, Profiler, Scratch, every_interpreter_side_by_side, interpreters, process_state, tracer_of,
};

/// How often the profiler is killed, over all interpreters.
const KILLS: usize = 100;

/// The profiler is killed between its very start and well into its sampling.
const LATEST_KILL: Duration = Duration::from_millis(250);

/// A target that has not finished one more walk after this time hangs.
const LONGEST_ROUND: Duration = Duration::from_secs(30);

/// A random moment before `LATEST_KILL`; a linear congruence is random enough for that.
fn moment(seed: &mut u64) -> Duration {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    Duration::from_nanos((*seed >> 16) % u64::try_from(LATEST_KILL.as_nanos()).unwrap_or(1))
}

fn rounds(fixture: &mut Fixture) -> Result<u64> {
    fixture.progress()?["rounds"].as_u64().context("rounds")
}

/// The target is not stopped, not traced, and gets on.
fn must_run_on(fixture: &mut Fixture) -> Result<()> {
    let state = process_state(fixture.pid())?;
    ensure!(!matches!(state, 'T' | 't'), "the target is in state {state}");
    let tracer = tracer_of(fixture.pid())?;
    ensure!(tracer == 0, "the target is traced by {tracer}");
    let before = rounds(fixture)?;
    let limit = Instant::now() + LONGEST_ROUND;
    while rounds(fixture)? == before {
        ensure!(Instant::now() < limit, "the target does not get on");
    }
    Ok(())
}

fn killed_at_any_moment() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = u64::try_from(now.as_nanos() % u128::from(u64::MAX)).unwrap();
    eprintln!("seed {seed}");
    let each = KILLS.div_ceil(interpreters().len().max(1));
    let seed = Mutex::new(seed);
    every_interpreter_side_by_side(|interpreter| {
        let scratch = Scratch::new()?;
        let mut fixture = Fixture::start(interpreter, "labyrinth/labyrinth.py", &["--threads", "2"])?;
        for _ in 0..each {
            let moment = moment(&mut seed.lock().expect("nobody panics while drawing"));
            let run = Profiler::new("record").words("-f raw -r 2000 -o").arg(scratch.file("out.txt"));
            let running = run.pid(&fixture).spawn()?;
            std::thread::sleep(moment);
            running.kill()?;
            must_run_on(&mut fixture).with_context(|| format!("killed after {moment:?}"))?;
        }
        let account = fixture.finish()?;
        ensure!(account["rounds"].as_u64() > Some(0), "{account}");
        Ok(())
    });
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(killed_at_any_moment)]
}
