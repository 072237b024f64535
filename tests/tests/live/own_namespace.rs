//! The in-kernel sampler where the profiler itself is in a PID namespace (a container), whose ids are not those that the
//! kernel goes by: it shows what it shows outside, of targets there and in namespaces within, and takes nobody for another
//! who has the same number elsewhere.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use profiler_tests::labyrinth::{Place, judge};
use profiler_tests::place::{self, within};
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    Collapsed, Fixture, Interpreter, Profiler, Run, Scratch, Stack, Terminal, can_load_programs,
    every_interpreter, one_interpreter, profiler_path, wait_until_others_are_still, wait_until_still,
};

const LABYRINTH: &str = "labyrinth/labyrinth.py";

/// Versions of CPython with different frames.
const SOME: [u32; 3] = [6, 12, 15];

/// How far the time that is shown may be off.
const BOUND: f64 = 0.01;

/// What was lost for these reasons may have been another's. Not that the thread was not found: its own first tick may come
/// before the program is told of its thread, and the only thread of a sibling has the same number.
const MISTAKEN: [&str; 4] = ["thread ended", "could not be read", "no valid stack", "code object"];

/// A process as this one and the profiler know it.
struct Inside {
    /// Keeps it alive.
    fixture: Fixture,
    /// Its id outside.
    outside: u32,
    /// What leads to where the profiler is to run.
    place: Vec<OsString>,
    /// Its id there.
    inside: String,
}

impl Inside {
    /// The process that these words start in a namespace of its own, and the profiler beside it.
    fn start(words: Vec<OsString>) -> Result<Self> {
        let fixture = Fixture::command(&within(place::in_own_namespaces(), words))?;
        let outside = fixture.only_child()?;
        Ok(Inside { fixture, outside, place: namespaces_of(outside), inside: "1".to_owned() })
    }

    /// The same in a second namespace within, with the profiler outside of that one.
    fn start_nested(words: Vec<OsString>) -> Result<Self> {
        // One that stays in the first of them, with its `/proc`.
        let shell = ["sh", "-c", "\"$@\"; true", "sh"].map(Into::into).to_vec();
        let first = within(place::in_own_namespaces(), shell);
        let fixture = Fixture::command(&within(within(first, place::in_own_namespaces()), words))?;
        let first = fixture.only_child()?;
        let outside = only_child_of(only_child_of(first)?)?;
        let ids = ids_of(outside)?;
        ensure!(ids.len() == 3 && ids[2] == "1" && ids[1] != "1", "{ids:?}");
        Ok(Inside { fixture, outside, place: namespaces_of(first), inside: ids[1].clone() })
    }

    /// `profiler record` there.
    fn record(&self, words: &str, scratch: &Scratch) -> Profiler {
        self.record_in(&self.place, words, scratch)
    }

    fn record_in(&self, place: &[OsString], words: &str, scratch: &Scratch) -> Profiler {
        let profiler = Profiler::within(place, "record").words(words).words("-f raw -o");
        profiler.arg(scratch.file("out.txt")).words("--pid").arg(&self.inside)
    }
}

/// What leads into the PID and mount namespaces of a process.
fn namespaces_of(pid: u32) -> Vec<OsString> {
    ["nsenter", "--target", &pid.to_string(), "--pid", "--mount"].map(Into::into).to_vec()
}

fn only_child_of(pid: u32) -> Result<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    children.trim().parse().with_context(|| format!("children {children:?} instead of one"))
}

/// The ids by which the namespaces know the process, the innermost last.
fn ids_of(pid: u32) -> Result<Vec<String>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).context("no NSpid")?;
    Ok(ids.split_whitespace().map(str::to_owned).collect())
}

fn profile_of(scratch: &Scratch) -> Result<Collapsed> {
    Collapsed::parse(&fs::read_to_string(scratch.file("out.txt")).context("no data was written")?)
}

fn leaf(stack: &Stack) -> &str {
    stack.leaf().map_or("", |leaf| &leaf.function)
}

fn seconds(profile: &Collapsed, wanted: impl Fn(&Stack) -> bool) -> f64 {
    profile.count(wanted) as f64 / 1e9
}

/// The time of each thread is the time that there was.
fn must_add_up(profile: &Collapsed, run: &Run, threads: usize) -> Result<f64> {
    let elapsed = run.sampled_for()?;
    let mut shown: BTreeMap<&str, f64> = BTreeMap::new();
    for stack in &profile.stacks {
        *shown.entry(stack.thread.as_deref().unwrap_or_default()).or_default() += stack.count as f64 / 1e9;
    }
    ensure!(shown.len() == threads, "{shown:?} instead of {threads} threads");
    for (thread, time) in shown {
        let off = (time / elapsed - 1.0).abs();
        ensure!(
            off <= BOUND,
            "{thread}: {time} s of {elapsed} s: {:?}, {:#?}",
            profile.ledger,
            profile.stacks
        );
    }
    Ok(elapsed)
}

