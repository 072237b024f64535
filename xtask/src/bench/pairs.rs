//! How much a profiler slows its target: the work that the target does in a second of wall time with the
//! profiler, against what it did in the same process right before and right after without it. So what the
//! machine does besides, and where the process's memory happens to lie, cancels out.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use profiler_tests::{Fixture, Interpreter, Scratch, cpu_nanos};

use super::tools::{Recorded, Task, Tool};

/// From a profiler's start until it is measured: by then each of them samples.
const SETTLING: Duration = Duration::from_millis(1500);

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a> {
    /// The interpreter of the target.
    pub interpreter: &'a Interpreter,
    /// The arguments of the labyrinth.
    pub shape: &'a [&'a str],
    /// Samples a second.
    pub rate: u32,
    /// All threads, waiting ones too.
    pub all_threads: bool,
    /// How long the target is watched at a time.
    pub window: Duration,
    /// How often all profilers take their turn.
    pub repeat: usize,
}

/// All turns of one profiler.
#[derive(Debug)]
pub struct Turns {
    /// The profiler.
    pub tool: Tool,
    /// Its turns.
    pub turns: Vec<Turn>,
    /// Why it was given up.
    pub failure: Option<String>,
}

/// One turn of one profiler.
#[derive(Debug)]
pub struct Turn {
    /// The part of the target's work that was not done.
    pub slowdown: f64,
    /// CPU of the profiler while it sampled, in cores.
    pub cpu: f64,
    /// CPU of the target meanwhile, in cores.
    pub cpu_of_target: f64,
    /// What it recorded.
    pub recorded: Recorded,
}

/// Work done so far, and when.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    rounds: f64,
    wall: f64,
}

impl Progress {
    /// Asks the target.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn of(fixture: &mut Fixture) -> Result<Self> {
        let progress = fixture.progress()?;
        let number = |name: &str| progress[name].as_f64().with_context(|| format!("no {name} in {progress}"));
        Ok(Progress { rounds: number("rounds")?, wall: number("wall")? })
    }

    /// Rounds in a second since then.
    pub fn speed_since(self, before: Progress) -> f64 {
        (self.rounds - before.rounds) / (self.wall - before.wall)
    }
}

impl Comparison<'_> {
    /// Gives every profiler its turns. One that fails is given up, and says why.
    pub fn run(&self, tools: &[Tool], scratch: &Scratch) -> Result<Vec<Turns>> {
        let mut all: Vec<Turns> =
            tools.iter().map(|&tool| Turns { tool, turns: Vec::new(), failure: None }).collect();
        for repetition in 0..self.repeat {
            // A fresh process each time: its layout in memory has a speed of its own.
            let mut fixture = Fixture::start(self.interpreter, "labyrinth/labyrinth.py", self.shape)?;
            let mut before = self.bare(&mut fixture)?;
            for turns in all.iter_mut().filter(|turns| turns.failure.is_none()) {
                eprintln!("bench: {} of {}: {}", repetition + 1, self.repeat, turns.tool.name());
                let turn = self.turn(turns.tool, &mut fixture, scratch);
                let after = self.bare(&mut fixture)?;
                match turn {
                    Ok((speed, turn)) => {
                        let slowdown = 1.0 - speed / ((before + after) / 2.0);
                        turns.turns.push(Turn { slowdown, ..turn });
                    }
                    Err(error) => turns.failure = Some(format!("{error:#}")),
                }
                before = after;
            }
        }
        Ok(all)
    }

    /// The target's speed without any profiler.
    fn bare(&self, fixture: &mut Fixture) -> Result<f64> {
        let before = Progress::of(fixture)?;
        thread::sleep(self.window);
        Ok(Progress::of(fixture)?.speed_since(before))
    }

    /// The target's speed with a profiler, and the turn but for the slowdown.
    fn turn(&self, tool: Tool, fixture: &mut Fixture, scratch: &Scratch) -> Result<(f64, Turn)> {
        let seconds = (SETTLING + self.window).as_secs_f64().ceil() as u32 + 1;
        let task = Task { rate: self.rate, seconds, all_threads: self.all_threads };
        let started = Instant::now();
        let mut recording = tool.record((self.interpreter, fixture), task, scratch)?;
        thread::sleep(SETTLING);
        if !recording.process.is_running()? {
            let recorded = recording.finish(started)?;
            anyhow::bail!("it ended too early: {}", recorded.ended.last_words());
        }
        let (pid, target) = (recording.process.pid(), fixture.pid());
        let used =
            || -> Result<(u64, u64, Instant)> { Ok((cpu_nanos(pid)?, cpu_nanos(target)?, Instant::now())) };
        let (cpu, of_target, watch) = used()?;
        let before = Progress::of(fixture)?;
        thread::sleep(self.window);
        let (cpu_after, of_target_after, end) = used()?;
        let after = Progress::of(fixture)?;
        ensure!(recording.process.is_running()?, "it ended before it was told to");
        let recorded = recording.finish(started)?;
        let watched = (end - watch).as_nanos() as f64;
        let cores = |before: u64, after: u64| (after - before) as f64 / watched;
        let (cpu, cpu_of_target) = (cores(cpu, cpu_after), cores(of_target, of_target_after));
        let turn = Turn { slowdown: 0.0, cpu, cpu_of_target, recorded };
        Ok((after.speed_since(before), turn))
    }
}
