//! The in-kernel sampler where the profiler itself is in a PID namespace (a container), whose ids are not those that the
//! kernel goes by: it shows what it shows outside, of targets there and in namespaces within, and takes no process for another
//! that has the same number elsewhere.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Result, ensure};
use profiler_tests::inside::{Inside, Twins, end_after_cpu_time, profile_of};
use profiler_tests::labyrinth::{Place, judge};
use profiler_tests::place::{self, within};
use profiler_tests::suite::{Case, On, Sampler, Test};
use profiler_tests::times::leaf;
use profiler_tests::{
    Collapsed, Profiler, Run, Scratch, Stack, Terminal, WORK, one_interpreter, profiler_path, test,
    wait_until_still, waits,
};

const LABYRINTH: &str = "labyrinth/labyrinth.py";

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

/// Records a target for a part of its CPU time, however long that takes on a busy machine.
fn record_work(target: &Inside, record: Profiler) -> Result<Run> {
    end_after_cpu_time(record.spawn()?, target.outside, Duration::from_millis(200))
}

fn must_show_the_maze(case: &Case, start: impl Fn(Vec<OsString>) -> Result<Inside>) -> Result<()> {
    let target = start(case.interpreter.fixture_words(LABYRINTH, &["--threads", "2"]))?;
    let scratch = Scratch::new()?;
    let words = format!("{} -r 2000", case.sampler_words());
    record_work(&target, target.record(&words, &scratch))?;
    must_be_the_maze(&profile_of(&scratch)?)
}

fn labyrinth_is_not_torn_in_namespace(case: &Case) -> Result<()> {
    must_show_the_maze(case, Inside::start)
}

fn labyrinth_is_not_torn_in_nested_namespace(case: &Case) -> Result<()> {
    must_show_the_maze(case, Inside::start_nested)
}

fn must_show_reasons(target: &Inside) -> Result<()> {
    wait_until_still(target.outside)?;
    let scratch = Scratch::new()?;
    target.record("-t --sampler bpf --mode wall -d 0.2", &scratch).succeed()?;
    waits::must_have_reasons(&profile_of(&scratch)?)
}

fn waits_in_namespace_have_their_reasons(case: &Case) -> Result<()> {
    must_show_reasons(&Inside::start(case.interpreter.fixture_words("waiting/waiting.py", &[]))?)
}

fn waits_in_nested_namespace_have_their_reasons(case: &Case) -> Result<()> {
    must_show_reasons(&Inside::start_nested(case.interpreter.fixture_words("waiting/waiting.py", &[]))?)
}

fn nested_target_is_found_below_shell() -> Result<()> {
    let words = one_interpreter().fixture_words("waiting/waiting.py", &[]);
    let target = Inside::start_nested(words)?;
    wait_until_still(target.outside)?;
    // Process 1 there is a shell.
    let words = "-s --sampler bpf --mode wall -d 0.3 --pid 1 -f raw -o -";
    let run = Profiler::within(&target.place, "record").words(words).succeed()?;
    let profile = Collapsed::parse(&run.stdout)?;
    ensure!(profile.count(|stack| stack.contains("sleeps")) > 0, "{profile:?}");
    Ok(())
}

/// A thread that sleeps, and two of which one holds the GIL while the other waits for it.
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

/// Threads that the program inside the kernel does not meet on a CPU are looked at from outside, by their ids there.
fn must_be_seen_from_outside(target: &Inside, scratch: &Scratch) -> Result<()> {
    let sleep = |stack: &Stack| stack.contains("sleeps");
    let spin = |stack: &Stack| stack.contains("spins");
    let run = record_work(target, target.record("-t --sampler bpf --idle -r 1000", scratch))?;
    ensure!(run.ledger()?.stops.count == 0, "{:?}", run.ledger());
    let all = profile_of(scratch)?;
    ensure!(all.count(sleep) > 50 && all.count(spin) > 100, "{all:?}");
    let run = record_work(target, target.record("-t --sampler bpf --gil -r 1000", scratch))?;
    ensure!(run.ledger()?.stops.count == 0, "{:?}", run.ledger());
    let held = profile_of(scratch)?;
    ensure!(held.count(sleep) == 0 && held.count(spin) > 50, "{held:?}");
    Ok(())
}

fn threads_off_cpu_are_seen_in_namespace(case: &Case) -> Result<()> {
    let target = Inside::start(case.interpreter.inline_words(SLEEPS_AND_SPINS))?;
    must_be_seen_from_outside(&target, &Scratch::new()?)
}

fn threads_off_cpu_are_seen_in_nested_namespace() -> Result<()> {
    let target = Inside::start_nested(one_interpreter().inline_words(SLEEPS_AND_SPINS))?;
    must_be_seen_from_outside(&target, &Scratch::new()?)
}

fn live_view_shows_threads_off_cpu_in_namespaces() -> Result<()> {
    let words = one_interpreter().inline_words(SLEEPS_AND_SPINS);
    for target in [Inside::start(words.clone())?, Inside::start_nested(words)?] {
        let mut profiler: Vec<OsString> = vec![profiler_path().into()];
        profiler.extend(["top", "--sampler", "bpf", "--pid", &target.inside].map(Into::into));
        let mut terminal = Terminal::start(&within(target.place.clone(), profiler), (30, 120))?;
        let is_seen = |screen: &str| ["sleeps", "spins"].iter().all(|text| screen.contains(text));
        terminal.wait_for_text("never stopped")?;
        terminal.press("3")?;
        terminal.wait_for("threads that sleep and spin", is_seen)?;
        terminal.press("q")?;
        ensure!(terminal.wait()?.code() == Some(0), "{}", terminal.screen());
    }
    Ok(())
}

