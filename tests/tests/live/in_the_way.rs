//! The in-kernel sampler where something is in its way: others who sample, a limit, a CPU that goes, targets that are gone
//! at once. What it needs to be loaded at all is for `kernel_refusals`, a full ring for `full_ring`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    Collapsed, Fixture, LoweredLimit, Profiler, RemovableCpu, Run, Running, Scratch, can_load_programs,
    labyrinth, one_interpreter, place, read_speedscope,
};

const LABYRINTH: &str = "labyrinth/labyrinth.py";

/// By what part of it a tick comes later than was asked for (`LATER_BY` of the sampler).
const LATER_BY: f64 = 64.0;

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

fn recordings_side_by_side_get_their_samples() -> Result<()> {
    const RATE: f64 = 500.0;
    const WORK: Duration = Duration::from_secs(1);
    if !can_load_programs() {
        return Ok(());
    }
    let fixture = Fixture::start(one_interpreter(), LABYRINTH, &["--threads", "2"])?;
    let scratch = Scratch::new()?;
    let mut all = Vec::new();
    for (index, sampler) in ["bpf", "bpf", "bpf", "pause"].into_iter().enumerate() {
        let words = format!("--sampler {sampler} -f raw -r {RATE}");
        let name = format!("{index}.txt");
        let mut running = record(&words, &scratch, &name).pid(&fixture).spawn()?;
        running.wait_until_sampling()?;
        all.push((sampler, name, running));
    }
    fixture.work_for(WORK)?;
    for (sampler, name, running) in all {
        let run = end(running)?;
        let profile = Collapsed::parse(&fs::read_to_string(scratch.file(&name))?)?;
        let torn: Vec<_> =
            profile.stacks.iter().filter_map(|stack| labyrinth::judge(&stack.frames).err()).collect();
        ensure!(torn.is_empty(), "{} torn, such as {}", torn.len(), torn[0]);
        // Of all the time by the kernel's clocks; what `pause` gets depends on what CPU the others leave to it.
        let share = if sampler == "bpf" { 0.8 } else { 0.3 };
        let enough = share * RATE * WORK.as_secs_f64();
        ensure!(profile.total() as f64 > enough, "{sampler}: {}", run.stderr);
    }
    Ok(())
}

fn a_limit_that_is_lowered_meanwhile_costs_samples_and_no_time() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    let limit = LoweredLimit::later()?;
    let scratch = Scratch::new()?;
    let words = one_interpreter().fixture_words("shares/shares.py", &["--seconds", "2"]);
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

fn as_many_samples_as_there_may_be_are_taken_or_told_as_lost() -> Result<()> {
    const RATE: f64 = 100_000.0;
    const SECONDS: f64 = 0.5;
    /// Of ticks that do not come at most three are told in a row, as more is the time of a machine that does not get its
    /// CPU, and none before a sample that finds no room.
    const LEAST: f64 = 0.5;
    if !can_load_programs() {
        return Ok(());
    }
    let fixture = Fixture::start(one_interpreter(), LABYRINTH, &[])?;
    let scratch = Scratch::new()?;
    let words = format!("--sampler bpf -f raw -r {RATE} -d {SECONDS}");
    let run = record(&words, &scratch, "out.txt").pid(&fixture).succeed()?;
    let period = (1.0 + 1.0 / LATER_BY) / RATE;
    let ledger = run.ledger()?;
    let share = (ledger.shown + ledger.lost()) as f64 * period / ledger.target_cpu;
    ensure!((LEAST..1.1).contains(&share), "{share} of its ticks are told: {}", run.stderr);
    // Whatever is lost, time is not.
    let words = format!("--mode wall -f raw -r {RATE} -d {SECONDS}");
    let run = record(&words, &scratch, "out.txt").pid(&fixture).succeed()?;
    let profile = Collapsed::parse(&fs::read_to_string(scratch.file("out.txt"))?)?;
    let (time, elapsed) = (profile.total() as f64 / 1e9, run.sampled_for()?);
    ensure!((time / elapsed - 1.0).abs() <= 0.01, "{time} s of {elapsed} s: {}", run.stderr);
    Ok(())
}

/// Works in one function until it is told to, then in another, on the CPU that it is told, until its stdin closes; tells
/// then how much CPU time that took.
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

fn a_cpu_that_comes_back_is_sampled_again() -> Result<()> {
    let (true, Some(cpu)) = (can_load_programs(), RemovableCpu::find()) else { return Ok(()) };
    let mut fixture = Fixture::inline(one_interpreter(), MOVES)?;
    let scratch = Scratch::new()?;
    let mut running =
        record("--sampler bpf -f speedscope -r 500", &scratch, "out.json").pid(&fixture).spawn()?;
    running.wait_until_sampling()?;
    cpu.remove()?;
    fixture.work_for(Duration::from_millis(300))?;
    cpu.put_back()?;
    fixture.ask(&cpu.number().to_string())?;
    fixture.work_for(Duration::from_secs(1))?;
    let run = end(running)?;
    let burnt = fixture.finish()?["burnt"].as_f64().context("burnt")?;
    let samples = read_speedscope(&fs::read_to_string(scratch.file("out.json"))?)?;
    let of_after = samples.iter().filter(|sample| sample.frames.iter().any(|f| f.plain_name() == "after"));
    let shown: f64 = of_after.map(|sample| sample.weight).sum();
    // Its clock is there within 50 ms; what it burns while the recording ends is not seen.
    ensure!(shown >= 0.8 * burnt, "{shown} s shown of {burnt} s on the CPU that came back: {}", run.stderr);
    Ok(())
}