/// Nothing of the labyrinth is torn, and most of it was seen inside the maze.
fn must_be_the_maze(profile: &Collapsed) -> Result<()> {
    let mut in_the_maze = 0;
    for stack in &profile.stacks {
        if let Place::Maze { .. } = judge(&stack.frames)? {
            in_the_maze += stack.count;
        }
    }
    ensure!(profile.total() > 100, "only {} samples: {:?}", profile.total(), profile.ledger);
    ensure!(in_the_maze * 2 > profile.total(), "{in_the_maze} of {} samples", profile.total());
    Ok(())
}

/// Threads that wait, each for one thing, all of the time.
fn must_wait_for_what_they_wait(profile: &Collapsed, run: &Run) -> Result<()> {
    let elapsed = must_add_up(profile, run, 5)?;
    let states = [
        ("sleeps", "<waiting: sleep>"),
        ("waits_for_lock", "<waiting: lock>"),
        ("waits_for_socket", "<waiting: socket>"),
        ("waits_for_pipe", "<waiting: file>"),
    ];
    for (function, state) in states {
        let found = seconds(profile, |stack| stack.contains(function) && leaf(stack) == state);
        ensure!((found / elapsed - 1.0).abs() <= BOUND, "{function}: {found} s {state} of {elapsed} s");
    }
    Ok(())
}

fn the_labyrinth_is_not_torn() {
    if !can_load_programs() {
        return;
    }
    every_interpreter(|interpreter| {
        let target = Inside::start(interpreter.fixture_words(LABYRINTH, &["--threads", "2"]))?;
        let scratch = Scratch::new()?;
        target.record("--sampler bpf -r 2000 -d 0.4", &scratch).succeed()?;
        must_be_the_maze(&profile_of(&scratch)?)
    });
}

fn waits_have_their_reasons_and_add_up() {
    every_interpreter(|interpreter| {
        if !can_load_programs() || !SOME.contains(&interpreter.minor) {
            return Ok(());
        }
        let target = Inside::start(interpreter.fixture_words("waiting/waiting.py", &[]))?;
        wait_until_still(target.outside)?;
        let scratch = Scratch::new()?;
        let run = target.record("-t --sampler bpf --mode wall -d 0.4", &scratch).succeed()?;
        must_wait_for_what_they_wait(&profile_of(&scratch)?, &run)
    });
}

fn a_target_in_a_namespace_within_is_known_by_its_id_here() {
    every_interpreter(|interpreter| {
        if !can_load_programs() || !SOME.contains(&interpreter.minor) {
            return Ok(());
        }
        let scratch = Scratch::new()?;
        let maze = Inside::start_nested(interpreter.fixture_words(LABYRINTH, &["--threads", "2"]))?;
        maze.record("--sampler bpf -r 2000 -d 0.4", &scratch).succeed()?;
        must_be_the_maze(&profile_of(&scratch)?)?;
        let waits = Inside::start_nested(interpreter.fixture_words("waiting/waiting.py", &[]))?;
        wait_until_still(waits.outside)?;
        let run = waits.record("-t --sampler bpf --mode wall -d 0.4", &scratch).succeed()?;
        must_wait_for_what_they_wait(&profile_of(&scratch)?, &run)?;
        // Below what has no Python.
        let place = &waits.place;
        let tree = Profiler::within(place, "record")
            .words("-s --sampler bpf --mode wall -d 0.4 --pid 1 -f raw -o -");
        let profile = Collapsed::parse(&tree.succeed()?.stdout)?;
        ensure!(seconds(&profile, |stack| stack.contains("sleeps")) > 0.0, "{profile:?}");
        Ok(())
    });
}

/// A thread that sleeps, and one of two that hold the GIL in turn while the other has it.
const SLEEPS_AND_SPINS: &str = "\
import os, threading, time
def sleeps():
    time.sleep(1000)
def spins():
    while 1: pass
for work in [sleeps, spins, spins]:
    threading.Thread(target=work, name=work.__name__, daemon=True).start()
print('ready', os.getpid(), flush=True)
time.sleep(1000)
";

