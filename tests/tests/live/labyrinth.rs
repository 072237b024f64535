//! No stack of the labyrinth is ever torn, whatever its shape, on every interpreter and by every sampler.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use profiler_tests::labyrinth::{Place, judge};
use profiler_tests::statistics::{bound, deviations};
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Sampler, Test};
use profiler_tests::{Collapsed, Fixture, Ledger, Profiler, Scratch, test};

/// The part of its time that the walk spends around the maze, at most. Where rooms get lost it is far more.
const AROUND: f64 = 0.05;

/// How certain it must be that more than that was seen.
const CONFIDENCE: f64 = 0.99999;

/// For how long the labyrinth is recorded, in its own CPU time: however long a busy machine takes for it, the number of
/// samples is the same.
const RECORDED: Duration = Duration::from_millis(400);

/// The same for a labyrinth that sleeps most of its time: some thirty walks.
const RECORDED_OF_NAPS: Duration = Duration::from_millis(30);

/// Samples of a recording that says something.
const LEAST_SAMPLES: u64 = 50;

/// Frames of a maze without a corridor, at least, in the deepest of that many samples.
const DEEP: usize = 15;

/// What a recording of the labyrinth consists of.
#[derive(Debug, Default)]
struct Findings {
    maze: u64,
    around: u64,
    idle: u64,
    deepest: usize,
    torn: Vec<String>,
}

impl Findings {
    fn of(collapsed: &Collapsed) -> Self {
        let mut findings = Findings::default();
        for stack in &collapsed.stacks {
            match judge(&stack.frames) {
                Ok(Place::Maze { depth }) => {
                    findings.maze += stack.count;
                    findings.deepest = findings.deepest.max(depth);
                }
                Ok(Place::Idle) => findings.idle += stack.count,
                Ok(Place::Around | Place::Before) => findings.around += stack.count,
                Err(torn) => findings.torn.push(torn.to_string()),
            }
        }
        findings
    }

    fn must_not_be_torn(&self) -> Result<()> {
        let examples = &self.torn[..self.torn.len().min(3)];
        ensure!(self.torn.is_empty(), "{} torn, such as {examples:?}", self.torn.len());
        Ok(())
    }

    /// Nothing is torn, and (nearly) everything was seen inside the maze: stacks that lost their rooms would show as the
    /// surroundings of the maze.
    fn must_be_whole(&self) -> Result<()> {
        self.must_not_be_torn()?;
        ensure!(self.maze >= LEAST_SAMPLES, "only {} samples of the maze", self.maze);
        let all = (self.maze + self.around) as f64;
        let most = AROUND * all + bound(AROUND, all, deviations(CONFIDENCE, 1)) * all;
        ensure!(
            self.around as f64 <= most,
            "{} around the maze to {} in it, at most {most:.0} of them by chance",
            self.around,
            self.maze
        );
        Ok(())
    }

    fn must_be_deeper_than(&self, depth: usize) -> Result<()> {
        ensure!(self.deepest > depth, "never deeper than {}", self.deepest);
        Ok(())
    }
}

/// A recording of the labyrinth in one of its shapes.
struct Recording {
    findings: Findings,
    ledger: Ledger,
}

impl Recording {
    /// Attaches to the labyrinth and records until it has used that much CPU time. `None` when no stack could be proved,
    /// which must be reported with its reason.
    fn attach(case: &Case, shape: &[&str], options: &str, cpu: Duration) -> Result<Option<Self>> {
        let scratch = Scratch::new()?;
        let fixture = Fixture::start(case.interpreter, "labyrinth/labyrinth.py", shape)?;
        let file = scratch.file("out.txt");
        let words = format!("-f raw {options} {} -o", case.sampler_words());
        let mut record = Profiler::new("record").words(&words).arg(&file).pid(&fixture).spawn()?;
        record.wait_until_sampling()?;
        fixture.work_for(cpu)?;
        record.signal(Signal::SIGINT)?;
        let run = record.wait()?;
        let account = fixture.finish()?;
        ensure!(account["rounds"].as_u64() > Some(0), "the walk did not go on: {account}");
        if run.code() == Some(1) && !file.exists() {
            run.must_say(&["ran while it was read"])?;
            return Ok(None);
        }
        ensure!(run.code() == Some(0), "{run:?}");
        let findings = Findings::of(&Collapsed::parse(&std::fs::read_to_string(&file)?)?);
        Ok(Some(Recording { findings, ledger: run.ledger()?.clone() }))
    }
}

