//! What `record` writes, as others write and read it: collapsed stacks against those of py-spy 0.4.3, traces
//! and speedscope files against the time that a program says it spent.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Sampler, Test};
use profiler_tests::test;
use profiler_tests::tree::wait_for_work;
use profiler_tests::{
    Fixture, Ledger, Profiler, Run, Scratch, WORK, check_schema, check_trace_events, missing,
    wait_until_still,
};
use serde_json::Value;

/// Collapsed stacks that py-spy 0.4.3 wrote of `data/layouts.py` (`record -r 20 -d 1 -i -f raw` and the
/// options in brackets), sorted, with what differs from run to run replaced by words.
const OF_PY_SPY: &str = include_str!("../../data/raw_of_py_spy.txt");

fn expected(options: &str) -> BTreeSet<String> {
    let head = format!("[{options}]");
    let lines = OF_PY_SPY.lines().skip_while(|line| *line != head).skip(1);
    // Where py-spy lets `;` in a name cut the frame in two, ours writes it out.
    lines
        .take_while(|line| !line.starts_with('['))
        .map(|line| line.replace("sem;colon", r"sem\u{3b}colon"))
        .collect()
}

/// `text` with the number that follows each `before` replaced by `word`.
fn without_numbers(text: &str, before: &str, word: &str) -> String {
    let mut parts = text.split(before);
    let mut replaced = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        replaced += before;
        replaced += if rest.len() < part.len() { word } else { "" };
        replaced += rest;
    }
    replaced
}

fn is_ledger(line: &str) -> bool {
    line.starts_with("<ledger: ")
}

/// The stacks of a recording of the fixture, with what differs from run to run replaced as in [`OF_PY_SPY`].
fn stacks_as_of_py_spy(text: &str, fixture: &Fixture, names: &[(&str, &str)]) -> Result<BTreeSet<String>> {
    let lines = text.lines().filter(|line| !is_ledger(line)).map(|line| {
        let (stack, weight) = line.rsplit_once(' ').context("a line without a weight")?;
        ensure!(weight.parse::<u64>()? > 0, "{line}");
        let stack = without_numbers(&without_numbers(stack, "threading.py:", "LINE"), "thread (", "TID");
        let pids = [(fixture.pid(), "PID"), (fixture.children()[0], "CHILD")];
        let stack = pids.iter().fold(stack, |stack, (pid, name)| {
            stack.replace(&format!("process {pid}:"), &format!("process {name}:"))
        });
        Ok(names.iter().fold(stack, |stack, (text, name)| stack.replace(text, name)))
    });
    lines.collect()
}

fn collapsed_stacks_are_those_of_py_spy(case: &Case) -> Result<()> {
    if case.interpreter.minor < 11 {
        missing("an interpreter with qualified names, 3.11 or later: py-spy's stacks are of one");
        return Ok(());
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/layouts.py");
    let mut words = case.interpreter.words();
    words.extend([script.clone().into(), "tree".into()]);
    let fixture = Fixture::start_words(&words)?;
    for pid in [fixture.pid(), fixture.children()[0]] {
        wait_until_still(pid)?;
    }
    let (python, script) = (words[0].to_string_lossy(), script.to_string_lossy());
    let names = [(&*python, "PYTHON"), (&*script, "SCRIPT")];
    let usual = ["", "-t", "-t -F", "-t --nolineno", "-s", "-s -t"].map(|options| ("-d 0.2", options));
    // So soon nothing is seen but what waits at the end, which the in-kernel sampler reports.
    let soon = (case.sampler() == Sampler::Bpf).then_some(("-d 0.001", "-t"));
    for (duration, options) in usual.into_iter().chain(soon) {
        let record = Profiler::new("record").words("-r 100 -i -f raw -o -").words(&case.sampler_words());
        let text = record.words(duration).words(options).pid(&fixture).succeed()?.stdout;
        let stacks = stacks_as_of_py_spy(&text, &fixture, &names)?;
        let expected = expected(options);
        ensure!(stacks == expected, "[{options}] {duration}: {stacks:#?} instead of {expected:#?}");
    }
    Ok(())
}

/// Works when asked to, sleeps and works again.
const TWO_BURSTS: &str = "\
import os, sys, time
def first(until):
    while time.monotonic() < until: pass
def second(until):
    while time.monotonic() < until: pass
def rest():
    time.sleep(0.3)
print('ready', os.getpid(), flush=True)
sys.stdin.readline()
first(time.monotonic() + 0.2)
rest()
second(time.monotonic() + 0.2)
print('done', flush=True)
sys.stdin.readline()
";

/// The stretches of a recording of both bursts.
fn record_bursts(case: &Case, format: Timeline, options: &str) -> Result<(Vec<Stretch>, Run)> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out");
    let mut fixture = Fixture::inline(case.interpreter, TWO_BURSTS)?;
    let record = Profiler::new("record").words(&case.sampler_words()).words(options);
    let record = record.words("-r 500 -f").arg(format.name()).arg("-o").arg(&file);
    let mut running = record.pid(&fixture).spawn()?;
    running.wait_until_sampling()?;
    fixture.ask("")?;
    fixture.close_stdin();
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    Ok((format.stretches(&serde_json::from_str(&std::fs::read_to_string(&file)?)?)?, run))
}