/// What threads do that the program inside the kernel does not meet on a CPU is looked at from outside, by their ids here.
fn must_be_seen_from_outside(target: &Inside, scratch: &Scratch) -> Result<()> {
    let sleep = |stack: &Stack| stack.contains("sleeps");
    let spin = |stack: &Stack| stack.contains("spins");
    let run = target.record("-t --sampler bpf --idle -r 1000 -d 0.5", scratch).succeed()?;
    run.must_say(&["never stopped"])?;
    let all = profile_of(scratch)?;
    ensure!(all.count(sleep) > 50 && all.count(spin) > 100, "{all:?}");
    let run = target.record("-t --sampler bpf --gil -r 1000 -d 0.5", scratch).succeed()?;
    run.must_say(&["never stopped"])?;
    let held = profile_of(scratch)?;
    ensure!(held.count(sleep) == 0 && held.count(spin) > 50, "{held:?}");
    Ok(())
}

/// So does `top`.
fn must_be_seen_live(target: &Inside) -> Result<()> {
    let profiler = [profiler_path().into(), "top".into(), "--pid".into(), target.inside.clone().into()];
    let mut terminal = Terminal::start(&within(target.place.clone(), profiler.to_vec()), (30, 120))?;
    let is_seen = |screen: &str| ["sleeps", "spins"].iter().all(|text| screen.contains(text));
    terminal.wait_for_text("never stopped")?;
    terminal.press("3")?;
    terminal.wait_for("threads that sleep and spin", is_seen)?;
    terminal.press("q")?;
    ensure!(terminal.wait()?.code() == Some(0), "{}", terminal.screen());
    Ok(())
}

fn who_is_off_the_cpu_is_seen_as_well() {
    every_interpreter(|interpreter| {
        if !can_load_programs() || !SOME.contains(&interpreter.minor) {
            return Ok(());
        }
        let (words, scratch) = (interpreter.inline_words(SLEEPS_AND_SPINS), Scratch::new()?);
        for target in [Inside::start(words.clone())?, Inside::start_nested(words)?] {
            must_be_seen_from_outside(&target, &scratch)?;
            must_be_seen_live(&target)?;
        }
        Ok(())
    });
}

/// Two programs in one, so that both have the same addresses: one is busy, the other comes and goes.
const TWINS: &str = "\
import os, sys, time
def seldom_away():
    while 1:
        for _ in range(10000): pass
def comes_and_goes():
    while 1:
        for _ in range(10000): pass
        time.sleep(0.0005)
print('ready', os.getpid(), flush=True)
{'a': seldom_away, 'b': comes_and_goes}[sys.argv[1]]()
";

/// Starts a command under this id in its namespace, and waits for it.
const UNDER_ID: &str = "\
import ctypes, os, struct, sys
CLONE3 = 435
id = ctypes.c_int(int(sys.argv[1]))
SIGCHLD = 17
arguments = struct.pack('11Q', 0, 0, 0, 0, SIGCHLD, 0, 0, 0, ctypes.addressof(id), 1, 0)
child = ctypes.CDLL(None, use_errno=True).syscall(CLONE3, arguments, len(arguments))
if child == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
assert child == id.value, os.strerror(ctypes.get_errno())
os.waitpid(child, 0)
";

/// One of the twins.
fn twin(interpreter: &Interpreter, which: &str) -> Vec<OsString> {
    let mut words: Vec<OsString> = ["setarch", "-R", "env", "PYTHONHASHSEED=0"].map(Into::into).to_vec();
    words.extend(interpreter.inline_words(TWINS));
    words.push(which.into());
    words
}

/// The busy twin in a namespace where it has the id that its sibling has outside.
fn with_the_id_of(sibling: &Fixture, interpreter: &Interpreter) -> Result<Inside> {
    let id = sibling.pid().to_string();
    let mut words = interpreter.inline_words(UNDER_ID);
    words.push((&id).into());
    words.extend(twin(interpreter, "a"));
    let parent = Inside::start(words)?;
    let outside = only_child_of(parent.outside)?;
    ensure!(ids_of(outside)?.last() == Some(&id) && outside != sibling.pid(), "{:?}", ids_of(outside)?);
    Ok(Inside { outside, inside: id, ..parent })
}

/// Only what the busy twin does is shown, and nothing is lost that may be another's.
fn must_be_the_busy_twin(profile: &Collapsed, run: &Run) -> Result<()> {
    let others = profile.count(|stack| stack.contains("comes_and_goes"));
    let its = profile.count(|stack| stack.contains("seldom_away"));
    ensure!(others == 0 && its > 100, "{its} of it, {others} of its sibling: {profile:?}");
    for reason in MISTAKEN {
        ensure!(!run.stderr.contains(reason), "{}", run.stderr);
    }
    Ok(())
}

