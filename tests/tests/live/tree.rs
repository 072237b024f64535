//! `--subprocesses`: whole trees of processes, however their members are started and however they end.

use std::ffi::OsString;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use profiler_os::ProcessEvents;
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    Collapsed, Fixture, Interpreter, Profiler, Run, Scratch, Stack, can_load_programs, cpu_nanos,
    dumped_json, every_interpreter_side_by_side, expectation, is_root, missing, one_interpreter,
    process_state, tracer_of,
};
use serde_json::Value;

const PROGRAM: &str = "tree/tree.py";

/// No test waits longer for a process to have worked.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// CPU time in which there are far more samples of a process than are asked for, however long a busy machine takes.
const ENOUGH_WORK: Duration = Duration::from_millis(200);

/// The same for one that has to be found first.
const WORK_UNTIL_FOUND: Duration = Duration::from_millis(300);

fn profile_of(scratch: &Scratch) -> Result<Collapsed> {
    Collapsed::parse(&std::fs::read_to_string(scratch.file("out.txt")).context("no data was written")?)
}

/// A recording of a tree as collapsed stacks.
fn record(scratch: &Scratch) -> Profiler {
    Profiler::new("record").words("-s -f raw -r 1000 -o").arg(scratch.file("out.txt"))
}

/// What is shown of a tree while each of its announced children works for a while.
fn recorded(fixture: &Fixture) -> Result<Collapsed> {
    let scratch = Scratch::new()?;
    let mut running = record(&scratch).pid(fixture).spawn()?;
    running.wait_until_sampling()?;
    wait_for_work(fixture.children(), ENOUGH_WORK)?;
    running.signal(Signal::SIGINT)?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    profile_of(&scratch)
}

/// How often the process was seen in this function, with so many processes on the way to it.
fn seen(profile: &Collapsed, pid: u32, function: &str, processes: usize) -> u64 {
    let is_its = |stack: &Stack| stack.processes.last() == Some(&pid) && stack.processes.len() == processes;
    profile.count(|stack| is_its(stack) && stack.contains(function))
}

fn at_least() -> Result<u64> {
    expectation("tree")?["samples_of_each_at_least"].as_u64().context("samples_of_each_at_least")
}

fn must_see(profile: &Collapsed, pid: u32, function: &str, processes: usize) -> Result<()> {
    let count = seen(profile, pid, function, processes);
    ensure!(count >= at_least()?, "process {pid}: {count} samples in {function}: {:?}", profile.ledger);
    Ok(())
}

fn workers_are_seen_however_they_are_started() {
    every_interpreter_side_by_side(|interpreter| {
        let expected = expectation("tree")?;
        for (mode, worker) in expected["modes"].as_object().context("modes")? {
            let fixture = Fixture::start(interpreter, PROGRAM, &[mode, "2"])?;
            let profile = recorded(&fixture)?;
            let function = worker["function"].as_str().context("function")?;
            let processes = worker["processes"].as_u64().context("processes")? as usize;
            ensure!(fixture.children().len() == 2, "{mode}: children {:?}", fixture.children());
            for pid in fixture.children() {
                must_see(&profile, *pid, function, processes).with_context(|| mode.clone())?;
            }
            let root = Some(&fixture.pid());
            ensure!(profile.stacks.iter().all(|stack| stack.processes.first() == root), "{mode}: no root");
            fixture.finish()?;
        }
        Ok(())
    });
}

fn a_server_that_forks_its_workers_in_a_recording_and_in_a_dump() {
    every_interpreter_side_by_side(|interpreter| {
        let fixture = Fixture::start(interpreter, PROGRAM, &["prefork", "2"])?;
        let (workers, grandchildren) = fixture.children().split_at(2);
        let profile = recorded(&fixture)?;
        for pid in workers {
            must_see(&profile, *pid, "work_until_told", 2)?;
        }
        for pid in grandchildren {
            must_see(&profile, *pid, "work_of_fork", 3)?;
        }
        let json = Profiler::new("dump").words("-s --json").pid(&fixture).succeed()?.stdout;
        let threads = dumped_json(&json)?;
        let pids: Vec<u32> = threads.iter().filter_map(|thread| thread.pid).collect();
        ensure!(pids.len() == 5 && pids[0] == fixture.pid(), "dumped were {pids:?}");
        ensure!(fixture.children().iter().all(|child| pids.contains(child)), "dumped were {pids:?}");
        // The grandchildren's parents are nested as py-spy nests them.
        let threads: Vec<Value> = serde_json::from_str(&json)?;
        for grandchild in grandchildren {
            let thread = threads.iter().find(|thread| thread["pid"] == *grandchild).context("grandchild")?;
            let parent = &thread["process_info"]["parent"];
            ensure!(workers.iter().any(|worker| parent["pid"] == *worker), "{parent}");
            ensure!(parent["parent"]["pid"] == fixture.pid(), "{parent}");
            ensure!(parent["command_line"].as_str().is_some_and(|line| line.contains("prefork")), "{parent}");
        }
        Ok(())
    });
}

