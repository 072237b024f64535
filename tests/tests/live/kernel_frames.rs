//! `--kernel`: what threads run in the kernel, and where in it they wait, below the Python that called it. What of all
//! else is shown stays as it is without.
//!
//! Names of functions differ from kernel to kernel. `vfs_read` (every read of a file goes through it) and names with
//! `futex` or `nanosleep` in them have been there for twenty years.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    Collapsed, Fixture, Interpreter, Profiler, Scratch, Stack, Terminal, USUAL_SIZE, can_load_programs,
    every_interpreter, one_interpreter, place, profiler_path,
};

/// Versions of CPython with different frames; that each of them is read right is for others to show.
const SOME: [u32; 2] = [6, 15];

/// Reads zeros, a MiB at once, which the kernel is busy with for nearly all of the time; and has two threads that wait.
const PROGRAM: &str = "\
import os, threading, time
zeros = open('/dev/zero', 'rb', buffering=0)
buffer = bytearray(1 << 20)
def reads():
    zeros.readinto(buffer)
def naps():
    while True:
        time.sleep(0.02)
def waits():
    lock = threading.Lock()
    lock.acquire()
    while True:
        lock.acquire(timeout=0.02)
threading.Thread(target=naps, name='naps', daemon=True).start()
threading.Thread(target=waits, name='waits', daemon=True).start()
print('ready', os.getpid(), flush=True)
while True:
    reads()
";

/// The line of the program on which it reads.
const READS_AT: u32 = 5;

/// By how much more than there was may be shown of a thread's time.
const BOUND: f64 = 0.01;

fn record(scratch: &Scratch, fixture: &Fixture, words: &str) -> Profiler {
    Profiler::new("record").words(words).words("-f raw -o").arg(scratch.file("out.txt")).pid(fixture)
}

fn written(scratch: &Scratch) -> Result<Collapsed> {
    Collapsed::parse(&fs::read_to_string(scratch.file("out.txt"))?)
}

/// What is shown of so much of the program's CPU time, however long a busy machine takes for it.
fn sampled(scratch: &Scratch, fixture: &Fixture, words: &str, cpu: Duration) -> Result<Collapsed> {
    let mut running = record(scratch, fixture, words).words("-r 500").spawn()?;
    running.wait_until_sampling()?;
    let run = running.end_after_cpu_time(fixture.pid(), cpu)?;
    ensure!(run.code() == Some(0), "{run:?}");
    written(scratch)
}

fn is_of_kernel(function: &str) -> bool {
    function.ends_with("_[k]")
}

/// The frames of the program, and those of the kernel, which stand behind all of them; the reason of a wait left away.
fn parts(stack: &Stack) -> Result<(Vec<&str>, Vec<&str>)> {
    let names = stack.frames.iter().map(|frame| &*frame.function);
    let names: Vec<&str> = names.filter(|name| !name.starts_with("<waiting")).collect();
    let first = names.iter().position(|name| is_of_kernel(name)).unwrap_or(names.len());
    let (program, kernel) = names.split_at(first);
    ensure!(kernel.iter().all(|name| is_of_kernel(name)), "a caller of the kernel in the kernel: {names:?}");
    Ok((program.to_vec(), kernel.to_vec()))
}

/// The stacks of the thread that reads are those that it can have.
fn expect_program(profile: &Collapsed) -> Result<()> {
    for stack in profile.stacks.iter().filter(|stack| stack.contains("<module>")) {
        let (program, _) = parts(stack)?;
        ensure!([&["<module>"][..], &["<module>", "reads"]].contains(&&*program), "{program:?}");
    }
    Ok(())
}

fn what_runs_in_the_kernel_stands_below_the_line_that_called_it() {
    every_interpreter(|interpreter| {
        if !can_load_programs() || !SOME.contains(&interpreter.minor) {
            return Ok(());
        }
        let fixture = Fixture::inline(interpreter, PROGRAM)?;
        let scratch = Scratch::new()?;
        let with = sampled(&scratch, &fixture, "--kernel", Duration::from_millis(200))?;
        let reading = |stack: &Stack| stack.contains("reads");
        let in_kernel = |stack: &Stack| stack.frames.iter().any(|frame| frame.function == "vfs_read_[k]");
        let (read, of_them) = (with.count(reading), with.count(|stack| reading(stack) && in_kernel(stack)));
        ensure!(read > 20 && of_them * 2 > read, "{of_them} of {read} in vfs_read: {with:?}");
        for stack in with.stacks.iter().filter(|stack| in_kernel(stack)) {
            let caller = stack.frames.iter().rfind(|frame| !is_of_kernel(&frame.function));
            let line = caller.filter(|frame| frame.plain_name() == "reads").and_then(|frame| frame.line);
            ensure!(line == Some(READS_AT), "{stack:?}");
        }
        let without = sampled(&scratch, &fixture, "", Duration::from_millis(100))?;
        ensure!(without.count(reading) > 10, "{without:?}");
        ensure!(without.stacks.iter().all(|stack| parts(stack).is_ok_and(|(_, kernel)| kernel.is_empty())));
        expect_program(&with)?;
        expect_program(&without)
    });
}