fn who_has_the_same_number_outside_is_another() {
    if !can_load_programs() {
        return;
    }
    let record = || -> Result<()> {
        let interpreter = one_interpreter();
        let sibling = Fixture::command(&twin(interpreter, "b"))?;
        let target = with_the_id_of(&sibling, interpreter)?;
        let scratch = Scratch::new()?;
        let run = target.record("--sampler bpf -r 2000 -d 0.5", &scratch).succeed()?;
        must_be_the_busy_twin(&profile_of(&scratch)?, &run)?;
        let run = target.record("-t --sampler bpf --mode wall -r 2000 -d 0.5", &scratch).succeed()?;
        let profile = profile_of(&scratch)?;
        must_be_the_busy_twin(&profile, &run)?;
        must_add_up(&profile, &run, 1)?;
        ensure!(
            profile.count(|stack| leaf(stack) == "<waiting: sleep>") == 0,
            "it never sleeps: {profile:?}"
        );
        // The helper, too, knows which namespace is meant.
        let by_helper = within(target.place.clone(), place::without_types());
        let run = target.record_in(&by_helper, "--sampler bpf -r 2000 -d 0.5", &scratch).succeed()?;
        must_be_the_busy_twin(&profile_of(&scratch)?, &run)
    };
    record().unwrap();
}

fn who_has_the_same_number_in_a_namespace_within_is_another() {
    if !can_load_programs() {
        return;
    }
    let record = || -> Result<()> {
        let interpreter = one_interpreter();
        // Both are number 1: this one here, ...
        let target = Inside::start(twin(interpreter, "a"))?;
        // ... its sibling in a namespace that is beside this one and as deep, and one within.
        let _beside = Inside::start(twin(interpreter, "b"))?;
        let within_it =
            within(within(target.place.clone(), place::in_own_namespaces()), twin(interpreter, "b"));
        let _within = Fixture::command(&within_it)?;
        let scratch = Scratch::new()?;
        let run = target.record("-t --sampler bpf --mode wall -r 2000 -d 0.5", &scratch).succeed()?;
        let profile = profile_of(&scratch)?;
        must_be_the_busy_twin(&profile, &run)?;
        must_add_up(&profile, &run, 1)?;
        let run = target.record("--sampler bpf -r 2000 -d 0.5", &scratch).succeed()?;
        must_be_the_busy_twin(&profile_of(&scratch)?, &run)
    };
    record().unwrap();
}

/// Threads that use less CPU time than passes between two ticks, one after the other, and end: what they did after their last
/// tick is known only as the kernel tells of their end. They begin on a line of stdin, and the last line is what they used in
/// all. That is by a clock that stands still while a virtual machine's CPU is not run, as what is shown does not: so they are
/// many, for that to be a small part.
const SHORT_WORK: &str = "\
import os, sys, threading, time
COUNT = 200
turns, used = [threading.Semaphore(0) for _ in range(COUNT + 1)], []
def short_work(turn):
    turns[turn].acquire()
    began = time.thread_time()
    while time.thread_time() < began + 0.004: pass
    used.append(time.thread_time())
    turns[turn + 1].release()
threads = [threading.Thread(target=short_work, args=(turn,)) for turn in range(COUNT)]
for thread in threads: thread.start()
print('ready', os.getpid(), flush=True)
sys.stdin.readline()
turns[0].release()
for thread in threads: thread.join()
print(sum(used), flush=True)
sys.stdin.readline()
";

fn the_ends_of_threads_are_told() {
    if !can_load_programs() {
        return;
    }
    let record = || -> Result<()> {
        let interpreter = one_interpreter();
        let mut target = Inside::start(interpreter.inline_words(SHORT_WORK))?;
        wait_until_still(target.outside)?;
        let scratch = Scratch::new()?;
        let mut running = target.record("-t --sampler bpf --mode wall -r 100", &scratch).spawn()?;
        running.wait_until_sampling()?;
        let used: f64 = target.fixture.ask("go")?.parse()?;
        wait_until_others_are_still(target.outside)?;
        // Its own end would end all of the namespace.
        let profiler = Pid::from_raw(i32::try_from(running.profiler_pid())?);
        kill(profiler, Signal::SIGINT)?;
        let run = running.wait()?;
        ensure!(run.code() == Some(0), "{run:?}");
        let is_its = |stack: &Stack| {
            stack.thread.as_deref().is_some_and(|name| !name.contains("MainThread"))
                && !leaf(stack).starts_with("<waiting")
        };
        let shown = seconds(&profile_of(&scratch)?, is_its);
        // What they used before they were watched is not in it.
        ensure!(shown >= 0.9 * used && shown <= 1.1 * used, "{shown} s of {used} s: {}", run.stderr);
        Ok(())
    };
    record().unwrap();
}

