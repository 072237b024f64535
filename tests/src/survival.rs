//! Kills the profiler at random moments; the target must run on. A few kills are part of every run of the tests, more of
//! them of the soak tests.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::suite::Case;
use crate::{Fixture, Profiler, Scratch, process_state, tracer_of};

/// The variable that sets the seed of the moments, to repeat what failed.
pub const SEED_VARIABLE: &str = "PROFILER_TESTS_SEED";

/// A kill of a profiler that starts comes before this.
const LATEST_AT_START: Duration = Duration::from_millis(250);

/// A kill of a profiler that samples comes before this, counted since samples were taken.
const LATEST_WHILE_SAMPLING: Duration = Duration::from_millis(100);

/// CPU time of the target while it is sampled: some twenty samples by `bpf`, which takes none of a target that does not run.
const SAMPLED: Duration = Duration::from_millis(10);

/// A target that has not finished one more walk after this time hangs.
const LONGEST_ROUND: Duration = Duration::from_secs(30);

/// When the profiler is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Between its very start and its first samples: while it attaches and, by `bpf`, while the kernel verifies its program.
    Starting,
    /// After the first samples were taken.
    Sampling,
}

/// A target that outlives the profilers that are killed beside it.
#[derive(Debug)]
pub struct Survivor {
    fixture: Fixture,
    scratch: Scratch,
    options: String,
    first_seed: u64,
    seed: u64,
}

impl Survivor {
    /// Starts it.
    ///
    /// # Errors
    /// When it does not start, or the variable's seed is no number.
    pub fn start(case: &Case) -> Result<Self> {
        let seed = match std::env::var(SEED_VARIABLE) {
            Ok(seed) => seed.parse().with_context(|| format!("{SEED_VARIABLE}={seed}"))?,
            Err(_) => u64::from(SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos()),
        };
        Ok(Survivor {
            fixture: Fixture::start(case.interpreter, "labyrinth/labyrinth.py", &["--threads", "2"])?,
            scratch: Scratch::new()?,
            options: format!("-f raw -r 2000 {}", case.sampler_words()),
            first_seed: seed,
            seed,
        })
    }

    /// Kills a profiler at a random moment.
    ///
    /// # Errors
    /// When the target does not run on.
    pub fn outlive(&mut self, when: When) -> Result<()> {
        let moment = match when {
            When::Starting => self.draw(LATEST_AT_START),
            When::Sampling => self.draw(LATEST_WHILE_SAMPLING),
        };
        let seed = self.first_seed;
        self.kill_after(when, moment)
            .with_context(|| format!("{when:?}, killed after {moment:?}; {SEED_VARIABLE}={seed} repeats it"))
    }

    fn kill_after(&mut self, when: When, moment: Duration) -> Result<()> {
        let run = Profiler::new("record").words(&self.options).arg("-o").arg(self.scratch.file("out.txt"));
        let mut running = run.pid(&self.fixture).spawn()?;
        if when == When::Sampling {
            running.wait_until_sampling()?;
            self.fixture.work_for(SAMPLED)?;
        }
        std::thread::sleep(moment);
        running.kill()?;
        self.must_run_on()
    }

    /// A random moment before the latest; a linear congruence is random enough for that.
    fn draw(&mut self, latest: Duration) -> Duration {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        latest.mul_f64((self.seed >> 11) as f64 / (1u64 << 53) as f64)
    }

    /// The target is not stopped, not traced, and gets on.
    fn must_run_on(&mut self) -> Result<()> {
        let state = process_state(self.fixture.pid())?;
        ensure!(!matches!(state, 'T' | 't'), "the target is in state {state}");
        let tracer = tracer_of(self.fixture.pid())?;
        ensure!(tracer == 0, "the target is traced by {tracer}");
        let before = self.rounds()?;
        let limit = Instant::now() + LONGEST_ROUND;
        while self.rounds()? == before {
            ensure!(Instant::now() < limit, "the target does not get on");
        }
        Ok(())
    }

    fn rounds(&mut self) -> Result<u64> {
        self.fixture.progress()?["rounds"].as_u64().context("rounds")
    }

    /// Ends the target, which must have worked.
    ///
    /// # Errors
    /// When it has not, or does not end by itself.
    pub fn finish(self) -> Result<()> {
        let account = self.fixture.finish()?;
        ensure!(account["rounds"].as_u64() > Some(0), "{account}");
        Ok(())
    }
}