/// The time of every thread, in seconds.
fn times(profile: &Collapsed) -> BTreeMap<&str, f64> {
    let mut times = BTreeMap::new();
    for stack in &profile.stacks {
        *times.entry(stack.thread.as_deref().unwrap_or_default()).or_default() += stack.count as f64 / 1e9;
    }
    times
}

/// Waits of the function `within` that stand on a function of the kernel with one of `names` in its name, and all of them.
fn waits(profile: &Collapsed, within: &str, names: &[&str]) -> Result<(f64, f64)> {
    let (mut named, mut all) = (0.0, 0.0);
    for stack in profile.stacks.iter().filter(|stack| stack.contains(within)) {
        let reason = stack.leaf().map_or("", |leaf| &leaf.function);
        if reason != "<waiting: sleep>" && reason != "<waiting: lock>" {
            continue;
        }
        let (_, kernel) = parts(stack)?;
        let innermost = kernel.last().copied().unwrap_or_default();
        let is_inner =
            |name: &&str| ["schedule_[k]", "__schedule_[k]"].contains(name) || name.starts_with("bpf_");
        ensure!(!kernel.iter().any(is_inner), "the profiler or the scheduler itself: {kernel:?}");
        let seconds = stack.count as f64 / 1e9;
        all += seconds;
        if kernel.iter().any(|function| names.iter().any(|name| function.contains(name))) {
            named += seconds;
        }
        ensure!(!innermost.is_empty(), "a wait outside of the kernel: {stack:?}");
    }
    Ok((named, all))
}

fn waits_are_in_their_place(interpreter: &Interpreter) -> Result<()> {
    let fixture = Fixture::inline(interpreter, PROGRAM)?;
    let scratch = Scratch::new()?;
    let run = record(&scratch, &fixture, "--kernel --mode wall -t -d 0.4").succeed()?;
    let (profile, elapsed) = (written(&scratch)?, run.sampled_for()?);
    let times = times(&profile);
    ensure!(times.len() == 3, "{times:?}");
    // That nothing is missing of it is for `off_cpu`.
    for (thread, time) in times {
        ensure!(time <= elapsed * (1.0 + BOUND), "{thread}: {time} s of {elapsed} s {:?}", profile.ledger);
    }
    // Until 3.10 a sleep is a `select` of nothing.
    let sleep = ["nanosleep", "select"];
    for (function, names) in [("naps", &sleep[..]), ("waits", &["futex"])] {
        let (named, all) = waits(&profile, function, names)?;
        ensure!(all > 0.0 && named == all, "{function}: {named} s of {all} s in {names:?}: {profile:?}");
    }
    Ok(())
}

fn where_in_the_kernel_a_thread_waits_is_seen_and_adds_no_time() {
    every_interpreter(|interpreter| {
        if !can_load_programs() || !SOME.contains(&interpreter.minor) {
            return Ok(());
        }
        waits_are_in_their_place(interpreter)
    });
}

fn the_live_view_has_them_among_the_calls_and_not_among_the_functions() {
    if !can_load_programs() {
        return;
    }
    let fixture = Fixture::inline(one_interpreter(), PROGRAM).unwrap();
    let pid = fixture.pid().to_string();
    let words = ["top", "--kernel", "--delay", "0.3", "--pid", &pid].map(OsString::from);
    let words: Vec<OsString> = [profiler_path().into()].into_iter().chain(words).collect();
    let mut terminal = Terminal::start(&words, USUAL_SIZE).unwrap();
    let functions = terminal.wait_for_text("reads").unwrap();
    assert!(!functions.contains("_[k]"), "{functions}");
    terminal.press_for("4", "vfs_read_[k]").unwrap();
    terminal.press("q").unwrap();
    assert_eq!(terminal.wait().unwrap().code(), Some(0), "{}", terminal.screen());
}

