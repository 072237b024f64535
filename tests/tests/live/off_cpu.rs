//! Time off the CPU as the kernel tells it: what is shown of each thread must be all of its time. What each mode shows
//! is for `modes`, that nothing stays in the kernel for `in_kernel`.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    Collapsed, Fixture, Profiler, Run, Scratch, Stack, can_load_programs, every_interpreter, one_interpreter,
};

/// Versions of CPython with different frames; that each of them is read right is for `modes` to show.
const SOME: [u32; 3] = [6, 12, 15];

const CPU: &str = "<waiting: CPU>";
const GIL: &str = "<waiting for the GIL>";

/// How far the time that is shown may be off.
const BOUND: f64 = 0.01;

/// And that for which the GIL is held.
const GIL_BOUND: f64 = 0.02;

/// What a recording shows, and for how long it lasted.
struct Shown {
    profile: Collapsed,
    elapsed: f64,
}

impl Shown {
    fn read(scratch: &Scratch, name: &str, run: &Run) -> Result<Self> {
        let profile = Collapsed::parse(&fs::read_to_string(scratch.file(name))?)?;
        Ok(Shown { profile, elapsed: run.sampled_for()? })
    }

    fn seconds(&self, wanted: impl Fn(&Stack) -> bool) -> f64 {
        self.profile.count(wanted) as f64 / 1e9
    }

    /// Every thread, with all of its time.
    fn threads(&self) -> BTreeMap<&str, f64> {
        let mut threads = BTreeMap::new();
        for stack in &self.profile.stacks {
            *threads.entry(stack.thread.as_deref().unwrap_or_default()).or_default() +=
                stack.count as f64 / 1e9;
        }
        threads
    }

    /// There are so many threads, and the time of each is the time that there was.
    fn adds_up(&self, threads: usize) -> Result<()> {
        let shown = self.threads();
        ensure!(shown.len() == threads, "{shown:?} instead of {threads} threads");
        for (thread, time) in shown {
            let ratio = time / self.elapsed;
            ensure!(
                (ratio - 1.0).abs() <= BOUND,
                "{thread}: {time} s of {} s: {:?}",
                self.elapsed,
                self.profile.ledger
            );
        }
        Ok(())
    }
}

fn record(mode: &str, words: &str) -> Profiler {
    Profiler::new("record").words(&format!("-t -f raw --mode {mode} {words} -o"))
}

fn leaf(stack: &Stack) -> &str {
    stack.leaf().map_or("", |leaf| &leaf.function)
}

fn who_waits_from_the_start_is_seen_where_it_waits() {
    every_interpreter(|interpreter| {
        if !can_load_programs() || !SOME.contains(&interpreter.minor) {
            return Ok(());
        }
        let fixture = Fixture::start(interpreter, "waiting/waiting.py", &[])?;
        profiler_tests::wait_until_still(fixture.pid())?;
        let scratch = Scratch::new()?;
        let run = record("wall", "-d 0.4").arg(scratch.file("wall.txt")).pid(&fixture).succeed()?;
        let shown = Shown::read(&scratch, "wall.txt", &run)?;
        shown.adds_up(5)?;
        let states = [
            ("sleeps", "<waiting: sleep>"),
            ("waits_for_lock", "<waiting: lock>"),
            ("waits_for_socket", "<waiting: socket>"),
            ("waits_for_pipe", "<waiting: file>"),
        ];
        for (function, state) in states {
            let found = shown.seconds(|stack| stack.contains(function) && leaf(stack) == state);
            let off = (found / shown.elapsed - 1.0).abs();
            ensure!(off <= BOUND, "{function}: {found} s {state} of {} s", shown.elapsed);
        }
        Ok(())
    });
}

fn threads_hold_the_gil_or_wait_for_it() {
    every_interpreter(|interpreter| {
        if !can_load_programs() || interpreter.free_threaded {
            return Ok(());
        }
        let program = "threads_processes/threads_processes.py";
        let fixture = Fixture::start(interpreter, program, &["--threads", "4"])?;
        let scratch = Scratch::new()?;
        // Both look at the same time, all of which is in that of the first.
        let all = record("wall", "-r 5000 --min-wait 0").arg(scratch.file("wall.txt"));
        let mut all = all.pid(&fixture).spawn()?;
        all.wait_until_sampling()?;
        let held = record("gil", "-r 5000 --min-wait 0 -d 0.5").arg(scratch.file("gil.txt"));
        let held = Shown::read(&scratch, "gil.txt", &held.pid(&fixture).succeed()?)?;
        all.signal(Signal::SIGINT)?;
        let all = Shown::read(&scratch, "wall.txt", &all.wait()?)?;
        fixture.finish()?;
        all.adds_up(5)?;
        is_held_by_one(&all, &held)
    });
}

/// One of four threads that count holds the GIL, the others wait for it.
fn is_held_by_one(all: &Shown, held: &Shown) -> Result<()> {
    let counts = |stack: &Stack| stack.thread.as_deref().is_some_and(|thread| thread.starts_with("counter"));
    // Who was given the GIL may still wait for a CPU: nobody holds it then.
    let queued = all.seconds(|stack| counts(stack) && leaf(stack) == CPU);
    let holds = held.seconds(counts);
    ensure!(
        holds <= held.elapsed * (1.0 + GIL_BOUND) && holds + queued >= held.elapsed * (1.0 - GIL_BOUND),
        "the GIL was held {holds} s, handed over at most {queued} s, of {} s",
        held.elapsed
    );
    ensure!(held.seconds(|stack| leaf(stack) == GIL) == 0.0, "held and waited for: {:?}", held.profile);
    let waits = all.seconds(|stack| counts(stack) && leaf(stack) == GIL);
    let rest = 3.0 * all.elapsed;
    ensure!(
        waits <= rest * (1.0 + GIL_BOUND) && waits + queued >= rest * (1.0 - GIL_BOUND),
        "{waits} s of waiting for the GIL and {queued} s for a CPU, of {rest} s without it"
    );
    Ok(())
}

fn too_few_cpus_are_seen() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    let count = (2 * std::thread::available_parallelism()?.get()).to_string();
    let program = "threads_processes/threads_processes.py";
    let fixture = Fixture::start(one_interpreter(), program, &["--processes", &count])?;
    let child = fixture.children().first().context("no child")?.to_string();
    let scratch = Scratch::new()?;
    let run = record("wall", &format!("-d 1 -p {child}")).arg(scratch.file("wall.txt")).succeed()?;
    fixture.finish()?;
    let shown = Shown::read(&scratch, "wall.txt", &run)?;
    shown.adds_up(1)?;
    let queued = shown.seconds(|stack| leaf(stack) == CPU) / shown.elapsed;
    // Half of the time is what it gets if the scheduler is fair.
    ensure!(queued >= 0.3, "{queued} of its time it waited for a CPU: {:?}", shown.profile);
    let with_stack = shown.profile.count(|stack| leaf(stack) == CPU && stack.contains("count_batch"));
    ensure!(with_stack > 0, "no stack of it: {:?}", shown.profile);
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(who_waits_from_the_start_is_seen_where_it_waits),
        test!(threads_hold_the_gil_or_wait_for_it),
        test!(too_few_cpus_are_seen),
    ]
}
