//! The in-kernel sampler: the times that it shows are those that there were.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use profiler_tests::statistics::{Parts, state};
use profiler_tests::suite::{Case, On, Sampler, Test};
use profiler_tests::{
    Fixture, Interpreter, LoweredLimit, Profiler, Run, Scratch, WeightedSample, one_interpreter,
    read_speedscope, test,
};
use serde_json::Value;

fn samples_of(scratch: &Scratch) -> Result<Vec<WeightedSample>> {
    read_speedscope(&fs::read_to_string(scratch.file("out.json"))?)
}

fn record(words: &str, scratch: &Scratch) -> Profiler {
    Profiler::new("record").words("--sampler bpf -f speedscope -o").arg(scratch.file("out.json")).words(words)
}

/// The seconds that such samples stand for.
fn sum(samples: &[WeightedSample], is_meant: impl Fn(&WeightedSample) -> bool) -> f64 {
    samples.iter().filter(|sample| is_meant(sample)).map(|sample| sample.weight).sum()
}

/// The account in the last line that a command has written.
fn account_of(run: &Run) -> Result<Value> {
    Ok(serde_json::from_str(run.stdout.lines().last().context("no output")?)?)
}

/// For how long each thread was shown, in seconds, by its name; and how long that took. No thread is stopped for it.
fn shown(fixture: &Fixture, options: &str) -> Result<(BTreeMap<String, f64>, f64)> {
    let scratch = Scratch::new()?;
    let run = record(&format!("-t -r 500 -d 0.8 {options}"), &scratch).pid(fixture).succeed()?;
    ensure!(run.ledger()?.stops.count == 0, "{:?}", run.ledger());
    let mut shown = BTreeMap::new();
    for sample in samples_of(&scratch)? {
        let name = sample.profile.rsplit(' ').next().unwrap_or_default().trim_matches('"').to_owned();
        *shown.entry(name).or_default() += sample.weight;
    }
    Ok((shown, run.sampled_for()?))
}

/// With `--idle`, threads that wait are shown for as long as they wait.
fn waits_add_up(fixture: &mut Fixture) -> Result<()> {
    fixture.ask("alternate")?;
    let (shown, lasted) = shown(fixture, "--idle")?;
    let of = |name: &str| shown.get(name).copied().with_context(|| format!("no {name}: {shown:?}"));
    let whole = of("sleeps")?;
    // All but what it took to begin.
    ensure!(whole > 0.95 * lasted && whole < 1.01 * lasted, "{whole} s of {lasted}");
    for name in ["waits_for_lock", "waits_for_socket", "waits_for_pipe"] {
        let time = of(name)?;
        ensure!((time - whole).abs() < 0.01 * whole, "{name}: {time} s beside {whole}");
    }
    // It works for a quarter of the time at most; how long it then waited for a CPU is known if it was met waiting.
    let time = of("alternates")?;
    ensure!(time > 0.6 * whole && time < 1.2 * whole, "alternates: {time} s beside {whole}");
    Ok(())
}

/// With `--gil`, only the thread that holds it is shown.
fn gil_is_held_by_one(fixture: &mut Fixture) -> Result<()> {
    fixture.ask("spin")?;
    fixture.ask("hash")?;
    let (shown, lasted) = shown(fixture, "--gil")?;
    let whole: f64 = shown.values().sum();
    let hashes = shown.get("hashes").copied().unwrap_or_default();
    // One that got the GIL only at the end has no name yet.
    let others: f64 = ["hashes", "alternates"].iter().filter_map(|name| shown.get(*name)).sum();
    ensure!((0.5..1.1).contains(&(whole / lasted)), "one GIL was held for {whole} s of {lasted}: {shown:?}");
    ensure!(hashes < 0.2 * whole, "{hashes} s of {whole} in C code without the GIL");
    ensure!(others < 0.5 * whole, "{others} s of {whole}: {shown:?}");
    Ok(())
}

fn idle_threads_and_gil_add_up_without_stops(case: &Case) -> Result<()> {
    let mut fixture = Fixture::start(case.interpreter, "waiting/waiting.py", &[])?;
    waits_add_up(&mut fixture)?;
    gil_is_held_by_one(&mut fixture)
}

/// Records a program that burns about a second, and compares what is shown with what it burnt by its own account, and with
/// the CPU time of the whole process, of which at most `most` is shown.
fn must_show_what_is_burnt(
    interpreter: &Interpreter,
    under: impl Fn(Profiler) -> Profiler,
    most: f64,
) -> Result<Run> {
    let scratch = Scratch::new()?;
    let words = interpreter.fixture_words("shares/shares.py", &["--seconds", "1"]);
    let run = under(record("-r 1000", &scratch)).command(&words).succeed()?;
    let burnt = account_of(&run)?["cpu"].as_f64().context("cpu")?;
    let (shown, all) = (sum(&samples_of(&scratch)?, |_| true), run.ledger()?.target_cpu);
    // Beside what it burns it starts up and ends. The first ticks may come before it is known.
    ensure!(shown >= 0.95 * burnt, "{shown} s shown of {burnt} s burnt: {}", run.stderr);
    ensure!((0.95..=most).contains(&(shown / all)), "{shown} s shown of {all} s used: {}", run.stderr);
    Ok(run)
}