/// Waits until each of the processes has worked for so long from now on.
fn wait_for_work(pids: &[u32], work: Duration) -> Result<()> {
    let limit = Instant::now() + LONGEST_WAIT;
    let before: Vec<u64> = pids.iter().map(|pid| cpu_nanos(*pid)).collect::<Result<_>>()?;
    for (pid, before) in pids.iter().zip(before) {
        while u128::from(cpu_nanos(*pid)? - before) < work.as_nanos() {
            ensure!(Instant::now() < limit, "process {pid} does not work");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

fn a_child_that_becomes_python_while_it_is_watched() {
    every_interpreter_side_by_side(|interpreter| {
        let scratch = Scratch::new()?;
        let mut fixture = Fixture::start(interpreter, PROGRAM, &["exec"])?;
        let mut running = record(&scratch).pid(&fixture).spawn()?;
        running.wait_until_sampling()?;
        ensure!(fixture.ask("go")? == "up");
        let child = fixture.children()[0];
        wait_for_work(&[child], WORK_UNTIL_FOUND)?;
        running.signal(Signal::SIGINT)?;
        let run = running.wait()?;
        ensure!(run.code() == Some(0), "{run:?}");
        must_see(&profile_of(&scratch)?, child, "work_after_exec", 2)
    });
}

fn children_without_python_spoil_nothing() {
    let scratch = Scratch::new().unwrap();
    let fixture = Fixture::start(one_interpreter(), PROGRAM, &["strangers", "3"]).unwrap();
    let run = record(&scratch).words("-d 0.5").pid(&fixture).succeed().unwrap();
    assert!(run.stderr.contains("processes: 4, of which 1 were sampled, 3 had no Python"), "{}", run.stderr);
    must_see(&profile_of(&scratch).unwrap(), fixture.pid(), "run_strangers", 1).unwrap();
    let json = Profiler::new("dump").words("-s --json").pid(&fixture).succeed().unwrap().stdout;
    let pids: Vec<_> = dumped_json(&json).unwrap().iter().map(|thread| thread.pid).collect();
    assert_eq!(pids, [Some(fixture.pid())]);
}

fn a_root_without_python() {
    let scratch = Scratch::new().unwrap();
    let mut words = vec!["sh".into(), "-c".into(), "\"$@\"; exit 5".into(), "sh".into()];
    words.extend(one_interpreter().fixture_words(PROGRAM, &["work", "--seconds", "0.5"]));
    let run = record(&scratch).command(&words).run().unwrap();
    assert_eq!(run.code(), Some(5), "{run:?}");
    let profile = profile_of(&scratch).unwrap();
    let of_the_child = profile.count(|stack| stack.processes.len() == 2 && stack.contains("short_work"));
    assert!(of_the_child >= at_least().unwrap(), "{run:?}");
    let nothing = record(&scratch).command(&["sh", "-c", "true; true"]).run().unwrap();
    assert_eq!(nothing.code(), Some(1), "{nothing:?}");
    nothing.must_say(&["none of the processes had a Python"]).unwrap();
}

fn children_outlive_their_parent() {
    let scratch = Scratch::new().unwrap();
    let words = one_interpreter().fixture_words(PROGRAM, &["orphan", "2", "--seconds", "0.4"]);
    let run = record(&scratch).command(&words).succeed().unwrap();
    let profile = profile_of(&scratch).unwrap();
    let mut orphans: Vec<u32> = profile
        .stacks
        .iter()
        .filter(|stack| stack.contains("work_as_orphan") && stack.processes.len() == 2)
        .map(|stack| stack.processes[1])
        .collect();
    orphans.sort_unstable();
    orphans.dedup();
    assert_eq!(orphans.len(), 2, "{run:?}");
    for pid in orphans {
        must_see(&profile, pid, "work_as_orphan", 2).unwrap();
    }
}

fn a_child_in_a_pid_namespace_of_its_own() {
    if !is_root() {
        return missing("a PID namespace: making one needs root");
    }
    every_interpreter_side_by_side(|interpreter| {
        let scratch = Scratch::new()?;
        let mut words = vec!["unshare".into(), "--pid".into(), "--fork".into()];
        words.extend(interpreter.fixture_words(PROGRAM, &["work", "--seconds", "0.4"]));
        let run = record(&scratch).command(&words).succeed()?;
        let count = profile_of(&scratch)?.count(|stack| stack.contains("short_work"));
        ensure!(count >= at_least()?, "{count} samples: {}", run.stderr);
        Ok(())
    });
}

/// A program that has no Python for a while, gets one without `exec`, and then works at once. It tells for how long, by
/// the wall and of CPU time.
const LATE_PYTHON: &str = r#"
#include <dlfcn.h>
#include <time.h>
int main(int count, char **words)
{
    nanosleep(&(struct timespec){.tv_nsec = 330000000}, 0);
    void *python = dlopen(words[1], RTLD_NOW | RTLD_GLOBAL);
    if (!python)
        return 2;
    ((void (*)(void))dlsym(python, "Py_Initialize"))();
    return ((int (*)(const char *))dlsym(python, "PyRun_SimpleString"))(words[2]);
}
"#;

const WORK_AT_ONCE: &str = "\
import time
began, cpu = time.monotonic(), time.process_time()
while time.monotonic() < began + 0.8: pass
print(time.monotonic() - began, time.process_time() - cpu)
";

/// The command of such a program.
fn late_python(scratch: &Scratch) -> Result<Vec<OsString>> {
    let find = "import os, sys, sysconfig; value = sysconfig.get_config_var; \
                print(os.path.join(value('LIBDIR'), value('INSTSONAME'))); print(sys.prefix)";
    let words = one_interpreter().inline_words(find);
    let told = Command::new(&words[0]).args(&words[1..]).output()?;
    let told = String::from_utf8(told.stdout)?;
    let (library, prefix) = told.trim().split_once('\n').context("no library")?;
    let (source, program) = (scratch.file("late.c"), scratch.file("late"));
    std::fs::write(&source, LATE_PYTHON)?;
    let compiled = Command::new("gcc").arg(&source).arg("-o").arg(&program).arg("-ldl").status()?;
    ensure!(compiled.success(), "gcc failed");
    let home = OsString::from(format!("PYTHONHOME={prefix}"));
    Ok(vec!["env".into(), home, program.into(), library.into(), WORK_AT_ONCE.into()])
}

/// How many samples the ledger says were lost for this reason.
fn lost(run: &Run, reason: &str) -> f64 {
    let before = run.stderr.split_once(&format!(" {reason}")).map(|(before, _)| before);
    let number = before.and_then(|before| before.rsplit(' ').next()?.replace(',', "").parse().ok());
    number.unwrap_or(0.0)
}

fn what_a_tree_did_before_its_pythons_were_found_is_counted() {
    const RATE: f64 = 1000.0;
    let scratch = Scratch::new().unwrap();
    let root = late_python(&scratch).unwrap();
    let mut child: Vec<OsString> = ["sh", "-c", "\"$@\"; true", "sh"].map(OsString::from).to_vec();
    child.extend(root.iter().cloned());
    // Five deviations of a number of instants that are spaced at random; ticks are so at most.
    let least = |seconds: f64| seconds * RATE - 5.0 * (seconds * RATE).sqrt();
    let most = |seconds: f64| seconds * RATE + 5.0 * (seconds * RATE).sqrt();
    let by_kernel = can_load_programs().then_some(("bpf", &child));
    for (sampler, words) in [("pause", &root), ("pause", &child)].into_iter().chain(by_kernel) {
        let run = record(&scratch).words("--sampler").arg(sampler).command(words).succeed().unwrap();
        let worked: Vec<f64> = run.stdout.split_whitespace().map(|word| word.parse().unwrap()).collect();
        let ledger = profile_of(&scratch).unwrap();
        let idle =
            run.stderr.split_once(" more not asked for").and_then(|(before, _)| before.rsplit(' ').next());
        let idle: f64 = idle.map_or(0.0, |number| number.replace(',', "").parse().unwrap());
        let with_python = ledger.total() as f64 + idle + lost(&run, "sampler late");
        let expected = if sampler == "bpf" { worked[1] } else { worked[0] };
        assert!(with_python >= least(expected), "{sampler}: {with_python} of {expected} s\n{}", run.stderr);
        let whole = run.sampled_for().unwrap();
        let all = with_python + lost(&run, "no Python runtime");
        assert!(all <= most(whole) || sampler == "bpf", "{sampler}: {all} of {whole} s\n{}", run.stderr);
        assert!(worked[0] <= whole, "{sampler}: {} of {whole} s\n{}", worked[0], run.stderr);
    }
}

/// The numbers of the ledger's line on processes: all, and those that were sampled.
fn counts(run: &Run) -> Result<(u64, u64)> {
    let line =
        run.stderr.lines().find_map(|line| line.strip_prefix("processes: ")).context("no processes")?;
    let (all, rest) = line.split_once(", of which ").context("no parts")?;
    let sampled = rest.split(' ').next().context("no number")?;
    Ok((all.replace(',', "").parse()?, sampled.replace(',', "").parse()?))
}

/// What the in-kernel program has not been told of is not sampled, and two hundred threads that are busy leave us two CPUs
/// only now and then.
fn a_busy_fleet_is_met_as_a_whole_when_its_recording_begins() {
    const PROCESSES: u64 = 50;
    const MOST_LATE: f64 = 0.05;
    if !can_load_programs() {
        return;
    }
    let scratch = Scratch::new().unwrap();
    let number = PROCESSES.to_string();
    let fixture = Fixture::start(one_interpreter(), PROGRAM, &["fleet", &number, "--threads", "4"]).unwrap();
    let run = record(&scratch).words("--sampler bpf -d 0.5").pid(&fixture).succeed().unwrap();
    assert_eq!(counts(&run).unwrap(), (PROCESSES + 1, PROCESSES + 1), "{}", run.stderr);
    let (late, shown) = (lost(&run, "sampler late"), profile_of(&scratch).unwrap().total() as f64);
    assert!(late <= MOST_LATE * (late + shown), "{}", run.stderr);
}

/// A storm of short-lived children leaves nothing behind, and the ledger knows of them.
fn storm(interpreter: &Interpreter, profiler: Profiler, is_told: bool) -> Result<()> {
    const CHILDREN: u64 = 200;
    let scratch = Scratch::new()?;
    let mut fixture =
        Fixture::start(interpreter, PROGRAM, &["storm", &CHILDREN.to_string(), "--seconds", "2"])?;
    let profiler = profiler.words("-s -f raw -r 200 -o").arg(scratch.file("out.txt"));
    let mut running = profiler.pid(&fixture).spawn()?;
    running.wait_until_sampling()?;
    // It waits for each child: one that a tracer does not let go of would keep it for ever.
    ensure!(fixture.ask("go")? == format!("done {CHILDREN}"));
    running.signal(Signal::SIGINT)?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    ensure!(tracer_of(fixture.pid())? == 0 && process_state(fixture.pid())? != 't', "not let go");
    let (all, sampled) = counts(&run)?;
    ensure!(sampled > CHILDREN / 10, "{}", run.stderr);
    ensure!(if is_told { all == CHILDREN + 1 } else { all <= CHILDREN + 1 }, "{}", run.stderr);
    ensure!(profile_of(&scratch)?.count(|stack| stack.contains("short_work")) > 0, "{}", run.stderr);
    Ok(())
}

fn a_storm_of_children_is_counted_and_left_alone() {
    let is_told = ProcessEvents::listen().is_ok();
    storm(one_interpreter(), Profiler::new("record"), is_told).unwrap();
    storm(one_interpreter(), Profiler::new("record").words("--nonblocking"), is_told).unwrap();
}

fn where_the_kernel_tells_nothing_children_are_looked_for() {
    if !is_root() {
        return missing("a network namespace: making one needs root");
    }
    // The kernel tells of processes only in the machine's own network namespace.
    storm(one_interpreter(), Profiler::within(&["unshare".into(), "--net".into()], "record"), false).unwrap();
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(workers_are_seen_however_they_are_started),
        test!(a_server_that_forks_its_workers_in_a_recording_and_in_a_dump),
        test!(a_child_that_becomes_python_while_it_is_watched),
        test!(children_without_python_spoil_nothing),
        test!(a_root_without_python),
        test!(children_outlive_their_parent),
        test!(a_child_in_a_pid_namespace_of_its_own),
        test!(what_a_tree_did_before_its_pythons_were_found_is_counted),
        test!(a_busy_fleet_is_met_as_a_whole_when_its_recording_begins),
        test!(a_storm_of_children_is_counted_and_left_alone),
        test!(where_the_kernel_tells_nothing_children_are_looked_for),
    ]
}
