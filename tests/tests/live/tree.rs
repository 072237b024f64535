//! `--subprocesses`: whole trees of processes, however their members are started and however they end.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use profiler_os::ProcessEvents;
use profiler_tests::place::can_put_elsewhere;
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Sampler, Test};
use profiler_tests::test;
use profiler_tests::tree::{PROGRAM, Storm, profile_of, record, wait_for_work};
use profiler_tests::{Collapsed, Fixture, Profiler, Scratch, Stack, dumped_json, expectation};
use serde_json::Value;

/// CPU time in which there are far more samples of a process than are needed, however long a busy machine takes.
const ENOUGH_WORK: Duration = Duration::from_millis(200);

/// The same for a process that has to be found first.
const WORK_UNTIL_FOUND: Duration = Duration::from_millis(300);

/// What is shown of a tree while each of its announced children works for a while.
fn recorded(case: &Case, fixture: &Fixture) -> Result<Collapsed> {
    let scratch = Scratch::new()?;
    let mut running = record(&scratch, &case.sampler_words()).pid(fixture).spawn()?;
    running.wait_until_sampling()?;
    wait_for_work(fixture.children(), ENOUGH_WORK)?;
    running.signal(Signal::SIGINT)?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    profile_of(&scratch)
}

fn at_least() -> Result<u64> {
    expectation("tree")?["samples_of_each_at_least"].as_u64().context("samples_of_each_at_least")
}

/// The process was seen in this function, below this many processes (itself included).
fn must_see(profile: &Collapsed, pid: u32, function: &str, processes: usize) -> Result<()> {
    let is_its = |stack: &Stack| stack.processes.last() == Some(&pid) && stack.processes.len() == processes;
    let count = profile.count(|stack| is_its(stack) && stack.contains(function));
    ensure!(count >= at_least()?, "process {pid}: {count} samples in {function}: {:?}", profile.ledger);
    Ok(())
}

fn workers_are_seen_however_started(case: &Case) -> Result<()> {
    let expected = expectation("tree")?;
    for (mode, worker) in expected["modes"].as_object().context("modes")? {
        let fixture = Fixture::start(case.interpreter, PROGRAM, &[mode, "2"])?;
        let profile = recorded(case, &fixture)?;
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
}

fn prefork_server_is_recorded_with_grandchildren(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, PROGRAM, &["prefork", "2"])?;
    let (workers, grandchildren) = fixture.children().split_at(2);
    let profile = recorded(case, &fixture)?;
    for pid in workers {
        must_see(&profile, *pid, "work_until_told", 2)?;
    }
    for pid in grandchildren {
        must_see(&profile, *pid, "work_of_fork", 3)?;
    }
    Ok(())
}

fn prefork_server_is_dumped_with_grandchildren(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, PROGRAM, &["prefork", "2"])?;
    let (workers, grandchildren) = fixture.children().split_at(2);
    let json = Profiler::new("dump").words("-s --json").pid(&fixture).succeed()?.stdout;
    let threads = dumped_json(&json)?;
    let pids: Vec<u32> = threads.iter().filter_map(|thread| thread.pid).collect();
    ensure!(pids.len() == 5 && pids[0] == fixture.pid(), "dumped were {pids:?}");
    ensure!(fixture.children().iter().all(|child| pids.contains(child)), "dumped were {pids:?}");
    // The parents of the grandchildren are nested as py-spy nests them.
    let threads: Vec<Value> = serde_json::from_str(&json)?;
    for grandchild in grandchildren {
        let thread = threads.iter().find(|thread| thread["pid"] == *grandchild).context("grandchild")?;
        let parent = &thread["process_info"]["parent"];
        ensure!(workers.iter().any(|worker| parent["pid"] == *worker), "{parent}");
        ensure!(parent["parent"]["pid"] == fixture.pid(), "{parent}");
        ensure!(parent["command_line"].as_str().is_some_and(|line| line.contains("prefork")), "{parent}");
    }
    Ok(())
}

fn child_that_becomes_python_is_found(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let mut fixture = Fixture::start(case.interpreter, PROGRAM, &["exec"])?;
    let mut running = record(&scratch, &case.sampler_words()).pid(&fixture).spawn()?;
    running.wait_until_sampling()?;
    ensure!(fixture.ask("go")? == "up");
    let child = fixture.children()[0];
    wait_for_work(&[child], WORK_UNTIL_FOUND)?;
    running.signal(Signal::SIGINT)?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    must_see(&profile_of(&scratch)?, child, "work_after_exec", 2)
}

fn children_without_python_spoil_nothing(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let fixture = Fixture::start(case.interpreter, PROGRAM, &["strangers", "3"])?;
    let running = record(&scratch, &case.sampler_words()).pid(&fixture).spawn()?;
    let run = running.end_after_cpu_time(fixture.pid(), ENOUGH_WORK)?;
    let ledger = run.ledger()?;
    let counts = ["found", "sampled", "without_python"].map(|outcome| ledger.processes_of(outcome));
    ensure!(counts == [4, 1, 3], "{}", run.stderr);
    must_see(&profile_of(&scratch)?, fixture.pid(), "run_strangers", 1)?;
    let json = Profiler::new("dump").words("-s --json").pid(&fixture).succeed()?.stdout;
    let pids: Vec<_> = dumped_json(&json)?.iter().map(|thread| thread.pid).collect();
    ensure!(pids == [Some(fixture.pid())], "dumped were {pids:?}");
    Ok(())
}

