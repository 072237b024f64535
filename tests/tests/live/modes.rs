//! `record --mode`: which time of a thread is shown, for how long it waited and for what.

use std::fs;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    Collapsed, Fixture, Interpreter, Profiler, Scratch, Stack, can_load_programs, every_interpreter,
    expectation, one_interpreter,
};

const CPU: &str = "<waiting: CPU>";
const GIL: &str = "<waiting for the GIL>";

fn leaf(stack: &Stack) -> &str {
    stack.leaf().map_or("", |leaf| &leaf.function)
}

/// The time of the stacks that satisfy `wanted`.
fn seconds(profile: &Collapsed, wanted: impl Fn(&Stack) -> bool) -> f64 {
    profile.count(wanted) as f64 / 1e9
}

/// A function waited for as long as its own clock says (at least, and at most), and for what it is meant to.
fn is_exact(
    profile: &Collapsed,
    function: &str,
    state: &str,
    (least, most): (f64, f64),
    bound: f64,
) -> Result<()> {
    let within = |stack: &Stack| stack.contains("timed") && stack.contains(function);
    let named = seconds(profile, |stack| within(stack) && leaf(stack) == format!("<{state}>"));
    // It was woken, but others were on the CPUs, or the thread that woke it still had the GIL. That can also happen
    // in the moment before it looks at its clock.
    let delayed = seconds(profile, |stack| within(stack) && [CPU, GIL].contains(&leaf(stack)));
    ensure!(
        named > 0.0 && named <= most * (1.0 + bound) && named + delayed >= least * (1.0 - bound),
        "{function}: {named} s {state}, {delayed} s delayed, by its own clock {least} to {most} s; {:?}",
        profile.ledger
    );
    Ok(())
}

/// Has the fixture wait for each kind of thing of a list, and compares what it says with what is shown.
fn compare_waits(interpreter: &Interpreter, list: &str) -> Result<()> {
    let expected = expectation("timed_waits")?;
    let bound = expected["at_most_off"].as_f64().context("no bound")?;
    let states = expected[list].as_object().context("no states")?;
    let mut fixture = Fixture::start(interpreter, "timed_waits/timed_waits.py", &[])?;
    let scratch = Scratch::new()?;
    let file = scratch.file("out.txt");
    let record = Profiler::new("record").words("--mode off-cpu --min-wait 0 -f raw -o").arg(&file);
    let mut running = record.pid(&fixture).spawn()?;
    running.wait_until_sampling()?;
    fixture.ask("warms_up")?;
    let mut truths = Vec::new();
    for (function, state) in states {
        let answer = fixture.ask(function)?;
        let times: Result<Vec<f64>, _> =
            answer.strip_prefix("done ").context("no answer")?.split(' ').map(str::parse).collect();
        let (least, most) =
            times?.iter().fold((f64::MAX, f64::MIN), |(a, b), time| (a.min(*time), b.max(*time)));
        truths.push((function, state.as_str().context("no state")?, (least, most)));
    }
    running.signal(Signal::SIGINT)?;
    running.wait()?;
    let profile = Collapsed::parse(&fs::read_to_string(&file)?)?;
    truths
        .into_iter()
        .try_for_each(|(function, state, truth)| is_exact(&profile, function, state, truth, bound))
}

fn each_wait_lasts_as_long_as_the_program_says() {
    if can_load_programs() {
        every_interpreter(|interpreter| compare_waits(interpreter, "states"));
    }
}

fn waits_for_disks_pages_and_signals_are_told_apart() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    compare_waits(one_interpreter(), "more")
}

/// A parent that waits for two children, one of which works and one of which sleeps.
const PARENT: &str = "\
import ctypes, os, signal, sys, threading, time
PR_SET_PDEATHSIG = 1
def works():
    while True:
        pass
def sleeps():
    while True:
        time.sleep(100)
def start(what):
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.write(write_end, b'x')
        what()
    os.read(read_end, 1)
    return child
def waits():
    os.waitpid(children[0], 0)
def end_with_stdin():
    sys.stdin.read()
    for child in children:
        os.kill(child, 9)
children = [start(works), start(sleeps)]
threading.Thread(target=end_with_stdin).start()
print('ready', os.getpid(), *children, flush=True)
waits()
os.waitpid(children[1], 0)
print('{}', flush=True)
";

