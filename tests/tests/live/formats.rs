//! What `record` writes, as others write and read it: collapsed stacks against those of py-spy 0.4.3, traces
//! and speedscope files against the time that a program says it spent.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    Fixture, Profiler, Scratch, can_load_programs, check_schema, check_trace_events, missing,
    one_interpreter, wait_until_still,
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

fn collapsed_stacks_are_byte_for_byte_those_of_py_spy() {
    let interpreter = one_interpreter();
    if interpreter.minor < 11 {
        missing("an interpreter with qualified names, 3.11 or later: py-spy's stacks are of one");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/layouts.py");
    let mut words = interpreter.words();
    words.extend([script.clone().into(), "tree".into()]);
    let fixture = Fixture::start_words(&words).unwrap();
    for pid in [fixture.pid(), fixture.children()[0]] {
        wait_until_still(pid).unwrap();
    }
    let python = words[0].to_string_lossy();
    let usual = ["", "-t", "-t -F", "-t --nolineno", "-s", "-s -t"].map(|options| ("-d 0.5", options));
    // So soon nothing is seen but what waits at the end, of which the in-kernel sampler tells.
    let soon = can_load_programs().then_some(("-d 0.001", "-t"));
    for (duration, options) in usual.into_iter().chain(soon) {
        let run = Profiler::new("record").words("-r 50 -i -f raw -o -").words(duration).words(options);
        let text = run.pid(&fixture).succeed().unwrap().stdout;
        let lines = text.lines().filter(|line| !is_ledger(line)).map(|line| {
            let (stack, weight) = line.rsplit_once(' ').expect("a weight");
            assert!(weight.parse::<u64>().unwrap() > 0, "{line}");
            let stack = without_numbers(&without_numbers(stack, "threading.py:", "LINE"), "thread (", "TID");
            let names = [(fixture.pid(), "PID"), (fixture.children()[0], "CHILD")];
            let named = names.iter().fold(stack, |stack, (pid, name)| {
                stack.replace(&format!("process {pid}:"), &format!("process {name}:"))
            });
            named.replace(&*python, "PYTHON").replace(&*script.to_string_lossy(), "SCRIPT")
        });
        assert_eq!(lines.collect::<BTreeSet<String>>(), expected(options), "[{options}] {duration}");
    }
}

/// Works when asked to, sleeps and works again.
const TWO_BURSTS: &str = "\
import os, sys, time
def first(until):
    while time.monotonic() < until: pass
def second(until):
    while time.monotonic() < until: pass
def rest():
    time.sleep(0.5)
print('ready', os.getpid(), flush=True)
sys.stdin.readline()
first(time.monotonic() + 0.3)
rest()
second(time.monotonic() + 0.3)
print('done', flush=True)
sys.stdin.readline()
";

/// A recording of both bursts in a format.
fn record_bursts(format: &str, options: &str) -> Result<Value> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out");
    let mut fixture = Fixture::inline(one_interpreter(), TWO_BURSTS)?;
    let run = Profiler::new("record").words("-r 500 -f").arg(format).words(options).arg("-o").arg(&file);
    let mut running = run.pid(&fixture).spawn()?;
    running.wait_until_sampling()?;
    fixture.ask("")?;
    fixture.close_stdin();
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    serde_json::from_str(&std::fs::read_to_string(&file)?).context("the file")
}

/// A stretch of the main thread's time: from when to when (in the file's unit), and the functions.
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
        let at = event["ts"].as_f64().context("a time")?;
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

fn what_happened_later_stands_later_and_nothing_stands_where_nothing_was_seen() {
    for format in ["chrometrace", "speedscope"] {
        let read = if format == "speedscope" { speedscope_stretches } else { trace_stretches };
        // Sleep is not asked for: there is nothing between the bursts.
        let stretches = read(&record_bursts(format, "").unwrap()).unwrap();
        let ((first_start, first_end), (second_start, second_end)) =
            (span(&stretches, "first").unwrap(), span(&stretches, "second").unwrap());
        assert!(first_start < first_end && first_end < second_start && second_start < second_end, "{format}");
        let is_gap = |(start, end, names): &Stretch| names.is_empty() && end > start && *start >= first_end;
        assert!(stretches.iter().any(|stretch| is_gap(stretch) && stretch.1 <= second_start), "{format}");

        // It is asked for: it fills what is between them. What a clock inside the kernel has met stands for one tick at
        // most, so that there may be less than one of which nothing is known before a sleep, whose length is exact, and
        // after the last look at it.
        let sampler = if format == "chrometrace" { "pause" } else { "auto" };
        let options = format!("-i --sampler {sampler}");
        let stretches = read(&record_bursts(format, &options).unwrap()).unwrap();
        let [first, rest, second] = ["first", "rest", "second"].map(|name| span(&stretches, name).unwrap());
        assert!(first.1 <= rest.0 && rest.1 <= second.0, "{format}: {first:?} {rest:?} {second:?}");
        let filled = if sampler == "pause" { (first.0, second.1) } else { without_ticks(&stretches, "rest") };
        let (before, after) = (filled.0 - rest.0, rest.1 - filled.1);
        // Looks come at random: once in a million the last of a sleep is more than 14 ticks before its end.
        assert!(
            sampler == "pause" || before < 2.0 * TICK && after < 15.0 * TICK,
            "{format}: {before} {after}"
        );
        let within = stretches.iter().filter(|(start, end, _)| *start >= filled.0 && *end <= filled.1);
        assert!(within.clone().all(|(start, end, names)| !names.is_empty() || start == end), "{format}");
    }
}

