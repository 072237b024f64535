//! The in-kernel sampler: what it shows is what the others show, what it needs is what doctor says, and nothing of
//! it stays behind. That it tears nothing is for `labyrinth` to show.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::kernel_programs::still_loaded;
use anyhow::{Context, Result, ensure};
use profiler_tests::statistics::{bound, deviations};
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    Collapsed, Fixture, Interpreter, LoweredLimit, Profiler, Run, Scratch, can_load_programs,
    every_interpreter, every_interpreter_side_by_side, interpreters, labyrinth, one_interpreter, place,
    programs_of, read_speedscope,
};

/// How certain it is that chance alone breaks none of the comparisons with what a program says of itself.
const CONFIDENCE: f64 = 0.999_999;

/// Runs in C for ever, below calls from Python, from C and from a generator: its stack stands still.
const STILL: &str = "\
import itertools, os
class Summer:
    def __iter__(self):
        return itertools.repeat(0)
def innermost(_):
    return sum(Summer())
def generated():
    yield next(map(innermost, [0]))
def outer(depth):
    if depth:
        return outer(depth - 1)
    print('ready', os.getpid(), flush=True)
    return [each for each in generated()]
outer(40)
";

/// The stacks that half a second of a process shows.
fn stacks(fixture: &Fixture, sampler: &str) -> Result<BTreeSet<String>> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.txt");
    let words = format!("--sampler {sampler} --full-filenames -f raw -r 200 -d 0.5 -o");
    Profiler::new("record").words(&words).arg(&file).pid(fixture).succeed()?;
    let text = fs::read_to_string(&file)?;
    Ok(text.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect())
}

fn both_samplers_see_the_same_stack() {
    if !can_load_programs() {
        return;
    }
    every_interpreter_side_by_side(|interpreter| {
        let fixture = Fixture::inline(interpreter, STILL)?;
        let (inside, outside) = (stacks(&fixture, "bpf")?, stacks(&fixture, "pause")?);
        // It may have been seen on its way down.
        let innermost = |stacks: BTreeSet<String>| -> BTreeSet<String> {
            stacks.into_iter().filter(|stack| stack.contains("innermost")).collect()
        };
        let (inside, outside) = (innermost(inside), innermost(outside));
        ensure!(inside.len() == 1 && inside == outside, "inside {inside:#?}, outside {outside:#?}");
        Ok(())
    });
}

/// A function with more lines than fit into what the program sends, in a file with a long name, called by one with a
/// long name.
const LONG: &str = "\
import os, time
LINES = 6000
source = 'def long_one(end):\\n    x = 0\\n    while time.process_time() < end:\\n'
source += '        x += 1\\n' * LINES
source += '    return x\\ndef ' + 'n' * 1000 + '(end):\\n    return long_one(end)\\n'
exec(compile(source, '/' + 'f' * 1000 + '.py', 'exec'))
print('ready', os.getpid(), flush=True)
globals()['n' * 1000](float('inf'))
";

fn what_is_too_long_to_be_sent_is_read() {
    if !can_load_programs() {
        return;
    }
    every_interpreter_side_by_side(|interpreter| {
        let fixture = Fixture::inline(interpreter, LONG)?;
        let scratch = Scratch::new()?;
        let file = scratch.file("out.txt");
        let words = "--sampler bpf --full-filenames -f raw -r 500 -o";
        let running = Profiler::new("record").words(words).arg(&file).pid(&fixture).spawn()?;
        let run = running.end_after_cpu_time(fixture.pid(), Duration::from_millis(400))?;
        let profile = Collapsed::parse(&fs::read_to_string(&file)?)?;
        let whole = profile.count(|stack| stack.contains("long_one") && stack.contains(&"n".repeat(1000)));
        ensure!(whole * 10 >= profile.total() * 9 && whole > 20, "{whole} whole: {}", run.stderr);
        let lines: BTreeSet<u32> = profile
            .stacks
            .iter()
            .filter_map(|stack| stack.leaf().filter(|leaf| leaf.plain_name() == "long_one")?.line)
            .collect();
        ensure!(lines.last().is_some_and(|last| *last > 3000), "no line far down: {lines:?}");
        let file = "f".repeat(1000);
        let named = profile.count(|stack| {
            stack.leaf().is_some_and(|leaf| leaf.file.as_deref().is_some_and(|name| name.contains(&file)))
        });
        ensure!(named > 20, "the file's name is cut: {:?}", profile.stacks.first());
        Ok(())
    });
}