/// What is seen of the labyrinth in one of its shapes, by a sampler that sees everything.
fn walk(case: &Case, shape: &[&str]) -> Result<Findings> {
    whole(Recording::attach(case, shape, "-r 1000", RECORDED)?)
}

fn whole(recording: Option<Recording>) -> Result<Findings> {
    let Some(Recording { findings, .. }) = recording else { anyhow::bail!("nothing was seen") };
    findings.must_be_whole()?;
    Ok(findings)
}

fn plain_calls(case: &Case) -> Result<()> {
    walk(case, &[])?.must_be_deeper_than(DEEP)
}

fn stack_five_hundred_deep(case: &Case) -> Result<()> {
    walk(case, &["--deep", "500"])?.must_be_deeper_than(500)
}

fn generators(case: &Case) -> Result<()> {
    walk(case, &["--generators"]).map(drop)
}

fn callbacks(case: &Case) -> Result<()> {
    walk(case, &["--callbacks"]).map(drop)
}

fn three_threads(case: &Case) -> Result<()> {
    walk(case, &["--threads", "3"]).map(drop)
}

/// How much of a busy target can be proved without a stop depends on it; that nothing is torn does not.
fn plain_calls_without_stopping(case: &Case) -> Result<()> {
    let Some(recording) = Recording::attach(case, &[], "-r 1000", RECORDED)? else { return Ok(()) };
    ensure!(recording.ledger.attempts >= LEAST_SAMPLES, "{:?}", recording.ledger);
    recording.findings.must_not_be_torn()
}

/// A thread that sleeps in the maze does not change its stack, so it can be proved without a stop. Of a walk that sleeps
/// nearly all its time most is shown.
fn naps_are_proved_without_stopping(case: &Case) -> Result<()> {
    let recording = Recording::attach(case, &["--naps"], "-r 1000 -i", RECORDED_OF_NAPS)?;
    let Some(Recording { findings, ledger }) = recording else { anyhow::bail!("nothing could be proved") };
    findings.must_be_whole()?;
    findings.must_be_deeper_than(DEEP)?;
    ensure!(ledger.shown * 2 >= ledger.attempts, "less than half was proved: {ledger:?}");
    Ok(())
}

fn idle_threads_beside_a_busy_one(case: &Case) -> Result<()> {
    let findings = whole(Recording::attach(case, &["--idle-threads", "160"], "-r 150 -i", RECORDED * 2)?)?;
    let least = findings.maze * 150;
    ensure!(findings.idle >= least, "{} samples of idle threads, not {least}", findings.idle);
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    let without_stopping = &[Sampler::Peek];
    vec![
        test!(plain_calls).on(On::Every).by(PAUSE_AND_BPF),
        test!(stack_five_hundred_deep).on(On::Every).by(PAUSE_AND_BPF),
        test!(generators).on(On::Every).by(PAUSE_AND_BPF),
        test!(callbacks).on(On::Every).by(PAUSE_AND_BPF),
        test!(three_threads).on(On::Every).by(PAUSE_AND_BPF),
        test!(plain_calls_without_stopping).on(On::Every).by(without_stopping),
        test!(naps_are_proved_without_stopping).on(On::Every).by(without_stopping),
        test!(idle_threads_beside_a_busy_one).on(On::Layouts).by(PAUSE_AND_BPF),
    ]
}
