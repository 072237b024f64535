//! `--kernel`: what threads run in the kernel, and where in it they wait, below the Python that called it. Everything else is
//! shown as it is without. That it adds no time is for the statistical tests (`off_cpu`).
//!
//! Names of functions differ from kernel to kernel. `vfs_read` (every read of a file goes through it) and names with
//! `futex` or `nanosleep` in them have been there for twenty years.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use profiler_tests::suite::{Case, On, Sampler, Test};
use profiler_tests::times::leaf;
use profiler_tests::{
    Collapsed, Fixture, Profiler, Scratch, Stack, Terminal, USUAL_SIZE, one_interpreter, place,
    profiler_path, test,
};

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

fn record(scratch: &Scratch, fixture: &Fixture, words: &str) -> Profiler {
    Profiler::new("record").words(words).words("-f raw -o").arg(scratch.file("out.txt")).pid(fixture)
}

fn written(scratch: &Scratch) -> Result<Collapsed> {
    Collapsed::parse(&fs::read_to_string(scratch.file("out.txt"))?)
}

/// What is shown of the program while it uses `cpu`, however long a busy machine takes for it.
fn sampled(scratch: &Scratch, fixture: &Fixture, words: &str, cpu: Duration) -> Result<Collapsed> {
    let mut running = record(scratch, fixture, words).words("--sampler bpf -r 500").spawn()?;
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

fn kernel_frames_stand_below_the_calling_line(case: &Case) -> Result<()> {
    let fixture = Fixture::inline(case.interpreter, PROGRAM)?;
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
}

/// Checks that waits of the function `within` stand on a function of the kernel with one of `names` in its name, and that
/// neither the profiler nor the scheduler is shown.
fn must_wait_in(profile: &Collapsed, within: &str, names: &[&str]) -> Result<()> {
    let waits = ["<waiting: sleep>", "<waiting: lock>"];
    let stacks: Vec<_> = profile
        .stacks
        .iter()
        .filter(|stack| stack.contains(within) && waits.contains(&leaf(stack)))
        .collect();
    ensure!(!stacks.is_empty(), "no waits in {within}: {profile:?}");
    for stack in stacks {
        let (_, kernel) = parts(stack)?;
        let is_inner =
            |name: &&str| ["schedule_[k]", "__schedule_[k]"].contains(name) || name.starts_with("bpf_");
        ensure!(!kernel.iter().any(is_inner), "the profiler or the scheduler itself: {kernel:?}");
        let is_named = |function: &&str| names.iter().any(|name| function.contains(name));
        ensure!(kernel.iter().any(is_named), "a wait in none of {names:?}: {stack:?}");
    }
    Ok(())
}

fn waits_stand_on_their_kernel_functions(case: &Case) -> Result<()> {
    let fixture = Fixture::inline(case.interpreter, PROGRAM)?;
    let scratch = Scratch::new()?;
    record(&scratch, &fixture, "--kernel --sampler bpf --mode wall -t -d 0.3").succeed()?;
    let profile = written(&scratch)?;
    // Until 3.10 a sleep is a `select` of nothing.
    must_wait_in(&profile, "naps", &["nanosleep", "select"])?;
    must_wait_in(&profile, "waits", &["futex"])
}

fn live_view_shows_kernel_frames_among_calls() -> Result<()> {
    let fixture = Fixture::inline(one_interpreter(), PROGRAM)?;
    let pid = fixture.pid().to_string();
    let words = ["top", "--kernel", "--sampler", "bpf", "--delay", "0.3", "--pid", &pid].map(OsString::from);
    let words: Vec<OsString> = [profiler_path().into()].into_iter().chain(words).collect();
    let mut terminal = Terminal::start(&words, USUAL_SIZE)?;
    let functions = terminal.wait_for_text("reads")?;
    ensure!(!functions.contains("_[k]"), "{functions}");
    terminal.press_for("4", "vfs_read_[k]")?;
    terminal.press("q")?;
    ensure!(terminal.wait()?.code() == Some(0), "{}", terminal.screen());
    Ok(())
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

/// The profiler as the user nobody with these capabilities.
fn by_nobody(capabilities: &str, subcommand: &str, scratch: &Scratch) -> Result<Profiler> {
    let binary = scratch.file("profiler");
    if !binary.exists() {
        fs::copy(profiler_path(), &binary)?;
    }
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777))?;
    let nobody = place::as_nobody_with_capabilities(capabilities);
    Ok(Profiler::binary_within(&nobody, &binary, subcommand))
}

/// Records the reader as the user nobody with these capabilities.
fn as_nobody(capabilities: &str, scratch: &Scratch) -> Result<Profiler> {
    let profiler =
        by_nobody(capabilities, "record", scratch)?.words("--kernel --sampler bpf -f raw -r 500 -o");
    let profiler = profiler.arg(scratch.file("out.txt")).command(&["/usr/bin/python3", "-c", READER]);
    Ok(profiler.with_stdin())
}

fn without_rights_to_names_kernel_time_is_shown() -> Result<()> {
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
    // The kernel shows names to every user if both settings let it.
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

fn without_rights_to_load_kernel_frames_are_refused() -> Result<()> {
    let scratch = Scratch::new()?;
    let run = as_nobody("bpf", &scratch)?.run()?;
    ensure!(run.code() == Some(1), "{run:?}");
    for words in ["--kernel", "CAP_PERFMON", "without --kernel"] {
        run.must_say(&[words])?;
    }
    Ok(())
}

fn kernel_frames_need_the_bpf_sampler() -> Result<()> {
    for words in ["--sampler pause", "--sampler peek", "--nonblocking"] {
        let run = Profiler::new("record").words("--kernel --pid 1").words(words).misuse()?;
        run.must_say(&["--sampler bpf"])?;
    }
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    const BPF: &[Sampler] = &[Sampler::Bpf];
    vec![
        test!(kernel_frames_stand_below_the_calling_line).on(On::Layouts).by(BPF),
        test!(waits_stand_on_their_kernel_functions).on(On::Layouts).by(BPF),
        test!(live_view_shows_kernel_frames_among_calls).by(BPF),
        test!(without_rights_to_names_kernel_time_is_shown).by(BPF),
        test!(without_rights_to_load_kernel_frames_are_refused).by(BPF),
        test!(kernel_frames_need_the_bpf_sampler),
    ]
}
