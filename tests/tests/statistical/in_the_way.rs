//! The in-kernel sampler where something is in its way: others that sample, limits to the rate, high rates, clocks that stop
//! late. It gets its samples, and no time is lost.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use profiler_tests::suite::{Sampler, Test};
use profiler_tests::times::BOUND;
use profiler_tests::{
    Collapsed, Fixture, LoweredLimit, Profiler, Run, Running, Scratch, labyrinth, one_interpreter, place,
    read_speedscope, test,
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

/// The CPU seconds that samples stand for.
fn cpu_time_shown(scratch: &Scratch) -> Result<f64> {
    let samples = read_speedscope(&fs::read_to_string(scratch.file("out.json"))?)?;
    Ok(samples.iter().map(|sample| sample.weight).sum())
}

/// All of the recording's time is shown of a process with one thread.
fn must_show_all_the_time(run: &Run, scratch: &Scratch) -> Result<()> {
    let profile = Collapsed::parse(&fs::read_to_string(scratch.file("out.txt"))?)?;
    let (time, elapsed) = (profile.total() as f64 / 1e9, run.sampled_for()?);
    ensure!((time / elapsed - 1.0).abs() <= BOUND, "{time} s of {elapsed} s: {}", run.stderr);
    Ok(())
}

fn recordings_side_by_side_get_their_samples() -> Result<()> {
    const RATE: f64 = 500.0;
    const WORK: Duration = Duration::from_secs(1);
    let fixture = Fixture::start(one_interpreter(), LABYRINTH, &["--threads", "2"])?;
    let scratch = Scratch::new()?;
    let mut all = Vec::new();
    for (index, sampler) in ["bpf", "bpf", "bpf", "pause"].into_iter().enumerate() {
        let words = format!("--sampler {sampler} -f speedscope -r {RATE}");
        let name = format!("{index}.json");
        let mut running = record(&words, &scratch, &name).pid(&fixture).spawn()?;
        running.wait_until_sampling()?;
        all.push((sampler, name, running));
    }
    fixture.work_for(WORK)?;
    for (sampler, name, running) in all {
        let run = end(running)?;
        let samples = read_speedscope(&fs::read_to_string(scratch.file(&name))?)?;
        let torn: Vec<_> =
            samples.iter().filter_map(|sample| labyrinth::judge(&sample.frames).err()).collect();
        ensure!(torn.is_empty(), "{} torn, such as {}", torn.len(), torn[0]);
        // Of all the time by the kernel's clocks; what `pause` gets depends on what CPU the others leave to it.
        let share = if sampler == "bpf" { 0.8 } else { 0.3 };
        let enough = share * RATE * WORK.as_secs_f64();
        ensure!(samples.len() as f64 > enough, "{sampler}: {}", run.stderr);
        let shown: f64 = samples.iter().map(|sample| sample.weight).sum();
        let all = run.ledger()?.target_cpu;
        let is_all = (0.9..=1.1).contains(&(shown / all));
        ensure!(sampler != "bpf" || is_all, "{shown} s shown of {all} s used: {}", run.stderr);
    }
    Ok(())
}

fn limit_lowered_meanwhile_costs_samples_and_no_time() -> Result<()> {
    let limit = LoweredLimit::later()?;
    let scratch = Scratch::new()?;
    let words = one_interpreter().fixture_words("shares/shares.py", &["--seconds", "1"]);
    let record = record("--sampler bpf -f speedscope -r 10000", &scratch, "out.json");
    let mut running = record.under(&limit).command(&words).spawn()?;
    running.wait_until_sampling()?;
    limit.lower_to(1000)?;
    let run = running.wait()?;
    run.must_say(&["kernel limits the rate"])?;
    run.must_say(&["kernel.perf_event_max_sample_rate"])?;
    let account: serde_json::Value = serde_json::from_str(run.stdout.lines().last().context("no output")?)?;
    let burnt = account["cpu"].as_f64().context("cpu")?;
    let samples = read_speedscope(&fs::read_to_string(scratch.file("out.json"))?)?;
    let shown: f64 = samples.iter().map(|sample| sample.weight).sum();
    // Beside what it burns it starts up and ends.
    ensure!((0.95..1.15).contains(&(shown / burnt)), "{shown} s shown of {burnt} s burnt: {}", run.stderr);
    Ok(())
}

/// The soak tests go beyond.
fn high_rates_lose_neither_ticks_nor_time() -> Result<()> {
    const RATE: f64 = 10_000.0;
    let fixture = Fixture::start(one_interpreter(), LABYRINTH, &[])?;
    let scratch = Scratch::new()?;
    let words = format!("--sampler bpf -f speedscope -r {RATE} -d 0.5");
    let run = record(&words, &scratch, "out.json").pid(&fixture).succeed()?;
    let (shown, all) = (cpu_time_shown(&scratch)?, run.ledger()?.target_cpu);
    ensure!((0.95..=1.05).contains(&(shown / all)), "{shown} s shown of {all} s used: {}", run.stderr);
    ensure!(run.ledger()?.share_kept() > 0.9, "{}", run.stderr);
    let words = format!("--mode wall --sampler bpf -f raw -r {RATE} -d 0.5");
    let run = record(&words, &scratch, "out.txt").pid(&fixture).succeed()?;
    must_show_all_the_time(&run, &scratch)
}

fn ticks_after_the_end_are_not_recorded() -> Result<()> {
    const LATE: f64 = 0.03;
    const RATE: f64 = 2000.0;
    /// By what part a thread may be shown more CPU time than there was, as it moves from one CPU to another.
    const CHANCE: f64 = 0.03;
    let fixture = Fixture::start(one_interpreter(), LABYRINTH, &[])?;
    let scratch = Scratch::new()?;
    let record = |words: &str, file: &str| {
        let profiler = Profiler::within(&place::with_late_clocks(LATE), "record").words(words);
        let profiler = profiler.words(&format!("--sampler bpf -r {RATE} -d 0.5 -o"));
        profiler.arg(scratch.file(file)).pid(&fixture).succeed()
    };
    let run = record("--mode wall -f raw", "out.txt")?;
    must_show_all_the_time(&run, &scratch)?;
    // What it used is counted from a little earlier on than its samples are.
    ensure!(run.ledger()?.target_cpu <= 1.1 * run.sampled_for()?, "{}", run.stderr);
    // Where waits are not recorded, a thread has no more CPU time than there was.
    let run = record("--mode cpu -f speedscope", "out.json")?;
    let (shown, elapsed) = (cpu_time_shown(&scratch)?, run.sampled_for()?);
    ensure!(shown <= (1.0 + CHANCE) * elapsed, "{shown} s shown in {elapsed} s: {}", run.stderr);
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    const BPF: &[Sampler] = &[Sampler::Bpf];
    vec![
        test!(recordings_side_by_side_get_their_samples).needs_programs(),
        test!(limit_lowered_meanwhile_costs_samples_and_no_time).by(BPF),
        test!(high_rates_lose_neither_ticks_nor_time).by(BPF),
        test!(ticks_after_the_end_are_not_recorded).by(BPF),
    ]
}
