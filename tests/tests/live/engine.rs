//! One engine, many processes: they are added and removed, and the rate changes, while others are sampled. The engine is called
//! directly, as the binary has one process or tree per recording.

use anyhow::{Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use profiler_model::{Nanos, Pid, Timestamp};
use profiler_os::{Process, clock};
use profiler_profile::{CapturePolicy, Dictionary, Event, Scope, Sink};
use profiler_sampler::{BpfProgram, Engine, SamplerKind, SamplerOptions};
use profiler_target::Target;
use profiler_tests::suite::{Case, On, Sampler, Test};
use profiler_tests::{Fixture, test};

const SLOW_HZ: f64 = 200.0;
const FAST_HZ: f64 = 800.0;
const PHASE: Nanos = Nanos::from_nanos(500_000_000);
const REPORT_GAP: Nanos = Nanos::from_nanos(50_000_000);
/// What may be missing of the CPU time of a process: what it used while it was being added or removed.
const CPU_BOUND: f64 = 0.06;
const CPU_AROUND: f64 = 0.02;

/// The CPU time of the in-kernel sampler is that of its ticks. This is how many standard deviations of their number may be missing as
/// well.
const DEVIATIONS: f64 = 4.5;
/// How far the number of attempts may be from the rate.
const RATE_BOUND: f64 = 0.25;

const BUSY: &str = "\
import os
print('ready', os.getpid(), flush=True)
while True: sum(range(1000))
";

/// Attempts, and the CPU time that they stand for.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    attempts: u64,
    cpu: Nanos,
    /// The instant of the latest.
    last: Timestamp,
}

/// Sums what is written of each of two processes.
#[derive(Default)]
struct Sums {
    pids: [Option<Pid>; 2],
    sums: [Sum; 2],
    elsewhere: u64,
}

impl Sums {
    fn add(&mut self, dictionary: &Dictionary, (at, scope): (Timestamp, Scope), count: u64, cpu: Nanos) {
        let pid = match scope {
            Scope::Session => None,
            Scope::Process(process) => Some(dictionary.process_of(process).pid),
            Scope::Thread(thread) => Some(dictionary.thread_of(thread).key.pid),
        };
        match self.pids.iter().position(|known| known.is_some() && *known == pid) {
            Some(index) => {
                self.sums[index].attempts += count;
                self.sums[index].cpu += cpu;
                self.sums[index].last = self.sums[index].last.max(at);
            }
            None => self.elsewhere += count,
        }
    }
}

impl Sink for Sums {
    fn take(&mut self, dictionary: &Dictionary, events: &[Event]) {
        for event in events {
            match event {
                Event::Sample(event) => {
                    let sample = &event.sample;
                    self.add(dictionary, (sample.at, Scope::Thread(sample.thread)), event.count, sample.cpu);
                }
                Event::Loss(loss) => self.add(dictionary, (loss.at, loss.scope), loss.count, loss.cpu),
                Event::Skip(skip) => self.add(dictionary, (skip.at, skip.scope), skip.count, skip.cpu),
                _ => {}
            }
        }
    }
}

/// Runs the engine for a phase; returns how long that was.
fn run(engine: &mut Engine, sums: &mut Sums) -> Nanos {
    let start = clock::now();
    let mut next_report = start;
    loop {
        let now = clock::now();
        if now >= next_report {
            next_report = now + REPORT_GAP;
            engine.report(now, sums);
        }
        if now.since(start) >= PHASE {
            engine.cut(sums);
            return now.since(start);
        }
        let next = engine.poll(now, sums);
        engine.wait_until(next.min(next_report).min(start + PHASE));
    }
}

fn engine(kind: SamplerKind) -> Result<Engine> {
    let options = SamplerOptions {
        rate_hz: SLOW_HZ,
        kind,
        policy: CapturePolicy::Running,
        max_cpu: 1.0,
        native: false,
    };
    let mut engine = Engine::new(options);
    if kind == SamplerKind::Bpf {
        let mut program = BpfProgram::load(None)?;
        program.start(Nanos::from_nanos((1e9 / SLOW_HZ) as u64))?;
        engine.set_program(program);
    }
    Ok(engine)
}