fn whole_trees_of_processes() {
    every_interpreter(|interpreter| {
        if !can_load_programs() || !SOME.contains(&interpreter.minor) {
            return Ok(());
        }
        let target = Inside::start(interpreter.fixture_words("tree/tree.py", &["prefork", "2"]))?;
        let scratch = Scratch::new()?;
        target.record("-s --sampler bpf -r 1000 -d 0.8", &scratch).succeed()?;
        let profile = profile_of(&scratch)?;
        // They have told the ids by which they know themselves.
        let (workers, grandchildren) = target.fixture.children().split_at(2);
        for (pids, function) in [(workers, "work_until_told"), (grandchildren, "work_of_fork")] {
            for pid in pids {
                let is_its = |stack: &Stack| stack.processes.last() == Some(pid) && stack.contains(function);
                ensure!(profile.count(is_its) > 10, "{pid}: {:?}", profile.ledger);
            }
        }
        Ok(())
    });
}

fn without_the_kernels_types_it_knows_who_is_in_the_namespace_itself() {
    if !can_load_programs() {
        return;
    }
    let record = || -> Result<()> {
        const REASON: &str = "in another PID namespace than the profiler";
        let (interpreter, scratch) = (one_interpreter(), Scratch::new()?);
        let words = || interpreter.fixture_words(LABYRINTH, &[]);
        let beside = Inside::start(words())?;
        let without_types = |target: &Inside, words: &str| {
            target.record_in(&within(target.place.clone(), place::without_types()), words, &scratch)
        };
        without_types(&beside, "--sampler bpf -r 2000 -d 0.4").succeed()?;
        must_be_the_maze(&profile_of(&scratch)?)?;
        let nested = Inside::start_nested(words())?;
        without_types(&nested, "--sampler bpf -d 0.2").fail(&[REASON])?;
        let run = without_types(&nested, "-r 1000 -d 0.4").succeed()?;
        run.must_say(&["sampler: pause"])?;
        run.must_say(&[REASON])?;
        must_be_the_maze(&profile_of(&scratch)?)
    };
    record().unwrap();
}

/// Works for 0.5 s of its CPU time.
const WORK: &str = "\
import time
def work():
    while time.process_time() < 0.5: pass
work()";

fn the_same_two_capabilities_are_enough() {
    if !can_load_programs() {
        return;
    }
    let record = || -> Result<()> {
        let scratch = Scratch::new()?;
        let binary = scratch.file("profiler");
        fs::copy(profiler_path(), &binary)?;
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777))?;
        let record = |capabilities: &str, words: &str| {
            let nobody = place::as_nobody_with_capabilities(capabilities);
            let place = within(place::in_own_namespaces(), nobody);
            let profiler = Profiler::binary_within(&place, &binary, "record").words(words).words("-f raw -o");
            profiler.arg(scratch.file("out.txt")).command(&["/usr/bin/python3", "-c", WORK])
        };
        for mode in ["cpu", "wall"] {
            record("bpf,perfmon", &format!("--sampler bpf -r 1000 --mode {mode}")).succeed()?;
            let profile = profile_of(&scratch)?;
            ensure!(profile.count(|stack| stack.contains("work")) > 20, "{profile:?}");
        }
        for missing_one in ["bpf", "perfmon"] {
            record(missing_one, "--sampler bpf").fail(&["CAP_BPF"])?.must_say(&["CAP_PERFMON"])?;
        }
        Ok(())
    };
    record().unwrap();
}

fn doctor_says_that_it_is_taken() {
    if !can_load_programs() {
        return;
    }
    let run = Profiler::within(&place::in_own_namespaces(), "doctor").succeed().unwrap();
    assert!(run.stdout.contains("takes bpf, inside the kernel"), "{}", run.stdout);
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(the_labyrinth_is_not_torn),
        test!(waits_have_their_reasons_and_add_up),
        test!(a_target_in_a_namespace_within_is_known_by_its_id_here),
        test!(who_is_off_the_cpu_is_seen_as_well),
        test!(who_has_the_same_number_outside_is_another),
        test!(who_has_the_same_number_in_a_namespace_within_is_another),
        test!(the_ends_of_threads_are_told),
        test!(whole_trees_of_processes),
        test!(without_the_kernels_types_it_knows_who_is_in_the_namespace_itself),
        test!(the_same_two_capabilities_are_enough),
        test!(doctor_says_that_it_is_taken),
    ]
}