/// Records the busy twin by its CPU time and by all of its time: it is the only one that is shown, and never sleeps.
fn must_be_told_apart(twins: &Twins) -> Result<()> {
    let scratch = Scratch::new()?;
    let run = record_work(&twins.busy, twins.busy.record("--sampler bpf -r 2000", &scratch))?;
    let profile = profile_of(&scratch)?;
    twins.must_be_alone(&profile, &run)?;
    ensure!(profile.total() > 100, "{profile:?}");
    let record = twins.busy.record("-t --sampler bpf --mode wall -r 2000", &scratch);
    let run = record_work(&twins.busy, record)?;
    let profile = profile_of(&scratch)?;
    twins.must_be_alone(&profile, &run)?;
    let sleeps = profile.count(|stack| leaf(stack) == "<waiting: sleep>");
    ensure!(sleeps == 0, "it never sleeps: {profile:?}");
    Ok(())
}

fn process_with_same_number_outside_is_another() -> Result<()> {
    let twins = Twins::with_id_outside(one_interpreter())?;
    must_be_told_apart(&twins)?;
    // The helper, too, knows which namespace is meant.
    let (scratch, by_helper) = (Scratch::new()?, within(twins.busy.place.clone(), place::without_types()));
    let record = twins.busy.record_in(&by_helper, "--sampler bpf -r 2000", &scratch);
    let run = record_work(&twins.busy, record)?;
    twins.must_be_alone(&profile_of(&scratch)?, &run)
}

fn process_with_same_number_within_is_another() -> Result<()> {
    must_be_told_apart(&Twins::with_id_within(one_interpreter())?)
}

fn trees_in_namespace_are_followed(case: &Case) -> Result<()> {
    let target = Inside::start(case.interpreter.fixture_words("tree/tree.py", &["prefork", "2"]))?;
    let scratch = Scratch::new()?;
    target.record("-s --sampler bpf -r 1000 -d 0.8", &scratch).succeed()?;
    let profile = profile_of(&scratch)?;
    // They have announced the ids by which they know themselves.
    let (workers, grandchildren) = target.fixture.children().split_at(2);
    for (pids, function) in [(workers, "work_until_told"), (grandchildren, "work_of_fork")] {
        for pid in pids {
            let is_its = |stack: &Stack| stack.processes.last() == Some(pid) && stack.contains(function);
            ensure!(profile.count(is_its) > 10, "{pid}: {:?}", profile.ledger);
        }
    }
    Ok(())
}

fn nested_target_without_kernel_types_is_refused() -> Result<()> {
    const REASON: &str = "in another PID namespace than the profiler";
    let (interpreter, scratch) = (one_interpreter(), Scratch::new()?);
    let words = || interpreter.fixture_words(LABYRINTH, &[]);
    let beside = Inside::start(words())?;
    let without_types = |target: &Inside, words: &str| {
        target.record_in(&within(target.place.clone(), place::without_types()), words, &scratch)
    };
    record_work(&beside, without_types(&beside, "--sampler bpf -r 2000"))?;
    must_be_the_maze(&profile_of(&scratch)?)?;
    let nested = Inside::start_nested(words())?;
    without_types(&nested, "--sampler bpf -d 0.2").fail(&[REASON])?;
    // Left to itself, it takes another one.
    let run = record_work(&nested, without_types(&nested, "-r 1000"))?;
    run.must_say(&["sampler: pause"])?;
    run.must_say(&[REASON])?;
    must_be_the_maze(&profile_of(&scratch)?)
}

fn same_two_capabilities_suffice_in_namespace() -> Result<()> {
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
}

fn doctor_reports_bpf_in_namespace() -> Result<()> {
    let run = Profiler::within(&place::in_own_namespaces(), "doctor").succeed()?;
    ensure!(run.stdout.contains("takes bpf, inside the kernel"), "{}", run.stdout);
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    const BPF: &[Sampler] = &[Sampler::Bpf];
    vec![
        test!(labyrinth_is_not_torn_in_namespace).on(On::Layouts).by(BPF),
        test!(labyrinth_is_not_torn_in_nested_namespace).on(On::Layouts).by(BPF),
        test!(waits_in_namespace_have_their_reasons).on(On::Layouts).by(BPF),
        test!(waits_in_nested_namespace_have_their_reasons).on(On::Layouts).by(BPF),
        test!(nested_target_is_found_below_shell).by(BPF),
        test!(threads_off_cpu_are_seen_in_namespace).on(On::Layouts).by(BPF),
        test!(threads_off_cpu_are_seen_in_nested_namespace).by(BPF),
        test!(live_view_shows_threads_off_cpu_in_namespaces).by(BPF),
        test!(process_with_same_number_outside_is_another).by(BPF),
        test!(process_with_same_number_within_is_another).by(BPF),
        test!(trees_in_namespace_are_followed).on(On::Layouts).by(BPF),
        test!(nested_target_without_kernel_types_is_refused).needs_programs(),
        test!(same_two_capabilities_suffice_in_namespace).by(BPF),
        test!(doctor_reports_bpf_in_namespace).needs_programs(),
    ]
}