/// A format that shows what happened when.
#[derive(Clone, Copy, Debug)]
enum Timeline {
    Speedscope,
    Chrometrace,
}

impl Timeline {
    fn name(self) -> &'static str {
        match self {
            Timeline::Speedscope => "speedscope",
            Timeline::Chrometrace => "chrometrace",
        }
    }

    fn stretches(self, file: &Value) -> Result<Vec<Stretch>> {
        match self {
            Timeline::Speedscope => speedscope_stretches(file),
            Timeline::Chrometrace => trace_stretches(file),
        }
    }
}

/// The unit of times in traces, per second.
const MICROSECONDS: f64 = 1e6;

/// A stretch of the main thread's time: from when to when, in seconds, and the functions.
type Stretch = (f64, f64, Vec<String>);

/// Draws the stretches of a speedscope file as its viewer does: one sample behind the other.
fn speedscope_stretches(file: &Value) -> Result<Vec<Stretch>> {
    let frames = file["shared"]["frames"].as_array().context("frames")?;
    let profiles = file["profiles"].as_array().context("profiles")?;
    ensure!(profiles.len() == 1, "{} threads", profiles.len());
    let samples = profiles[0]["samples"].as_array().context("samples")?;
    let weights = profiles[0]["weights"].as_array().context("weights")?;
    let mut now = 0.0;
    let mut stretches = Vec::new();
    for (sample, weight) in samples.iter().zip(weights) {
        let start = now;
        now += weight.as_f64().context("a weight")?;
        let indices = sample.as_array().context("a sample")?.iter().filter_map(Value::as_u64);
        let names = indices.filter_map(|index| frames[index as usize]["name"].as_str().map(str::to_owned));
        stretches.push((start, now, names.collect()));
    }
    Ok(stretches)
}

/// Draws the stretches of a trace: between two events the functions that have begun and not ended.
fn trace_stretches(file: &Value) -> Result<Vec<Stretch>> {
    let mut open: Vec<String> = Vec::new();
    let mut now = 0.0;
    let mut stretches = Vec::new();
    for event in file.as_array().context("events")?.iter().filter(|event| event["ph"] != "M") {
        let at = event["ts"].as_f64().context("a time")? / MICROSECONDS;
        ensure!(at >= now, "{event} goes back in time");
        stretches.push((now, at, open.clone()));
        now = at;
        let name = event["name"].as_str().context("a name")?.to_owned();
        match event["ph"].as_str() {
            Some("B") => open.push(name),
            Some("E") => ensure!(open.pop() == Some(name), "{event} ends another slice"),
            other => anyhow::bail!("phase {other:?}"),
        }
    }
    ensure!(open.is_empty(), "{open:?} never end");
    Ok(stretches)
}