/// Reads until its stdin closes, which a thread watches, and then for 0.3 s of its CPU time: however slowly a busy
/// machine lets the profiler start, there is something to be seen.
const READER: &str = "\
import sys, threading, time
zeros = open('/dev/zero', 'rb', buffering=0)
buffer = bytearray(1 << 20)
over = []
def watch():
    sys.stdin.read()
    over.append(time.process_time() + 0.3)
threading.Thread(target=watch).start()
def reads():
    while not over or time.process_time() < over[0]:
        zeros.readinto(buffer)
reads()
";

fn setting(name: &str) -> Result<i32> {
    let path = format!("/proc/sys/kernel/{name}");
    fs::read_to_string(&path)?.trim().parse().with_context(|| path)
}

/// The profiler as nobody with these capabilities.
fn by_nobody(capabilities: &str, subcommand: &str, scratch: &Scratch) -> Result<Profiler> {
    let binary = scratch.file("profiler");
    if !binary.exists() {
        fs::copy(profiler_path(), &binary)?;
    }
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777))?;
    let nobody = place::as_nobody_with_capabilities(capabilities);
    Ok(Profiler::binary_within(&nobody, &binary, subcommand))
}

/// Records the reader as nobody with these capabilities.
fn as_nobody(capabilities: &str, scratch: &Scratch) -> Result<Profiler> {
    let profiler = by_nobody(capabilities, "record", scratch)?.words("--kernel -f raw -r 500 -o");
    let profiler = profiler.arg(scratch.file("out.txt")).command(&["/usr/bin/python3", "-c", READER]);
    Ok(profiler.with_stdin())
}

fn who_may_not_see_names_is_told_and_sees_how_much_is_the_kernels() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let mut running = as_nobody("bpf,perfmon", &scratch)?.spawn()?;
    running.wait_until_sampling()?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    let profile = Collapsed::parse(&fs::read_to_string(scratch.file("out.txt"))?)?;
    let reading = |stack: &Stack| stack.contains("reads");
    let mut kernel = BTreeSet::new();
    for stack in profile.stacks.iter().filter(|stack| reading(stack)) {
        kernel.extend(parts(stack)?.1);
    }
    // The kernel shows them to everybody if both settings let it.
    if setting("kptr_restrict")? == 0 && setting("perf_event_paranoid")? <= 1 {
        ensure!(kernel.contains("vfs_read_[k]"), "{profile:?}");
        return Ok(());
    }
    ensure!(kernel == BTreeSet::from(["[kernel]_[k]"]), "{profile:?}");
    let doctor = by_nobody("bpf,perfmon", "doctor", &scratch)?.run()?;
    ensure!(doctor.stdout.contains("shows [kernel] instead of names: /proc/kallsyms"), "{doctor:?}");
    ensure!(doctor.stdout.contains("try: sudo, or the capability CAP_SYSLOG"), "{doctor:?}");
    let of_kernel = |stack: &Stack| stack.leaf().is_some_and(|leaf| is_of_kernel(&leaf.function));
    let (read, of_them) = (profile.count(reading), profile.count(|stack| reading(stack) && of_kernel(stack)));
    ensure!(read > 20 && of_them * 2 > read, "{of_them} of {read} in the kernel: {profile:?}");
    for words in ["/proc/kallsyms", "CAP_SYSLOG", "sysctl kernel."] {
        run.must_say(&[words])?;
    }
    Ok(())
}

fn who_cannot_load_it_is_told_what_needs_it() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let run = as_nobody("bpf", &scratch)?.run()?;
    ensure!(run.code() == Some(1), "{run:?}");
    for words in ["--kernel", "CAP_PERFMON", "without --kernel"] {
        run.must_say(&[words])?;
    }
    Ok(())
}

fn a_sampler_outside_of_the_kernel_is_a_mistake() -> Result<()> {
    for words in ["--sampler pause", "--sampler peek", "--nonblocking"] {
        let run = Profiler::new("record").words("--kernel --pid 1").words(words).misuse()?;
        run.must_say(&["--sampler bpf"])?;
    }
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(what_runs_in_the_kernel_stands_below_the_line_that_called_it),
        test!(where_in_the_kernel_a_thread_waits_is_seen_and_adds_no_time),
        test!(the_live_view_has_them_among_the_calls_and_not_among_the_functions),
        test!(who_may_not_see_names_is_told_and_sees_how_much_is_the_kernels),
        test!(who_cannot_load_it_is_told_what_needs_it),
        test!(a_sampler_outside_of_the_kernel_is_a_mistake),
    ]
}
