//! The in-kernel sampler: what it shows is what the others show, what it needs is what doctor says, and nothing of
//! it stays behind. That it tears nothing is for `labyrinth` to show, the times that it counts for the statistical tests.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::kernel_programs::still_loaded;
use anyhow::{Result, ensure};
use profiler_model::LossReason;
use profiler_tests::suite::{Case, On, Sampler, Test};
use profiler_tests::{
    Collapsed, Fixture, Profiler, Scratch, labyrinth, one_interpreter, place, profiler_path, programs_of,
    test,
};

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

/// The stacks in which a process is shown.
fn stacks(fixture: &Fixture, sampler: Sampler) -> Result<BTreeSet<String>> {
    let words = format!("--sampler {sampler} --full-filenames -f raw -r 500 -o -");
    let running = Profiler::new("record").words(&words).pid(fixture).spawn()?;
    let run = running.end_after_cpu_time(fixture.pid(), Duration::from_millis(50))?;
    Ok(run.stdout.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect())
}

fn bpf_and_pause_show_the_same_stack(case: &Case) -> Result<()> {
    let fixture = Fixture::inline(case.interpreter, STILL)?;
    let (inside, outside) = (stacks(&fixture, Sampler::Bpf)?, stacks(&fixture, Sampler::Pause)?);
    // It may have been seen on its way down.
    let innermost = |stacks: BTreeSet<String>| -> BTreeSet<String> {
        stacks.into_iter().filter(|stack| stack.contains("innermost")).collect()
    };
    let (inside, outside) = (innermost(inside), innermost(outside));
    ensure!(inside.len() == 1 && inside == outside, "inside {inside:#?}, outside {outside:#?}");
    Ok(())
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

fn names_too_long_to_send_are_read(case: &Case) -> Result<()> {
    let fixture = Fixture::inline(case.interpreter, LONG)?;
    let scratch = Scratch::new()?;
    let file = scratch.file("out.txt");
    let words = "--sampler bpf --full-filenames -f raw -r 500 -o";
    let running = Profiler::new("record").words(words).arg(&file).pid(&fixture).spawn()?;
    let run = running.end_after_cpu_time(fixture.pid(), Duration::from_millis(200))?;
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
}

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

/// What a sample that is not asked for proves of code objects is not sent again by the next that is.
fn samples_not_asked_for_cost_no_names(case: &Case) -> Result<()> {
    let fixture = Fixture::inline(case.interpreter, WITH_AND_WITHOUT_GIL)?;
    let scratch = Scratch::new()?;
    let record = Profiler::new("record").words("--gil --sampler bpf -f raw -r 1000 -o");
    let running = record.arg(scratch.file("out.txt")).pid(&fixture).spawn()?;
    let run = running.end_after_cpu_time(fixture.pid(), Duration::from_millis(500))?;
    let ledger = run.ledger()?;
    ensure!(ledger.not_asked_for > 0 && ledger.shown > 0, "{ledger:?}");
    ensure!(ledger.lost_for(&LossReason::NamesMissing.to_string()) == 0, "{ledger:?}");
    Ok(())
}

/// What no process holds any more the kernel frees a moment later; what is there after this time has stayed.
const PATIENCE: Duration = Duration::from_secs(10);

/// With the clocks alone, and with the scheduler's programs as well.
fn nothing_stays_in_kernel_after_kill() -> Result<()> {
    let mut fixture = Fixture::start(one_interpreter(), "labyrinth/labyrinth.py", &[])?;
    for mode in ["--mode cpu", "--mode wall"] {
        let scratch = Scratch::new()?;
        let record = Profiler::new("record").words("--sampler bpf -f raw -r 2000").words(mode);
        let mut running = record.words("-o").arg(scratch.file("out.txt")).pid(&fixture).spawn()?;
        running.wait_until_sampling()?;
        let programs = programs_of(running.profiler_pid())?;
        ensure!(!still_loaded(&programs).is_empty(), "none is loaded: {programs:?}");
        running.kill()?;
        let limit = Instant::now() + PATIENCE;
        while !still_loaded(&programs).is_empty() {
            ensure!(Instant::now() < limit, "some of {programs:?} stayed");
            std::thread::yield_now();
        }
        fixture.progress()?;
    }
    Ok(())
}

/// A copy of the profiler that every user may run, as the user nobody with these capabilities.
fn as_nobody_with(capabilities: &str, scratch: &Scratch) -> Result<Profiler> {
    let binary = scratch.file("profiler");
    if !binary.exists() {
        fs::copy(profiler_path(), &binary)?;
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

fn bpf_needs_two_capabilities_and_no_more() -> Result<()> {
    let scratch = Scratch::new()?;
    let record = |capabilities: &str, choice: &str| -> Result<_> {
        let file = scratch.file("out.txt");
        let profiler = as_nobody_with(capabilities, &scratch)?;
        let profiler = profiler.words(&format!("--sampler {choice} -f raw -r 500 -o")).arg(&file);
        Ok(profiler.command(&["/usr/bin/python3", "-c", WORK_ON]).with_stdin())
    };
    let mut running = record("bpf,perfmon", "bpf")?.spawn()?;
    running.wait_until_sampling()?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    let profile = Collapsed::parse(&fs::read_to_string(scratch.file("out.txt"))?)?;
    ensure!(profile.count(|stack| stack.contains("work")) > 20, "{run:?}");
    for missing_one in ["bpf", "perfmon"] {
        let refused = record(missing_one, "bpf")?.fail(&["CAP_BPF"])?;
        refused.must_say(&["CAP_PERFMON"])?;
        refused.must_say(&["--sampler pause"])?;
        // Left to itself, it takes what it may.
        record(missing_one, "auto")?.succeed()?.must_say(&["sampler: pause"])?;
    }
    Ok(())
}

fn outside_looks_of_bpf_are_not_torn(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, "labyrinth/labyrinth.py", &["--threads", "3"])?;
    // Two of three wait for the GIL, and all of them wait for a CPU now and then.
    let run = Profiler::new("record").words("--sampler bpf -i -f raw -r 2000 -d 0.3 -o -");
    let run = run.pid(&fixture).succeed()?;
    let profile = Collapsed::parse(&run.stdout)?;
    let torn: Vec<_> =
        profile.stacks.iter().filter_map(|stack| labyrinth::judge(&stack.frames).err()).collect();
    ensure!(torn.is_empty(), "{} torn, such as {}", torn.len(), torn[0]);
    ensure!(profile.total() > 100, "only {} samples: {}", profile.total(), run.stderr);
    Ok(())
}

/// Before 3.7 there is no GIL until a second thread is started.
fn only_thread_of_oldest_python_holds_the_gil(case: &Case) -> Result<()> {
    let alone = Fixture::start(case.interpreter, "labyrinth/labyrinth.py", &[])?;
    let words = "--gil --sampler bpf -f raw -r 500 -o -";
    let running = Profiler::new("record").words(words).pid(&alone).spawn()?;
    let run = running.end_after_cpu_time(alone.pid(), Duration::from_millis(200))?;
    let ledger = run.ledger()?;
    ensure!(ledger.shown > 50 && ledger.not_asked_for == 0, "{ledger:?}");
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    const BPF: &[Sampler] = &[Sampler::Bpf];
    /// Those in which code objects are proved by a count of the interpreter's.
    const WITH_COUNT: On = On::Minors(&[13, 14, 15]);
    vec![
        test!(bpf_and_pause_show_the_same_stack).on(On::Every).needs_programs(),
        test!(names_too_long_to_send_are_read).on(On::Layouts).by(BPF),
        test!(samples_not_asked_for_cost_no_names).on(WITH_COUNT).by(BPF),
        test!(nothing_stays_in_kernel_after_kill).by(BPF),
        test!(bpf_needs_two_capabilities_and_no_more).needs_programs(),
        test!(outside_looks_of_bpf_are_not_torn).on(On::Layouts).by(BPF),
        test!(only_thread_of_oldest_python_holds_the_gil).on(On::Minors(&[6])).by(BPF),
    ]
}