fn every_tick_of_the_target_is_counted(case: &Case) -> Result<()> {
    must_show_what_is_burnt(case.interpreter, |record| record, 1.05).map(drop)
}

/// Each of the few ticks stands for the time since the last one, whichever thread ran meanwhile.
fn lowered_limit_costs_samples_and_no_time() -> Result<()> {
    let limit = LoweredLimit::to(100)?;
    let run = must_show_what_is_burnt(one_interpreter(), |record| record.under(&limit), 1.15)?;
    run.must_say(&["kernel limits the rate"])?;
    run.must_say(&["kernel.perf_event_max_sample_rate"])
}

/// Works for 2.5 ms of every 20, and says what that came to.
const BURSTS: &str = "\
import json, time
def work(seconds):
    start = time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)
    while time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID) < start + seconds: pass
    return time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID) - start
time.sleep(0.1)
burnt = 0
for burst in range(320):
    burnt += work(0.0025)
    time.sleep(0.0175)
print(json.dumps({'burnt': burnt}), flush=True)";

fn idle_time_is_not_counted_as_cpu_time() -> Result<()> {
    const BURSTS_OF_IT: f64 = 320.0;
    const RATE: f64 = 250.0;
    let scratch = Scratch::new()?;
    let run = record(&format!("-r {RATE}"), &scratch).command(&one_interpreter().inline_words(BURSTS));
    let run = run.succeed()?;
    let burnt = account_of(&run)?["burnt"].as_f64().context("burnt")?;
    let shown = sum(&samples_of(&scratch)?, |sample| sample.has("work"));
    // How many ticks meet a burst is decided by where it begins: at most half a tick off, in the mean of the squares. The
    // longest period is one and a half times the mean.
    let deviation = 0.5 * 1.5 / RATE * BURSTS_OF_IT.sqrt();
    let finds = format!("{:.1} % of the time", 100.0 * (0.05 + 7.7 * deviation / burnt));
    let chance = state("bursts after idle time by bpf", 1, &finds) * deviation;
    ensure!(
        (shown - burnt).abs() <= chance + 0.05 * burnt,
        "{shown} s shown of {burnt} s burnt, {chance} s by chance: {}",
        run.stderr
    );
    Ok(())
}

/// Always at work until stdin closes, in one function in the first half of every two milliseconds and in another in
/// the second half.
const BEAT: &str = "\
import json, os, select, time
HALF = 0.001
cpu = lambda: time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)
def first_half(end):
    while time.monotonic() < end: pass
def second_half(end):
    while time.monotonic() < end: pass
burnt = {'first_half': 0, 'second_half': 0}
print('ready', os.getpid(), flush=True)
beat = time.monotonic()
while not select.select([0], [], [], 0)[0]:
    for half in first_half, second_half:
        before = cpu()
        beat += HALF
        half(beat)
        burnt[half.__name__] += cpu() - before
print(json.dumps(burnt), flush=True)";

fn periodic_program_is_seen_in_all_its_parts() -> Result<()> {
    const RATE: f64 = 500.0;
    let scratch = Scratch::new()?;
    let fixture = Fixture::inline(one_interpreter(), BEAT)?;
    let running = record(&format!("-r {RATE}"), &scratch).pid(&fixture).spawn()?;
    let run = running.end_after_cpu_time(fixture.pid(), Duration::from_secs(2))?;
    let account = fixture.finish()?;
    let samples = samples_of(&scratch)?;
    let (mut parts, mut all) = (Parts::default(), 0.0);
    for half in ["first_half", "second_half"] {
        let shown = sum(&samples, |sample| sample.has(half));
        parts.add(half, account[half].as_f64().with_context(|| half.to_owned())?, shown);
        all += shown;
    }
    ensure!(all * RATE > 500.0, "{} samples: {}", all * RATE, run.stderr);
    parts.add_number(all * RATE);
    parts.judge("halves of a period of 2 ms by bpf", None, 0.0)
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    const BPF: &[Sampler] = &[Sampler::Bpf];
    vec![
        test!(idle_threads_and_gil_add_up_without_stops).on(On::Layouts).by(BPF),
        test!(every_tick_of_the_target_is_counted).on(On::Layouts).by(BPF),
        test!(lowered_limit_costs_samples_and_no_time).by(BPF),
        test!(idle_time_is_not_counted_as_cpu_time).by(BPF),
        test!(periodic_program_is_seen_in_all_its_parts).by(BPF),
    ]
}