/// What nobody holds any more the kernel frees a moment later; what is there after this time has stayed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Many functions, each of which first works without the GIL and then with it.
const WITH_AND_WITHOUT_GIL: &str = "\
import hashlib, os
data = b'x' * (1 << 20)
exec(''.join('def f%d():\\n    hashlib.sha256(data)\\n    for _ in range(20000): pass\\n' % n for n in range(100)))
functions = [globals()['f%d' % n] for n in range(100)]
print('ready', os.getpid(), flush=True)
while True:
    for function in functions: function()
";

/// What a sample that is not asked for proves of code objects is not said again by the next that is.
fn samples_that_are_not_asked_for_cost_the_others_no_names() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    for interpreter in interpreters().iter().rev().take(3) {
        let fixture = Fixture::inline(interpreter, WITH_AND_WITHOUT_GIL)?;
        let scratch = Scratch::new()?;
        let words = "--gil --sampler bpf -f raw -r 1000 -d 2 -o";
        let run =
            Profiler::new("record").words(words).arg(scratch.file("out.txt")).pid(&fixture).succeed()?;
        run.must_say(&["more not asked for"])?;
        ensure!(!run.stderr.contains("not received"), "{}: {}", interpreter.id, run.stderr);
    }
    Ok(())
}

fn nothing_of_it_stays_when_the_profiler_is_killed() {
    if !can_load_programs() {
        return;
    }
    let mut fixture = Fixture::start(one_interpreter(), "labyrinth/labyrinth.py", &[]).unwrap();
    for round in 0..10 {
        let scratch = Scratch::new().unwrap();
        // By the clocks alone, and by the scheduler as well.
        let mode = ["--sampler bpf", "--mode wall"][round % 2];
        let record = Profiler::new("record").words(mode).words("-f raw -r 2000 -o");
        let mut running = record.arg(scratch.file("out.txt")).pid(&fixture).spawn().unwrap();
        running.wait_until_sampling().unwrap();
        let programs = programs_of(running.profiler_pid()).unwrap();
        assert!(!still_loaded(&programs).is_empty(), "none is loaded: {programs:?}");
        running.kill().unwrap();
        let limit = Instant::now() + PATIENCE;
        while !still_loaded(&programs).is_empty() {
            assert!(Instant::now() < limit, "some of {programs:?} stayed");
            std::thread::yield_now();
        }
        fixture.progress().unwrap();
    }
}

/// A copy of the profiler that everybody may run, as nobody with these capabilities.
fn as_nobody_with(capabilities: &str, scratch: &Scratch) -> Result<Profiler> {
    let binary = scratch.file("profiler");
    if !binary.exists() {
        fs::copy(profiler_tests::profiler_path(), &binary)?;
    }
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777))?;
    Ok(Profiler::binary_within(&place::as_nobody_with_capabilities(capabilities), &binary, "record"))
}

/// Works until its stdin closes, which a thread watches, and then for 0.3 s of its CPU time: however slowly a busy
/// machine lets the profiler start, there is work to be seen.
const WORK_ON: &str = "\
import sys, threading, time
over = []
def watch():
    sys.stdin.read()
    over.append(time.process_time() + 0.3)
threading.Thread(target=watch).start()
def work():
    while not over or time.process_time() < over[0]: pass
work()";

