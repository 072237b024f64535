//! Time off the CPU as the kernel reports it: what threads wait for that waited before they were watched, or have only just
//! started. That all of the time of each is shown is for the statistical tests, what each mode shows for `modes`.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use profiler_tests::suite::{Case, On, Sampler, Test};
use profiler_tests::times::{leaf, seconds};
use profiler_tests::{Collapsed, Fixture, Profiler, Scratch, Stack, test, wait_until_still, waits};

fn threads_that_wait_from_the_start_have_reasons(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, "waiting/waiting.py", &[])?;
    wait_until_still(fixture.pid())?;
    let record = Profiler::new("record").words("-t --sampler bpf --mode wall -d 0.2 -f raw -o -");
    waits::must_have_reasons(&Collapsed::parse(&record.pid(&fixture).succeed()?.stdout)?)
}

/// At each line from stdin three threads start and wait: at once, after a millisecond of work, and after twenty. The line is
/// answered when all of them have come so far.
const NEW_THREADS: &str = "\
import os, sys, threading, time
never = threading.Event()
about_to_wait = threading.Semaphore(0)
def now(): return time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)
def works(milliseconds):
    end = now() + milliseconds / 1000
    while now() < end: pass
def newcomer(milliseconds):
    works(milliseconds)
    about_to_wait.release()
    never.wait()
print('ready', os.getpid(), flush=True)
for line in sys.stdin:
    for milliseconds in 0, 1, 20:
        threading.Thread(target=newcomer, args=(milliseconds,), daemon=True).start()
    for _ in range(3): about_to_wait.acquire()
    print('waiting', flush=True)
print('{}', flush=True)
";

/// What is recorded of a fixture from before it is asked until it has answered, or until the profiler has slept between reads
/// after that.
fn record_answer(case: &Case, source: &str, reads_after: bool) -> Result<Collapsed> {
    let mut fixture = Fixture::inline(case.interpreter, source)?;
    wait_until_still(fixture.pid())?;
    let scratch = Scratch::new()?;
    let file = scratch.file("out.txt");
    let record = Profiler::new("record").words("-t -f raw --sampler bpf --mode off-cpu -o");
    let mut running = record.arg(&file).pid(&fixture).spawn()?;
    running.wait_until_sampling()?;
    fixture.ask("go")?;
    if reads_after {
        running.wait_until_sampling()?;
    }
    running.signal(Signal::SIGINT)?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    fixture.finish()?;
    Collapsed::parse(&fs::read_to_string(&file)?)
}

fn is_lost(stack: &Stack) -> bool {
    stack.frames.iter().any(|frame| frame.function.starts_with("<stack lost"))
}

fn waits_of_new_threads_have_their_stacks(case: &Case) -> Result<()> {
    let profile = record_answer(case, NEW_THREADS, true)?;
    let waits = |stack: &Stack| leaf(stack) == "<waiting: lock>";
    let lost = seconds(&profile, |stack| is_lost(stack) && waits(stack));
    ensure!(lost == 0.0, "{lost} s of waits without a stack: {profile:?}");
    let newcomers = profile.stacks.iter().filter(|stack| waits(stack) && stack.contains("newcomer"));
    let threads: BTreeSet<_> = newcomers.map(|stack| &stack.thread).collect();
    ensure!(threads.len() == 3, "{threads:?} of three wait: {profile:?}");
    Ok(())
}

/// At a line from stdin the main thread starts another one, which gets no CPU until the first sleeps for a moment, long after
/// the profiler has met its thread state. The main thread then waits for the next line.
const LATE_THREAD: &str = "\
import _thread, os, sys, time
def now(): return time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)
def starts_late():
    lock = _thread.allocate_lock()
    lock.acquire()
    lock.acquire()
def waits_long(): return sys.stdin.readline()
print('ready', os.getpid(), flush=True)
sys.stdin.readline()
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
_thread.start_new_thread(starts_late, ())
end = now() + 0.1
while now() < end: pass
time.sleep(0.001)
os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
print('waiting', flush=True)
waits_long()
print('{}', flush=True)
";

fn late_thread_does_not_hide_the_waits_of_its_creator(case: &Case) -> Result<()> {
    let profile = record_answer(case, LATE_THREAD, false)?;
    let of_main = |stack: &Stack| stack.thread.as_deref().is_some_and(|name| name.starts_with("MainThread"));
    let ended = |stack: &Stack| stack.contains("<stack lost: thread ended>");
    ensure!(!profile.stacks.iter().any(|stack| of_main(stack) && ended(stack)), "{profile:?}");
    let waits = |stack: &Stack| stack.contains("waits_long") && leaf(stack) == "<waiting: file>";
    ensure!(seconds(&profile, waits) > 0.0, "{profile:?}");
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    const BPF: &[Sampler] = &[Sampler::Bpf];
    vec![
        test!(threads_that_wait_from_the_start_have_reasons).on(On::Layouts).by(BPF),
        test!(waits_of_new_threads_have_their_stacks).on(On::Layouts).by(BPF),
        test!(late_thread_does_not_hide_the_waits_of_its_creator).on(On::Layouts).by(BPF),
    ]
}