/// When stretches with this function began and when the last of them ended.
fn span(stretches: &[Stretch], function: &str) -> Result<(f64, f64)> {
    let with = || {
        stretches
            .iter()
            .filter(|(start, end, names)| end > start && names.iter().any(|name| name == function))
    };
    let start = with().next().with_context(|| format!("{function} was not seen"))?.0;
    Ok((start, with().next_back().map_or(start, |last| last.1)))
}

/// Seconds between two ticks of the recordings.
const TICK: f64 = 1.0 / 500.0;

/// The span of a function without its first and its last stretch where these are no longer than a tick: they may be what a
/// clock has met, before and after a sleep.
fn without_ticks(stretches: &[Stretch], function: &str) -> (f64, f64) {
    let is_of = |(start, end, names): &&Stretch| end > start && names.iter().any(|name| name == function);
    let those: Vec<&Stretch> = stretches.iter().filter(is_of).collect();
    let is_short = |stretch: Option<&&Stretch>| stretch.is_some_and(|stretch| stretch.1 - stretch.0 <= TICK);
    let longer = usize::from(is_short(those.first()))..those.len() - usize::from(is_short(those.last()));
    let longer = those.get(longer).unwrap_or_default();
    (longer.first().map_or(0.0, |first| first.0), longer.last().map_or(0.0, |last| last.1))
}

/// What happened later stands later, and there is nothing where nothing was seen: sleep is not asked for.
fn sleep_is_a_gap(case: &Case, format: Timeline) -> Result<()> {
    let (stretches, _) = record_bursts(case, format, "")?;
    let (first, second) = (span(&stretches, "first")?, span(&stretches, "second")?);
    ensure!(first.0 < first.1 && first.1 < second.0 && second.0 < second.1, "{first:?} {second:?}");
    let is_between = |(start, end, _): &Stretch| end > start && *start >= first.1 && *end <= second.0;
    let is_gap = |stretch: &Stretch| stretch.2.is_empty() && is_between(stretch);
    ensure!(stretches.iter().any(is_gap), "nothing between {first:?} and {second:?}");
    Ok(())
}

fn sleep_is_a_gap_in_speedscope(case: &Case) -> Result<()> {
    sleep_is_a_gap(case, Timeline::Speedscope)
}

fn sleep_is_a_gap_in_trace(case: &Case) -> Result<()> {
    sleep_is_a_gap(case, Timeline::Chrometrace)
}

/// Where sleep is asked for, it fills what is between the bursts. What a clock inside the kernel has met stands for one
/// tick at most, so that there may be less than one of which nothing is known before a sleep, whose length is exact, and
/// after the last look at it.
fn sleep_fills_its_time(case: &Case, format: Timeline) -> Result<()> {
    let (stretches, run) = record_bursts(case, format, "-i")?;
    let [first, rest, second] =
        [span(&stretches, "first")?, span(&stretches, "rest")?, span(&stretches, "second")?];
    ensure!(first.1 <= rest.0 && rest.1 <= second.0, "{first:?} {rest:?} {second:?}");
    let filled = match case.sampler() {
        Sampler::Bpf => without_ticks(&stretches, "rest"),
        _ => (first.0, second.1),
    };
    if case.sampler() == Sampler::Bpf {
        // Looks come at random: once in a million the last of a sleep is more than 14 ticks before its end.
        let (before, after) = (filled.0 - rest.0, rest.1 - filled.1);
        ensure!(before < 2.0 * TICK && after < 15.0 * TICK, "{before} s before, {after} s after");
    }
    let within = stretches.iter().filter(|(start, end, _)| *start >= filled.0 && *end <= filled.1);
    let is_empty = |(start, end, names): &&Stretch| names.is_empty() && start != end;
    // What a lost sample stands for is known to nobody: such as one that came late beside other work.
    let lost: u64 = run.ledger()?.lost.values().sum();
    let empty: Vec<&Stretch> = within.clone().filter(is_empty).collect();
    let is_filled = within.count() > 0 && empty.len() as u64 <= lost;
    ensure!(is_filled, "nothing is known of {empty:?} in {filled:?}: {:?}", run.ledger());
    Ok(())
}