fn two_capabilities_are_enough_and_both_are_needed() {
    if !can_load_programs() {
        return;
    }
    let scratch = Scratch::new().unwrap();
    let record = |capabilities: &str, choice: &str| -> Result<_> {
        let file = scratch.file("out.txt");
        let profiler = as_nobody_with(capabilities, &scratch)?;
        let profiler = profiler.words(&format!("--sampler {choice} -f raw -r 500 -o")).arg(&file);
        Ok(profiler.command(&["/usr/bin/python3", "-c", WORK_ON]).with_stdin())
    };
    let mut running = record("bpf,perfmon", "bpf").unwrap().spawn().unwrap();
    running.wait_until_sampling().unwrap();
    let run = running.wait().unwrap();
    assert_eq!(run.code(), Some(0), "{run:?}");
    let profile = Collapsed::parse(&fs::read_to_string(scratch.file("out.txt")).unwrap()).unwrap();
    assert!(profile.count(|stack| stack.contains("work")) > 20, "{run:?}");
    for missing_one in ["bpf", "perfmon"] {
        let refused = record(missing_one, "bpf").unwrap().run().unwrap();
        assert_eq!(refused.code(), Some(1), "{missing_one}: {refused:?}");
        refused.must_say(&["CAP_BPF"]).unwrap();
        refused.must_say(&["CAP_PERFMON"]).unwrap();
        refused.must_say(&["--sampler pause"]).unwrap();
        // Left to itself, it takes what it may.
        let fallen_back = record(missing_one, "auto").unwrap().run().unwrap();
        assert_eq!(fallen_back.code(), Some(0), "{missing_one}: {fallen_back:?}");
        fallen_back.must_say(&["sampler: pause"]).unwrap();
    }
}

/// For how long each thread was shown in what `options` record, in seconds, by its name; and how long that took.
fn shown(fixture: &Fixture, options: &str) -> Result<(BTreeMap<String, f64>, f64)> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.json");
    let words = format!("--sampler bpf -t -f speedscope -r 500 -d 0.8 {options} -o");
    let run = Profiler::new("record").words(&words).arg(&file).pid(fixture).succeed()?;
    run.must_say(&["never stopped"])?;
    let (text, mut shown) = (fs::read_to_string(&file)?, BTreeMap::new());
    for sample in read_speedscope(&text)? {
        let name = sample.profile.rsplit(' ').next().unwrap_or_default().trim_matches('"').to_owned();
        *shown.entry(name).or_default() += sample.weight;
    }
    let lasted = || {
        let mut words = run.stderr.split_once(" samples in ")?.1.split(' ');
        let number: f64 = words.next()?.parse().ok()?;
        Some(if words.next()? == "ms" { number / 1000.0 } else { number })
    };
    Ok((shown, lasted().with_context(|| run.stderr.clone())?))
}

/// The oldest, one in between and the newest.
fn three_interpreters() -> Vec<&'static Interpreter> {
    let all = interpreters();
    [all.first(), all.get(all.len() / 2), all.last()].into_iter().flatten().collect()
}

/// With `--idle`, threads that wait are shown for as long as they wait.
fn waits_add_up(fixture: &mut Fixture) -> Result<()> {
    fixture.ask("alternate")?;
    let (shown, lasted) = shown(fixture, "--idle")?;
    let of = |name: &str| shown.get(name).copied().with_context(|| format!("no {name}: {shown:?}"));
    let whole = of("sleeps")?;
    // All but what it took to begin, which on a busy machine is long.
    ensure!(whole > 0.4 * lasted && whole < 1.01 * lasted, "{whole} s of {lasted}");
    for name in ["waits_for_lock", "waits_for_socket", "waits_for_pipe"] {
        let time = of(name)?;
        ensure!((time - whole).abs() < 0.01 * whole, "{name}: {time} s beside {whole}");
    }
    // It works for a quarter of the time at most; how long it then waited for a CPU is known if it was met waiting.
    let time = of("alternates")?;
    ensure!(time > 0.3 * whole && time < 1.4 * whole, "alternates: {time} s beside {whole}");
    Ok(())
}

