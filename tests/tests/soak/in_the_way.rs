//! The in-kernel sampler where much is in its way: a hundred thousand samples a second, CPUs that go and come back, targets that
//! are gone at any moment.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use profiler_tests::suite::{Sampler, Test};
use profiler_tests::times::{self, BOUND};
use profiler_tests::{
    Collapsed, Fixture, Profiler, RemovableCpu, Run, Running, Scratch, one_interpreter, read_speedscope,
    soak, test,
};

const LABYRINTH: &str = "labyrinth/labyrinth.py";

fn record(words: &str, scratch: &Scratch, name: &str) -> Profiler {
    Profiler::new("record").words(words).words("-o").arg(scratch.file(name))
}

/// Ends a recording as Ctrl-C does.
fn end(running: Running) -> Result<Run> {
    running.signal(Signal::SIGINT)?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    Ok(run)
}

fn highest_rate_loses_samples_and_no_time() -> Result<()> {
    const RATE: f64 = 100_000.0;
    /// Of ticks that do not come at most three in a row are counted as lost, as more is the time of a machine that does not get
    /// its CPU, and none before a sample that finds no room.
    const LEAST: f64 = 0.5;
    let fixture = Fixture::start(one_interpreter(), LABYRINTH, &[])?;
    let scratch = Scratch::new()?;
    soak(|| {
        let words = format!("--sampler bpf -f raw -r {RATE} -d 0.5");
        let run = record(&words, &scratch, "out.txt").pid(&fixture).succeed()?;
        let ledger = run.ledger()?;
        let ticked = (ledger.shown + ledger.lost()) as f64 / RATE;
        let share = ticked / ledger.target_cpu;
        ensure!((LEAST..1.1).contains(&share), "{share} of its ticks are counted: {}", run.stderr);
        // Whatever is lost, time is not.
        let words = format!("--mode wall --sampler bpf -f raw -r {RATE} -d 0.5");
        let run = record(&words, &scratch, "out.txt").pid(&fixture).succeed()?;
        let profile = Collapsed::parse(&fs::read_to_string(scratch.file("out.txt"))?)?;
        let (time, elapsed) = (profile.total() as f64 / 1e9, run.sampled_for()?);
        ensure!((time / elapsed - 1.0).abs() <= BOUND, "{time} s of {elapsed} s: {}", run.stderr);
        Ok(())
    })
}

/// Works in one function until a line comes, then in another on the CPU that the line names, until its stdin closes; the last
/// line that it writes is how much CPU time that took.
const MOVES: &str = "\
import json, os, select, sys, time
def before():
    while not select.select([0], [], [], 0)[0]: pass
def after():
    while not select.select([0], [], [], 0)[0]: pass
print('ready', os.getpid(), flush=True)
before()
os.sched_setaffinity(0, {int(sys.stdin.readline())})
print('moved', flush=True)
start = time.process_time()
after()
print(json.dumps({'burnt': time.process_time() - start}), flush=True)";

fn cpu_that_comes_back_is_sampled_again() -> Result<()> {
    let Some(cpu) = RemovableCpu::find() else { return Ok(()) };
    soak(|| {
        let mut fixture = Fixture::inline(one_interpreter(), MOVES)?;
        let scratch = Scratch::new()?;
        let record = record("--sampler bpf -f speedscope -r 500", &scratch, "out.json");
        let mut running = record.pid(&fixture).spawn()?;
        running.wait_until_sampling()?;
        cpu.remove()?;
        fixture.work_for(Duration::from_millis(300))?;
        cpu.put_back()?;
        fixture.ask(&cpu.number().to_string())?;
        fixture.work_for(Duration::from_secs(1))?;
        let run = end(running)?;
        let burnt = fixture.finish()?["burnt"].as_f64().context("burnt")?;
        let samples = read_speedscope(&fs::read_to_string(scratch.file("out.json"))?)?;
        let of_after = samples.iter().filter(|sample| sample.has("after"));
        let shown: f64 = of_after.map(|sample| sample.weight).sum();
        // Its clock is there within 50 ms; what it burns while the recording ends is not seen.
        let share = shown / burnt;
        ensure!((0.8..=1.05).contains(&share), "{shown} s shown of {burnt} s on it: {}", run.stderr);
        Ok(())
    })
}

fn cpu_that_goes_costs_no_time_of_watched_threads() -> Result<()> {
    let Some(cpu) = RemovableCpu::find() else { return Ok(()) };
    let program = "threads_processes/threads_processes.py";
    let fixture = Fixture::start(one_interpreter(), program, &["--threads", "3"])?;
    let scratch = Scratch::new()?;
    soak(|| {
        let record = record("--mode wall --sampler bpf --min-wait 0 -t -f raw -r 500", &scratch, "out.txt");
        let mut running = record.pid(&fixture).spawn()?;
        running.wait_until_sampling()?;
        for _ in 0..3 {
            cpu.remove()?;
            fixture.work_for(Duration::from_millis(100))?;
            cpu.put_back()?;
            fixture.work_for(Duration::from_millis(100))?;
        }
        let run = end(running)?;
        let profile = Collapsed::parse(&fs::read_to_string(scratch.file("out.txt"))?)?;
        times::must_add_up(&profile, run.sampled_for()?, 4)
    })
}

fn targets_killed_at_any_moment_are_reported() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut moments = (0..30).cycle().map(Duration::from_millis);
    soak(|| {
        let mut fixture = Fixture::inline(one_interpreter(), "print('ready', flush=True)\nwhile True: pass")?;
        let running = record("--sampler bpf -f raw -r 1000", &scratch, "out.txt").pid(&fixture).spawn()?;
        // From before it is looked at to when it is sampled.
        let moment = moments.next().unwrap_or_default();
        std::thread::sleep(moment);
        fixture.kill()?;
        let run = running.wait()?;
        ensure!(matches!(run.code(), Some(0 | 1)), "killed after {moment:?}: {run:?}");
        run.must_say(&["ended", "no process"]).map(drop)
    })
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    const BPF: &[Sampler] = &[Sampler::Bpf];
    vec![
        test!(highest_rate_loses_samples_and_no_time).by(BPF),
        test!(cpu_that_comes_back_is_sampled_again).by(BPF),
        test!(cpu_that_goes_costs_no_time_of_watched_threads).by(BPF),
        test!(targets_killed_at_any_moment_are_reported).by(BPF),
    ]
}
