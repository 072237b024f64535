//! No stack of the labyrinth is ever torn, whatever its shape, on every interpreter and by every sampler.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use profiler_tests::labyrinth::{Place, judge};
use profiler_tests::statistics::{bound, effective_number, found_difference, least_instants, state};
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Sampler, Test};
use profiler_tests::{
    Collapsed, Fixture, Frame, Ledger, Profiler, Scratch, WeightedSample, read_speedscope, test,
};

/// The part of its time that the walk spends around the maze, at most. Where rooms get lost it is far more.
const AROUND: f64 = 0.05;

/// For how long the labyrinth is recorded, in its own CPU time: however long a busy machine takes for it, the number of
/// samples is the same.
const RECORDED: Duration = Duration::from_millis(400);

/// The same for a labyrinth that sleeps most of its time: some thirty walks.
const RECORDED_OF_NAPS: Duration = Duration::from_millis(30);

/// Samples that say something.
const LEAST_SAMPLES: f64 = 50.0;

/// A walk that has fewer samples after this number of recordings is not sampled.
const MOST_RECORDINGS: u32 = 10;

/// The format whose weights are CPU time, unless idle threads are shown.
const BY_CPU_TIME: &str = "-f speedscope";

/// How a walk is recorded.
const WALK: &str = "-f speedscope -r 1000";

/// Frames of a maze without a corridor, at least, in the deepest of that many samples.
const DEEP: usize = 15;

/// What a recording of the labyrinth consists of.
#[derive(Debug, Default)]
struct Findings {
    /// The weight of the samples in the maze: CPU time, or their number where idle threads are shown.
    maze: f64,
    /// The same of those around it.
    around: f64,
    /// The same of threads that only wait.
    idle: f64,
    weights: Vec<f64>,
    /// How many equal samples say as much as those in the maze and around it.
    effective_number: f64,
    deepest: usize,
    torn: Vec<String>,
}

impl Findings {
    fn add(&mut self, frames: &[Frame], weight: f64) {
        match judge(frames) {
            Ok(Place::Maze { depth }) => {
                self.maze += weight;
                self.deepest = self.deepest.max(depth);
            }
            Ok(Place::Idle) => self.idle += weight,
            Ok(Place::Around | Place::Before) => self.around += weight,
            Err(torn) => self.torn.push(torn.to_string()),
        }
    }

    /// Adds samples with their CPU time: their number counts the waits for a CPU as well, most of which begin in the same
    /// place.
    fn add_by_cpu_time(&mut self, samples: &[WeightedSample]) {
        samples.iter().for_each(|sample| self.add(&sample.frames, sample.weight));
        self.weights.extend(samples.iter().map(|sample| sample.weight));
        self.effective_number = effective_number(&self.weights);
    }

    fn add_by_number(&mut self, collapsed: &Collapsed) {
        collapsed.stacks.iter().for_each(|stack| self.add(&stack.frames, stack.count as f64));
        self.effective_number = self.maze + self.around;
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
        let number = self.effective_number;
        ensure!(number >= LEAST_SAMPLES, "only {number:.0} effective samples of the walk");
        let around = self.around / (self.maze + self.around);
        let finds = format!("{:.1} points", 100.0 * found_difference(AROUND, number));
        let allowed = state("surroundings of the labyrinth", 1, &finds);
        let most = AROUND + bound(AROUND, number, allowed);
        ensure!(around <= most, "{around:.3} around the maze, at most {most:.3} of {number:.0} by chance");
        Ok(())
    }

    fn must_be_deeper_than(&self, depth: usize) -> Result<()> {
        ensure!(self.deepest > depth, "never deeper than {}", self.deepest);
        Ok(())
    }
}

/// Attaches to the labyrinth in one of its shapes, records until it has used that much CPU time, and adds what was found.
/// `None` when no stack could be proved, which must be reported with its reason.
fn record(
    case: &Case,
    shape: &[&str],
    options: &str,
    cpu: Duration,
    findings: &mut Findings,
) -> Result<Option<Ledger>> {
    let scratch = Scratch::new()?;
    let fixture = Fixture::start(case.interpreter, "labyrinth/labyrinth.py", shape)?;
    let file = scratch.file("out");
    let words = format!("{options} {} -o", case.sampler_words());
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
    let text = std::fs::read_to_string(&file)?;
    match options.contains(BY_CPU_TIME) {
        true => findings.add_by_cpu_time(&read_speedscope(&text)?),
        false => findings.add_by_number(&Collapsed::parse(&text)?),
    }
    Ok(Some(run.ledger()?.clone()))
}

/// What is seen of the labyrinth in one of its shapes, by a sampler that sees everything. A profiler that seldom gets a CPU
/// has few samples: then more of it is recorded, and all is judged together.
fn walk(case: &Case, shape: &[&str]) -> Result<Findings> {
    let mut findings = Findings::default();
    for _ in 0..MOST_RECORDINGS {
        record(case, shape, WALK, RECORDED, &mut findings)?.context("nothing was seen")?;
        findings.must_not_be_torn()?;
        if findings.effective_number >= LEAST_SAMPLES {
            break;
        }
    }
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
    let mut findings = Findings::default();
    let Some(ledger) = record(case, &[], WALK, RECORDED, &mut findings)? else { return Ok(()) };
    ensure!(ledger.attempts as f64 >= LEAST_SAMPLES, "{ledger:?}");
    findings.must_not_be_torn()
}

/// A thread that sleeps in the maze does not change its stack, so it can be proved without a stop. Of a walk that sleeps
/// nearly all its time most is shown.
fn naps_are_proved_without_stopping(case: &Case) -> Result<()> {
    let mut findings = Findings::default();
    let ledger = record(case, &["--naps"], "-f raw -r 1000 -i", RECORDED_OF_NAPS, &mut findings)?
        .context("nothing could be proved")?;
    findings.must_be_whole()?;
    findings.must_be_deeper_than(DEEP)?;
    ensure!(ledger.shown * 2 >= ledger.attempts, "less than half was proved: {ledger:?}");
    Ok(())
}

fn idle_threads_beside_a_busy_one(case: &Case) -> Result<()> {
    const IDLE: f64 = 160.0;
    const RATE: u32 = 150;
    let mut findings = Findings::default();
    let ledger = record(case, &["--idle-threads", "160"], "-f raw -r 150 -i", RECORDED * 2, &mut findings)?;
    let ledger = ledger.context("nothing was seen")?;
    findings.must_not_be_torn()?;
    ensure!(findings.maze >= LEAST_SAMPLES, "only {} samples of the maze", findings.maze);
    let looks = findings.idle / IDLE;
    // By `pause` the idle threads are seen with the busy one, by `bpf` at instants of their own.
    let least = match case.sampler() {
        Sampler::Bpf => least_instants(RATE, Duration::from_secs_f64(ledger.duration)) as f64,
        Sampler::Pause | Sampler::Peek => findings.maze * 15.0 / 16.0,
    };
    let late = ledger.lost_for("sampler late") as f64;
    ensure!(looks + late >= least, "{looks} looks at the idle threads, not {least}: {ledger:?}");
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