fn traces_are_chosen_by_their_ending() {
    let scratch = Scratch::new().unwrap();
    let file = scratch.file("run.trace.json");
    let words = one_interpreter().inline_words("for _ in range(3000000): pass");
    Profiler::new("record").words("-r 500 -o").arg(&file).command(&words).succeed().unwrap();
    let trace: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert!(!trace_stretches(&trace).unwrap().is_empty());
    let ledger = trace.as_array().unwrap().iter().find(|event| event["name"] == "ledger").unwrap();
    assert!(ledger["args"]["attempts"].as_u64().unwrap() > 0, "{ledger}");
}

/// speedscope's own schema of its files, as its package 1.25.0 (MIT license) has it.
const SPEEDSCOPE_SCHEMA: &str = include_str!("../../data/speedscope_schema.json");

/// What `record` writes of the fixture in this format.
fn recorded(fixture: &Fixture, format: &str, options: &str) -> Result<Value> {
    let run = Profiler::new("record").words("-r 200 -d 0.3 -o - -f").arg(format).words(options);
    let text = run.pid(fixture).succeed()?.stdout;
    serde_json::from_str(&text).context("no JSON")
}

fn speedscope_files_are_as_speedscope_has_them() {
    let schema: Value = serde_json::from_str(SPEEDSCOPE_SCHEMA).unwrap();
    let fixture = Fixture::start(one_interpreter(), "tree/tree.py", &["prefork", "2"]).unwrap();
    for options in ["-s", "-s -i", "-s -t", "-s -F --nolineno"] {
        let file = recorded(&fixture, "speedscope", options).unwrap();
        check_schema(&schema, &file).with_context(|| options.to_owned()).unwrap();
        let frames = file["shared"]["frames"].as_array().unwrap().len() as u64;
        let profiles = file["profiles"].as_array().unwrap();
        assert!(profiles.len() >= 2, "[{options}] {} threads of two workers", profiles.len());
        assert!(file["activeProfileIndex"].as_u64().unwrap() < profiles.len() as u64);
        for profile in profiles {
            let (samples, weights) = (profile["samples"].as_array(), profile["weights"].as_array());
            let (samples, weights) = (samples.unwrap(), weights.unwrap());
            // What the schema cannot ask for, and its viewer takes for granted.
            assert!(!samples.is_empty() && samples.len() == weights.len(), "[{options}]");
            let mut indices = samples.iter().flat_map(|sample| sample.as_array().unwrap());
            assert!(indices.all(|index| index.as_u64().unwrap() < frames), "[{options}]");
            assert!(weights.iter().all(|weight| weight.as_f64().unwrap() >= 0.0), "[{options}]");
            let sum: f64 = weights.iter().filter_map(Value::as_f64).sum();
            let end = profile["endValue"].as_f64().unwrap() - profile["startValue"].as_f64().unwrap();
            assert!((sum - end).abs() < 1e-6, "[{options}] {sum} of {end} s");
        }
    }
    fixture.finish().unwrap();
}

fn traces_are_as_their_viewers_have_them() {
    let fixture = Fixture::start(one_interpreter(), "tree/tree.py", &["prefork", "2"]).unwrap();
    for options in ["-s", "-s -i", "-s -t -F --nolineno"] {
        let file = recorded(&fixture, "chrometrace", options).unwrap();
        let drawn = check_trace_events(&file).with_context(|| options.to_owned()).unwrap();
        assert!(drawn.slices.len() >= 2, "[{options}] {drawn:?}");
        for (thread, slices) in &drawn.slices {
            assert!(*slices > 0 && drawn.named_processes.contains(&thread.0), "[{options}] {drawn:?}");
            assert!(drawn.named_threads.contains(thread), "[{options}] {drawn:?}");
        }
    }
    fixture.finish().unwrap();
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(collapsed_stacks_are_byte_for_byte_those_of_py_spy),
        test!(what_happened_later_stands_later_and_nothing_stands_where_nothing_was_seen),
        test!(traces_are_chosen_by_their_ending),
        test!(speedscope_files_are_as_speedscope_has_them),
        test!(traces_are_as_their_viewers_have_them),
    ]
}