fn a_cpu_that_goes_and_comes_back_costs_no_time_of_threads_that_are_watched() -> Result<()> {
    const BOUND: f64 = 0.01;
    let (true, Some(cpu)) = (can_load_programs(), RemovableCpu::find()) else { return Ok(()) };
    let program = "threads_processes/threads_processes.py";
    let fixture = Fixture::start(one_interpreter(), program, &["--threads", "3"])?;
    let scratch = Scratch::new()?;
    let record = record("--mode wall --min-wait 0 -t -f raw -r 500", &scratch, "out.txt");
    let mut running = record.pid(&fixture).spawn()?;
    running.wait_until_sampling()?;
    for _ in 0..3 {
        cpu.remove()?;
        fixture.work_for(Duration::from_millis(100))?;
        cpu.put_back()?;
        fixture.work_for(Duration::from_millis(100))?;
    }
    let run = end(running)?;
    let elapsed = run.sampled_for()?;
    let profile = Collapsed::parse(&fs::read_to_string(scratch.file("out.txt"))?)?;
    let threads = ["counter-0", "counter-1", "counter-2", "MainThread"];
    for thread in threads {
        let time = profile.count(|stack| stack.thread.as_deref() == Some(thread)) as f64 / 1e9;
        ensure!((time / elapsed - 1.0).abs() <= BOUND, "{thread}: {time} s of {elapsed} s: {}", run.stderr);
    }
    Ok(())
}

fn ticks_of_clocks_that_stop_late_are_none_of_the_recording() -> Result<()> {
    const LATE: f64 = 0.03;
    const BOUND: f64 = 0.01;
    /// By what part a thread may have more samples than a clock has ticks, as it moves from one to another.
    const CHANCE: f64 = 0.03;
    if !can_load_programs() {
        return Ok(());
    }
    let fixture = Fixture::start(one_interpreter(), LABYRINTH, &[])?;
    let scratch = Scratch::new()?;
    let out = scratch.file("out.txt");
    let profiler = || Profiler::within(&place::with_late_clocks(LATE), "record");
    let record = |words: &str| profiler().words(words).words("-o").arg(&out).pid(&fixture).succeed();
    let run = record("--mode wall -f raw -r 2000 -d 0.5")?;
    let time = Collapsed::parse(&fs::read_to_string(&out)?)?.total() as f64 / 1e9;
    let elapsed = run.sampled_for()?;
    ensure!((time / elapsed - 1.0).abs() <= BOUND, "{time} s of {elapsed} s: {}", run.stderr);
    // What it used is counted from a little earlier on than its samples are.
    ensure!(run.ledger()?.target_cpu <= 1.1 * elapsed, "{}", run.stderr);
    // Where waits are of no account, a thread has no more samples than there were ticks in this time.
    let run = record("--sampler bpf -f raw -r 2000 -d 0.5")?;
    let ledger = run.ledger()?;
    let told = ledger.shown + ledger.lost();
    let ticks = run.sampled_for()? * 2000.0 / (1.0 + 1.0 / LATER_BY);
    ensure!(told as f64 <= (1.0 + CHANCE) * ticks, "of {ticks} ticks: {}", run.stderr);
    Ok(())
}

fn targets_that_end_at_once_hurt_nobody() -> Result<()> {
    const TIMES: u64 = 10;
    if !can_load_programs() {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    for time in 0..TIMES {
        // A command that is no Python, one that is but ends before anything is seen, and one that ends meanwhile.
        let no_python = ["sh", "-c", "exit 7"].map(Into::into).to_vec();
        let short = one_interpreter().inline_words("raise SystemExit(7)");
        for words in [no_python, short] {
            let run = record("--sampler bpf -f raw -r 1000", &scratch, "out.txt").command(&words).run()?;
            ensure!(run.code() == Some(7), "{words:?}: {run:?}");
            run.must_say(&[])?;
        }
        let mut fixture = Fixture::inline(one_interpreter(), "print('ready', flush=True)\nwhile True: pass")?;
        let running = record("--sampler bpf -f raw -r 1000", &scratch, "out.txt").pid(&fixture).spawn()?;
        // From before it is looked at to when it is sampled.
        std::thread::sleep(Duration::from_millis(3 * time));
        fixture.kill()?;
        let run = running.wait()?;
        ensure!(matches!(run.code(), Some(0 | 1)), "killed after {} ms: {run:?}", 3 * time);
        run.must_say(&["ended", "no process"])?;
    }
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(recordings_side_by_side_get_their_samples),
        test!(a_limit_that_is_lowered_meanwhile_costs_samples_and_no_time),
        test!(as_many_samples_as_there_may_be_are_taken_or_told_as_lost),
        test!(a_cpu_that_comes_back_is_sampled_again),
        test!(a_cpu_that_goes_and_comes_back_costs_no_time_of_threads_that_are_watched),
        test!(ticks_of_clocks_that_stop_late_are_none_of_the_recording),
        test!(targets_that_end_at_once_hurt_nobody),
    ]
}