fn sleep_fills_its_time_in_speedscope(case: &Case) -> Result<()> {
    sleep_fills_its_time(case, Timeline::Speedscope)
}

fn sleep_fills_its_time_in_trace(case: &Case) -> Result<()> {
    sleep_fills_its_time(case, Timeline::Chrometrace)
}

fn file_name_chooses_traces(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let file = scratch.file("run.trace.json");
    let record = Profiler::new("record").words(&case.sampler_words()).words("-r 500 -o").arg(&file);
    record.command(&case.interpreter.inline_words(WORK)).succeed()?;
    let trace: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
    ensure!(!trace_stretches(&trace)?.is_empty(), "nothing seen");
    let events = trace.as_array().context("events")?;
    let ledger = events.iter().find(|event| event["name"] == "ledger").context("no ledger")?;
    ensure!(Ledger::read(&ledger["args"])?.attempts > 0, "{ledger}");
    Ok(())
}

/// speedscope's own schema of its files, as its package 1.25.0 (MIT license) has it.
const SPEEDSCOPE_SCHEMA: &str = include_str!("../../data/speedscope_schema.json");

/// CPU time of each process in which there are far more samples than are needed.
const ENOUGH_WORK: Duration = Duration::from_millis(100);

/// What `record` writes in this format of the fixture, of which each child works for a while.
fn recorded(case: &Case, fixture: &Fixture, format: &str, options: &str) -> Result<Value> {
    let record = Profiler::new("record").words(&case.sampler_words()).words("-r 200 -o - -f");
    let mut running = record.arg(format).words(options).pid(fixture).spawn()?;
    running.wait_until_sampling()?;
    wait_for_work(fixture.children(), ENOUGH_WORK)?;
    running.signal(Signal::SIGINT)?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    serde_json::from_str(&run.stdout).context("no JSON")
}

/// What the schema cannot ask for, and the viewer of speedscope takes for granted.
fn must_be_drawable(profile: &Value, frames: u64) -> Result<()> {
    let samples = profile["samples"].as_array().context("samples")?;
    let weights = profile["weights"].as_array().context("weights")?;
    ensure!(!samples.is_empty() && samples.len() == weights.len(), "{} samples", samples.len());
    let mut indices = samples.iter().flat_map(|sample| sample.as_array().into_iter().flatten());
    ensure!(indices.all(|index| index.as_u64().is_some_and(|index| index < frames)), "unknown frames");
    let weights: Vec<f64> = weights.iter().filter_map(Value::as_f64).collect();
    ensure!(weights.iter().all(|weight| *weight >= 0.0), "negative weights");
    let [start, end] = ["startValue", "endValue"].map(|name| profile[name].as_f64());
    let (sum, whole) = (weights.iter().sum::<f64>(), end.context("an end")? - start.context("a start")?);
    ensure!((sum - whole).abs() < 1e-6, "{sum} of {whole} s");
    Ok(())
}

fn speedscope_files_follow_its_schema(case: &Case) -> Result<()> {
    let schema: Value = serde_json::from_str(SPEEDSCOPE_SCHEMA)?;
    let fixture = Fixture::start(case.interpreter, "tree/tree.py", &["prefork", "2"])?;
    for options in ["-s", "-s -i", "-s -t", "-s -F --nolineno"] {
        let file = recorded(case, &fixture, "speedscope", options)?;
        check_schema(&schema, &file).context(options)?;
        let listed = file["shared"]["frames"].as_array().context("frames")?;
        listed.iter().try_for_each(must_have_four_properties).context(options)?;
        let frames = listed.len() as u64;
        let profiles = file["profiles"].as_array().context("profiles")?;
        ensure!(profiles.len() >= 2, "[{options}] {} threads of two workers", profiles.len());
        let active = file["activeProfileIndex"].as_u64().context("activeProfileIndex")?;
        ensure!(active < profiles.len() as u64, "[{options}] profile {active}");
        profiles.iter().try_for_each(|profile| must_be_drawable(profile, frames)).context(options)?;
    }
    fixture.finish().map(drop)
}