/// With `--gil`, only the thread that holds it is shown.
fn the_gil_is_held(fixture: &mut Fixture) -> Result<()> {
    fixture.ask("spin")?;
    fixture.ask("hash")?;
    let (shown, lasted) = shown(fixture, "--gil")?;
    let whole: f64 = shown.values().sum();
    let hashes = shown.get("hashes").copied().unwrap_or_default();
    // One that got the GIL only at the end has no name yet.
    let others: f64 = ["hashes", "alternates"].iter().filter_map(|name| shown.get(*name)).sum();
    ensure!(whole < 1.4 * lasted, "one GIL was held for {whole} s of {lasted}: {shown:?}");
    ensure!(hashes < 0.2 * whole, "{hashes} s of {whole} in C code without the GIL");
    ensure!(others < 0.5 * whole && whole > 0.05 * lasted, "{others} s of {whole}: {shown:?}");
    Ok(())
}

fn waits_and_the_gil_are_seen_without_a_stop() {
    if !can_load_programs() {
        return;
    }
    for interpreter in three_interpreters() {
        let look = || -> Result<()> {
            let mut fixture = Fixture::start(interpreter, "waiting/waiting.py", &[])?;
            waits_add_up(&mut fixture)?;
            the_gil_is_held(&mut fixture)
        };
        look().with_context(|| interpreter.id.clone()).unwrap();
    }
}

fn what_is_looked_at_from_outside_is_not_torn() {
    if !can_load_programs() {
        return;
    }
    for interpreter in three_interpreters() {
        let look = || -> Result<()> {
            let fixture = Fixture::start(interpreter, "labyrinth/labyrinth.py", &["--threads", "3"])?;
            // Two of three wait for the GIL, and all of them wait for a CPU now and then.
            let run = Profiler::new("record").words("--sampler bpf -i -f raw -r 2000 -d 0.3 -o -");
            let run = run.pid(&fixture).succeed()?;
            let profile = Collapsed::parse(&run.stdout)?;
            let torn: Vec<_> =
                profile.stacks.iter().filter_map(|stack| labyrinth::judge(&stack.frames).err()).collect();
            ensure!(torn.is_empty(), "{} torn, such as {}", torn.len(), torn[0]);
            ensure!(profile.total() > 100, "only {} samples: {}", profile.total(), run.stderr);
            Ok(())
        };
        look().with_context(|| interpreter.id.clone()).unwrap();
    }
}

fn the_only_thread_of_the_oldest_has_no_gil_and_holds_it() {
    if !can_load_programs() {
        return;
    }
    let alone = Fixture::start(three_interpreters()[0], "labyrinth/labyrinth.py", &[]).unwrap();
    let (shown, lasted) = shown(&alone, "--gil").unwrap();
    let time: f64 = shown.values().sum();
    assert!(time > 0.05 * lasted, "{time} s of the only thread in {lasted}");
}

/// What a program burnt by its own account in about a second, and what a recording of it shows, in seconds.
fn burnt_and_shown(
    interpreter: &Interpreter,
    under: impl Fn(Profiler) -> Profiler,
) -> Result<(f64, f64, Run)> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.json");
    let words = interpreter.fixture_words("shares/shares.py", &["--seconds", "1"]);
    let record = Profiler::new("record").words("--sampler bpf -f speedscope -r 1000 -o").arg(&file);
    let run = under(record).command(&words).succeed()?;
    let account: serde_json::Value = serde_json::from_str(run.stdout.lines().last().context("no output")?)?;
    let burnt = account["cpu"].as_f64().context("cpu")?;
    let shown = read_speedscope(&fs::read_to_string(&file)?)?.iter().map(|sample| sample.weight).sum();
    Ok((burnt, shown, run))
}

