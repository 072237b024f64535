//! `record --mode`: for how long each thread is shown to wait.

use std::fs;

use anyhow::{Result, bail, ensure};
use profiler_tests::suite::{Case, On, Sampler, Test};
use profiler_tests::times::{CPU, seconds};
use profiler_tests::{
    Collapsed, Fixture, Interpreter, Profiler, Scratch, Stack, one_interpreter, test, waits,
};

/// Compares what a program says of its waits with what is shown.
fn compare_waits(interpreter: &Interpreter, list: &str) -> Result<()> {
    let (profile, waits) = waits::timed_waits(interpreter, list)?;
    let bound = waits::bound_of_timed_waits()?;
    for wait in waits {
        let within = |stack: &Stack| stack.contains("timed") && stack.contains(&wait.function);
        wait.must_have_time(&profile, within, bound)?;
    }
    Ok(())
}

fn each_wait_lasts_as_long_as_its_program_says(case: &Case) -> Result<()> {
    compare_waits(case.interpreter, "states")
}

fn waits_for_disks_pages_and_signals_have_their_time() -> Result<()> {
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

fn tree_is_shown_with_what_each_process_waits_for() -> Result<()> {
    let fixture = Fixture::inline(one_interpreter(), PARENT)?;
    let scratch = Scratch::new()?;
    let file = scratch.file("out.txt");
    let record = Profiler::new("record").words("--sampler bpf --mode wall -s -d 1 -f raw -o").arg(&file);
    let run = record.pid(&fixture).succeed()?;
    let (profile, elapsed) = (Collapsed::parse(&fs::read_to_string(&file)?)?, run.sampled_for()?);
    let (child, sleep) = ("<waiting: child process>", "<waiting: sleep>");
    let &[worker, sleeper] = fixture.children() else { bail!("{:?}", fixture.children()) };
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
        ensure!(right >= all * 0.95, "{function}: {right} s of {all} s {leaves:?}: {profile:?}");
    }
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    const BPF: &[Sampler] = &[Sampler::Bpf];
    vec![
        test!(each_wait_lasts_as_long_as_its_program_says).on(On::Layouts).by(BPF),
        test!(waits_for_disks_pages_and_signals_have_their_time).by(BPF),
        test!(tree_is_shown_with_what_each_process_waits_for).by(BPF),
    ]
}