/// A program whose only thread sleeps.
const SLEEPER: &str = "
import os, time
print('ready', os.getpid(), flush=True)
time.sleep(1000)
";

/// That nothing held the GIL is an answer, as with py-spy; that every thread slept needs another option.
fn gil_recording_of_a_sleeper_is_an_empty_view(case: &Case) -> Result<()> {
    let fixture = Fixture::inline(case.interpreter, SLEEPER)?;
    wait_until_still(fixture.pid())?;
    let words = format!("-d 0.2 -f raw -o - {}", case.sampler_words());
    let record = |more: &str| Profiler::new("record").words(&words).words(more).pid(&fixture);
    let run = record("--gil").succeed()?;
    run.must_say(&["no thread held the GIL"])?;
    ensure!(run.stdout.lines().all(|line| line.ends_with(" 0")), "{}", run.stdout);
    record("").fail(&["--idle"])?;
    Ok(())
}

/// What the readers of py-spy's files take for granted of each frame, those of processes and threads included.
fn must_have_four_properties(frame: &Value) -> Result<()> {
    let properties: BTreeSet<&str> =
        frame.as_object().context("a frame")?.keys().map(String::as_str).collect();
    ensure!(properties == BTreeSet::from(["name", "file", "line", "col"]), "{frame}");
    ensure!(frame["line"].is_u64() && frame["col"].is_u64() && frame["file"].is_string(), "{frame}");
    Ok(())
}

/// Each sample is an entry of its own, so that entries can be counted.
fn speedscope_has_one_entry_per_sample(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, "labyrinth/labyrinth.py", &[])?;
    let record =
        Profiler::new("record").words(&case.sampler_words()).words("-r 200 -d 0.5 -i -f speedscope -o -");
    let file: Value = serde_json::from_str(&record.pid(&fixture).succeed()?.stdout)?;
    let profiles = file["profiles"].as_array().context("profiles")?;
    let samples = profiles.iter().filter_map(|profile| profile["samples"].as_array()).flatten();
    let entries =
        samples.filter(|sample| sample.as_array().is_some_and(|stack| !stack.is_empty())).count() as u64;
    let shown = Ledger::read(&file["ledger"])?.shown;
    // What weighs nothing is no entry: a thread that was met twice at the same instant.
    ensure!(entries <= shown && entries * 20 >= shown * 19, "{entries} entries of {shown} samples");
    ensure!(file["equal_neighbours_merged"].is_null(), "so few samples need no merging");
    Ok(())
}

fn traces_follow_their_viewers(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, "tree/tree.py", &["prefork", "2"])?;
    for options in ["-s", "-s -i", "-s -t -F --nolineno"] {
        let file = recorded(case, &fixture, "chrometrace", options)?;
        let drawn = check_trace_events(&file).context(options)?;
        ensure!(drawn.slices.len() >= 2, "[{options}] {drawn:?}");
        for (thread, slices) in &drawn.slices {
            ensure!(*slices > 0 && drawn.named_processes.contains(&thread.0), "[{options}] {drawn:?}");
            ensure!(drawn.named_threads.contains(thread), "[{options}] {drawn:?}");
        }
    }
    fixture.finish().map(drop)
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(collapsed_stacks_are_those_of_py_spy).by(PAUSE_AND_BPF),
        test!(gil_recording_of_a_sleeper_is_an_empty_view).on(On::One).by(PAUSE_AND_BPF),
        test!(sleep_is_a_gap_in_speedscope).by(PAUSE_AND_BPF),
        test!(sleep_is_a_gap_in_trace).by(PAUSE_AND_BPF),
        test!(sleep_fills_its_time_in_speedscope).by(PAUSE_AND_BPF),
        test!(sleep_fills_its_time_in_trace).by(PAUSE_AND_BPF),
        test!(speedscope_has_one_entry_per_sample).by(PAUSE_AND_BPF),
        test!(file_name_chooses_traces).by(&[Sampler::Pause]),
        test!(speedscope_files_follow_its_schema).by(PAUSE_AND_BPF),
        test!(traces_follow_their_viewers).by(PAUSE_AND_BPF),
    ]
}