fn a_tree_is_shown_with_what_each_process_waits_for() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    let fixture = Fixture::inline(one_interpreter(), PARENT)?;
    let scratch = Scratch::new()?;
    let file = scratch.file("out.txt");
    let record = Profiler::new("record").words("--mode wall -s -d 2 -f raw -o").arg(&file);
    let run = record.pid(&fixture).succeed()?;
    let (profile, elapsed) = (Collapsed::parse(&fs::read_to_string(&file)?)?, run.sampled_for()?);
    let (child, sleep) = ("<waiting: child process>", "<waiting: sleep>");
    let &[worker, sleeper] = fixture.children() else { anyhow::bail!("{:?}", fixture.children()) };
    // Where a process was when it was found is known only of one that slept.
    let lost = |stack: &Stack| stack.frames.iter().any(|frame| frame.function.starts_with("<stack lost"));
    let expected = [
        (fixture.pid(), "waits", vec![child]),
        (worker, "works", vec!["works", CPU]),
        (sleeper, "sleeps", vec![sleep]),
    ];
    fixture.finish()?;
    for (process, function, leaves) in expected {
        let of_it = |stack: &Stack| {
            stack.processes.last() == Some(&process) && !stack.contains("end_with_stdin") && !lost(stack)
        };
        let all = seconds(&profile, of_it);
        let right = seconds(&profile, |stack| {
            let named = stack.leaf().map_or("", |leaf| leaf.plain_name());
            of_it(stack) && stack.contains(function) && leaves.contains(&named)
        });
        // A child is found a moment after its parent.
        ensure!(all <= elapsed * 1.01 && all >= elapsed * 0.5, "{function}: {all} s of {elapsed} s");
        ensure!(right >= all * 0.95, "{function}: {right} s of {all} s {leaves:?}: {:?}", profile);
    }
    Ok(())
}

/// What four threads that count look like, and for how long they were looked at, in seconds.
fn of_counters(mode: &str) -> Result<(Collapsed, f64)> {
    let program = "threads_processes/threads_processes.py";
    let fixture = Fixture::start(one_interpreter(), program, &["--threads", "4"])?;
    let scratch = Scratch::new()?;
    let file = scratch.file("out.txt");
    let record = Profiler::new("record").words("-t -r 1000 -d 0.5 -f raw --min-wait 0 --mode").arg(mode);
    let run = record.arg("-o").arg(&file).pid(&fixture).succeed()?;
    fixture.finish()?;
    Ok((Collapsed::parse(&fs::read_to_string(&file)?)?, run.sampled_for()?))
}

fn is_wait(stack: &Stack) -> bool {
    leaf(stack).starts_with("<waiting")
}

/// The innermost frames, with what they weigh.
fn leaves(profile: &Collapsed) -> Vec<(&str, u64)> {
    profile.stacks.iter().map(|stack| (leaf(stack), stack.count)).collect()
}

fn each_mode_counts_its_own_time() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    let counts = |stack: &Stack| stack.contains("count");
    let (running, _) = of_counters("cpu")?;
    ensure!(running.count(counts) > 0 && running.count(is_wait) == 0, "{:?}", leaves(&running));
    let (away, elapsed) = of_counters("off-cpu")?;
    ensure!(away.stacks.iter().filter(|stack| counts(stack)).all(is_wait), "{:?}", leaves(&away));
    let waited = seconds(&away, counts);
    ensure!(waited > 0.0 && waited <= elapsed * 4.0, "four threads waited {waited} s in {elapsed} s");
    let (all, _) = of_counters("wall")?;
    ensure!(all.count(|stack| counts(stack) && leaf(stack) == GIL) > 0, "nobody waits: {:?}", leaves(&all));
    ensure!(all.count(|stack| counts(stack) && !is_wait(stack)) > 0, "nobody runs: {:?}", leaves(&all));
    let (holders, _) = of_counters("gil")?;
    ensure!(holders.count(|stack| counts(stack) && leaf(stack) == GIL) == 0, "{:?}", leaves(&holders));
    ensure!(holders.count(|stack| counts(stack) && !is_wait(stack)) > 0, "{:?}", leaves(&holders));
    Ok(())
}

fn modes_say_what_they_need() -> Result<()> {
    Profiler::new("record").words("--mode wall --gil -- true").misuse()?;
    Profiler::new("record").words("--mode off-cpu --min-wait never -- true").misuse()?;
    Profiler::new("record").words("--mode off-cpu --sampler pause -- true").fail(&["--sampler bpf"])?;
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(each_wait_lasts_as_long_as_the_program_says),
        test!(waits_for_disks_pages_and_signals_are_told_apart),
        test!(a_tree_is_shown_with_what_each_process_waits_for),
        test!(each_mode_counts_its_own_time),
        test!(modes_say_what_they_need),
    ]
}