fn root_without_python_has_its_child_shown(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let mut words: Vec<OsString> = ["sh", "-c", "\"$@\"; exit 5", "sh"].map(OsString::from).to_vec();
    words.extend(case.interpreter.fixture_words(PROGRAM, &["work", "--seconds", "0.4"]));
    let run = record(&scratch, &case.sampler_words()).command(&words).run()?;
    ensure!(run.code() == Some(5), "{run:?}");
    let is_its = |stack: &Stack| stack.processes.len() == 2 && stack.contains("short_work");
    let count = profile_of(&scratch)?.count(is_its);
    ensure!(count >= at_least()?, "{count} samples: {}", run.stderr);
    Ok(())
}

/// What a busy process without Python runs is counted beside the samples of its child: it was seen, and not asked for.
fn busy_process_without_python_is_counted(case: &Case) -> Result<()> {
    const LEAST: u64 = 20;
    let scratch = Scratch::new()?;
    let busy = "\"$@\" & i=0; while [ $i -lt 1000000 ]; do i=$((i+1)); done; wait";
    let mut words: Vec<OsString> = ["sh", "-c", busy, "sh"].map(OsString::from).to_vec();
    words.extend(case.interpreter.fixture_words(PROGRAM, &["work", "--seconds", "0.4"]));
    let run = record(&scratch, &case.sampler_words()).command(&words).succeed()?;
    let ledger = run.ledger()?;
    ensure!(ledger.not_asked_for >= LEAST, "{}", run.stderr);
    let count = profile_of(&scratch)?.count(|stack| stack.contains("short_work"));
    ensure!(count >= at_least()?, "{count} samples: {}", run.stderr);
    Ok(())
}

fn tree_without_any_python_is_an_error(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let record = record(&scratch, &case.sampler_words()).command(&["sh", "-c", "true; true"]);
    record.fail(&["none of the processes had a Python"]).map(drop)
}

fn children_outlive_their_parent(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let words = case.interpreter.fixture_words(PROGRAM, &["orphan", "2", "--seconds", "0.4"]);
    let run = record(&scratch, &case.sampler_words()).command(&words).succeed()?;
    let profile = profile_of(&scratch)?;
    let is_orphan = |stack: &&Stack| stack.contains("work_as_orphan") && stack.processes.len() == 2;
    let mut orphans: Vec<u32> =
        profile.stacks.iter().filter(is_orphan).map(|stack| stack.processes[1]).collect();
    orphans.sort_unstable();
    orphans.dedup();
    ensure!(orphans.len() == 2, "{run:?}");
    orphans.into_iter().try_for_each(|pid| must_see(&profile, pid, "work_as_orphan", 2))
}

fn child_in_its_own_pid_namespace_is_found(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let mut words = vec!["unshare".into(), "--pid".into(), "--fork".into()];
    words.extend(case.interpreter.fixture_words(PROGRAM, &["work", "--seconds", "0.4"]));
    let run = record(&scratch, &case.sampler_words()).command(&words).succeed()?;
    let count = profile_of(&scratch)?.count(|stack| stack.contains("short_work"));
    ensure!(count >= at_least()?, "{count} samples: {}", run.stderr);
    Ok(())
}

/// Of the storms of the soak tests a part.
const STORM: Storm = Storm { children: 60, seconds: 0.6, is_reported: true };

fn storm_of_children_is_counted(case: &Case) -> Result<()> {
    let storm = Storm { is_reported: ProcessEvents::listen().is_ok(), ..STORM };
    storm.must_be_counted(case.interpreter, Profiler::new("record").words(&case.sampler_words()))
}

/// The kernel reports processes in the network namespace of the machine only; elsewhere they are looked for.
fn storm_is_counted_without_process_events(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    let record = Profiler::within(&["unshare".into(), "--net".into()], "record");
    let storm = Storm { is_reported: false, ..STORM };
    storm.must_be_counted(case.interpreter, record.words(&case.sampler_words()))
}

/// Two workers below their master, at a rate that they bear and at one that they do not.
fn cost_of_fast_pause_is_said_at_the_start(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, PROGRAM, &["fork", "2"])?;
    for (rate, is_said) in [(1000, true), (250, false)] {
        let scratch = Scratch::new()?;
        let words = format!("{} -s -f raw -r {rate} -d 0.2 -o", case.sampler_words());
        let record = Profiler::new("record").words(&words).arg(scratch.file("out.txt"));
        let run = record.pid(&fixture).succeed()?;
        let line = format!("pause at {rate} Hz costs about");
        ensure!(run.stderr.contains(&line) == is_said, "{}", run.stderr);
    }
    fixture.finish().map(drop)
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(workers_are_seen_however_started).on(On::Layouts).by(PAUSE_AND_BPF),
        test!(prefork_server_is_recorded_with_grandchildren).on(On::Layouts).by(PAUSE_AND_BPF),
        test!(prefork_server_is_dumped_with_grandchildren).on(On::Layouts),
        test!(child_that_becomes_python_is_found).on(On::Every).by(PAUSE_AND_BPF),
        test!(children_without_python_spoil_nothing).by(PAUSE_AND_BPF),
        test!(root_without_python_has_its_child_shown).by(PAUSE_AND_BPF),
        test!(busy_process_without_python_is_counted).by(&[Sampler::Bpf]),
        test!(tree_without_any_python_is_an_error).by(PAUSE_AND_BPF),
        test!(children_outlive_their_parent).by(PAUSE_AND_BPF),
        test!(child_in_its_own_pid_namespace_is_found).on(On::Layouts).by(PAUSE_AND_BPF),
        test!(storm_of_children_is_counted).by(&[Sampler::Pause, Sampler::Bpf, Sampler::Peek]),
        test!(storm_is_counted_without_process_events).by(PAUSE_AND_BPF),
        test!(cost_of_fast_pause_is_said_at_the_start).by(&[Sampler::Pause]),
    ]
}