/// Starts the engine, which wants many files: programs that other tests start meanwhile would have that limit, too, and some of them
/// close each file that it permits.
fn start(engine: &mut Engine, sums: &mut Sums) -> Result<()> {
    let (before, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    engine.start(sums);
    setrlimit(Resource::RLIMIT_NOFILE, before, most)?;
    Ok(())
}

fn add(engine: &mut Engine, fixture: &Fixture) -> Result<Nanos> {
    let pid = Pid::new(fixture.pid());
    let target = Target::attach(pid)?;
    let cpu = Process::new(pid).cpu_time().unwrap_or_default();
    engine.add(pid, Some(target.forked_runtime()), false);
    Ok(cpu)
}

fn expect_cpu(kind: SamplerKind, sum: Sum, fixture: &Fixture, before: Nanos) -> Result<()> {
    let used = Process::new(Pid::new(fixture.pid())).cpu_time().unwrap_or_default().saturating_sub(before);
    let share = sum.cpu.as_secs_f64() / used.as_secs_f64();
    let by_chance = match kind {
        SamplerKind::Bpf => DEVIATIONS / (sum.attempts as f64).sqrt(),
        SamplerKind::Pause | SamplerKind::Peek => 0.0,
    };
    let around = CPU_AROUND / used.as_secs_f64();
    ensure!((share - 1.0).abs() < CPU_BOUND + around + by_chance, "{sum:?} of {used:?}");
    Ok(())
}

/// The number of attempts per second: of instants for a schedule, of CPU time for the clocks of the in-kernel program.
fn rate(kind: SamplerKind, before: [Sum; 2], after: [Sum; 2], elapsed: Nanos) -> f64 {
    let attempts: u64 = (0..2).map(|index| after[index].attempts - before[index].attempts).sum();
    let cpu: f64 =
        (0..2).map(|index| (after[index].cpu.saturating_sub(before[index].cpu)).as_secs_f64()).sum();
    match kind {
        SamplerKind::Bpf => attempts as f64 / cpu,
        SamplerKind::Pause | SamplerKind::Peek => attempts as f64 / 2.0 / elapsed.as_secs_f64(),
    }
}

fn processes_and_rates_change_while_others_are_sampled(case: &Case) -> Result<()> {
    let kind = match case.sampler() {
        Sampler::Bpf => SamplerKind::Bpf,
        Sampler::Peek => SamplerKind::Peek,
        _ => SamplerKind::Pause,
    };
    let fixtures = [Fixture::inline(case.interpreter, BUSY)?, Fixture::inline(case.interpreter, BUSY)?];
    let pids = fixtures.each_ref().map(|fixture| Some(Pid::new(fixture.pid())));
    let mut sums = Sums { pids, ..Sums::default() };
    let mut engine = engine(kind)?;
    let first_before = add(&mut engine, &fixtures[0])?;
    start(&mut engine, &mut sums)?;

    run(&mut engine, &mut sums);
    ensure!(sums.sums[1].attempts == 0, "the second process was sampled before it was added");

    let second_before = add(&mut engine, &fixtures[1])?;
    let before = sums.sums;
    let slow = run(&mut engine, &mut sums);
    let between = sums.sums;
    engine.set_rate(FAST_HZ, clock::now(), &mut sums);
    let fast = run(&mut engine, &mut sums);
    for (expected, measured) in
        [(SLOW_HZ, rate(kind, before, between, slow)), (FAST_HZ, rate(kind, between, sums.sums, fast))]
    {
        ensure!(
            (measured / expected - 1.0).abs() < RATE_BOUND,
            "{measured} attempts per second at {expected} Hz"
        );
    }

    engine.remove(Pid::new(fixtures[0].pid()), clock::now(), &mut sums);
    let removed_at = clock::now();
    expect_cpu(kind, sums.sums[0], &fixtures[0], first_before)?;
    run(&mut engine, &mut sums);
    ensure!(!engine.is_over(clock::now()), "the second process is still there");
    engine.end(Timestamp::MAX, &mut sums);
    expect_cpu(kind, sums.sums[1], &fixtures[1], second_before)?;
    ensure!(sums.sums[0].last <= removed_at, "the first process was sampled after it was removed");
    ensure!(sums.elsewhere == 0, "{} attempts belong to neither process", sums.elsewhere);
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(processes_and_rates_change_while_others_are_sampled).on(On::Layouts).by(&[
        Sampler::Pause,
        Sampler::Bpf,
        Sampler::Peek,
    ])]
}