fn it_counts_every_tick_of_the_target() {
    if !can_load_programs() {
        return;
    }
    every_interpreter(|interpreter| {
        let (burnt, shown, run) = burnt_and_shown(interpreter, |record| record)?;
        // Beside what it burns it starts up and ends. The first ticks may come before it is known.
        ensure!(shown >= 0.95 * burnt, "{shown} s shown of {burnt} s burnt: {}", run.stderr);
        Ok(())
    });
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
for burst in range(160):
    burnt += work(0.0025)
    time.sleep(0.0175)
print(json.dumps({'burnt': burnt}), flush=True)";

fn who_runs_after_an_idle_time_has_not_run_all_the_time() {
    const BURSTS_OF_IT: f64 = 160.0;
    const RATE: f64 = 250.0;
    if !can_load_programs() {
        return;
    }
    let scratch = Scratch::new().unwrap();
    let file = scratch.file("out.json");
    let record = Profiler::new("record").words(&format!("--sampler bpf -f speedscope -r {RATE} -o"));
    let run = record.arg(&file).command(&one_interpreter().inline_words(BURSTS)).succeed().unwrap();
    let account: serde_json::Value = serde_json::from_str(run.stdout.lines().last().unwrap()).unwrap();
    let burnt = account["burnt"].as_f64().unwrap();
    let samples = read_speedscope(&fs::read_to_string(&file).unwrap()).unwrap();
    let at_work = samples.iter().filter(|sample| sample.frames.iter().any(|f| f.plain_name() == "work"));
    let shown: f64 = at_work.map(|sample| sample.weight).sum();
    // How many ticks meet a burst is decided by where it begins: at most half a tick off, in the mean of the squares.
    let chance = deviations(CONFIDENCE, 1) * 0.5 / RATE * BURSTS_OF_IT.sqrt();
    assert!(
        (shown - burnt).abs() <= chance + 0.05 * burnt,
        "{shown} s shown of {burnt} s burnt, {chance} s by chance: {}",
        run.stderr
    );
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

fn a_beat_of_whole_milliseconds_is_seen_in_all_its_parts() {
    const RATE: f64 = 500.0;
    if !can_load_programs() {
        return;
    }
    let scratch = Scratch::new().unwrap();
    let file = scratch.file("out.json");
    let fixture = Fixture::inline(one_interpreter(), BEAT).unwrap();
    let record = Profiler::new("record").words(&format!("--sampler bpf -f speedscope -r {RATE} -o"));
    let running = record.arg(&file).pid(&fixture).spawn().unwrap();
    let run = running.end_after_cpu_time(fixture.pid(), Duration::from_secs(2)).unwrap();
    let account = fixture.finish().unwrap();
    let burnt = |half: &str| account[half].as_f64().unwrap();
    let truth = burnt("first_half") / (burnt("first_half") + burnt("second_half"));
    let samples = read_speedscope(&fs::read_to_string(&file).unwrap()).unwrap();
    let shown = |half: &str| -> f64 {
        let within = samples.iter().filter(|sample| sample.frames.iter().any(|f| f.plain_name() == half));
        within.map(|sample| sample.weight).sum()
    };
    let all = shown("first_half") + shown("second_half");
    let (share, number) = (shown("first_half") / all, all * RATE);
    assert!(number > 500.0, "{number} samples: {}", run.stderr);
    let chance = bound(truth, number, deviations(CONFIDENCE, 1));
    assert!((share - truth).abs() <= chance, "{share} shown, {truth} true, {chance} by chance");
}

fn a_lowered_limit_costs_samples_and_no_time() {
    if !can_load_programs() {
        return;
    }
    let limit = LoweredLimit::to(100).unwrap();
    let (burnt, shown, run) = burnt_and_shown(one_interpreter(), |record| record.under(&limit)).unwrap();
    run.must_say(&["kernel limits the rate"]).unwrap();
    run.must_say(&["kernel.perf_event_max_sample_rate"]).unwrap();
    assert!(shown >= 0.95 * burnt, "{shown} s shown of {burnt} s burnt: {}", run.stderr);
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(both_samplers_see_the_same_stack),
        test!(what_is_too_long_to_be_sent_is_read),
        test!(samples_that_are_not_asked_for_cost_the_others_no_names),
        test!(nothing_of_it_stays_when_the_profiler_is_killed),
        test!(two_capabilities_are_enough_and_both_are_needed),
        test!(waits_and_the_gil_are_seen_without_a_stop),
        test!(what_is_looked_at_from_outside_is_not_torn),
        test!(the_only_thread_of_the_oldest_has_no_gil_and_holds_it),
        test!(it_counts_every_tick_of_the_target),
        test!(who_runs_after_an_idle_time_has_not_run_all_the_time),
        test!(a_beat_of_whole_milliseconds_is_seen_in_all_its_parts),
        test!(a_lowered_limit_costs_samples_and_no_time),
    ]
}
