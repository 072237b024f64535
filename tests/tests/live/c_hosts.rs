//! Programs in which C code does what CPython does not expect: it forks, calls Python from threads of its own, ends the
//! first thread, runs another Python.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use profiler_tests::suite::{Case, On, Sampler, Test};
use profiler_tests::{
    Collapsed, Fixture, Interpreter, Profiler, Run, Scratch, Stack, dumped_json, dumped_text, interpreters,
    missing, process_state, test,
};

const SAMPLERS: &[Sampler] = &[Sampler::Pause, Sampler::Bpf, Sampler::Peek];

/// CPU time in which there are three times as many samples as are asked for.
const RECORDED: Duration = Duration::from_millis(150);

/// A thread that does not end for so long does not end at all.
const LONGEST_END: Duration = Duration::from_secs(60);

/// How many samples of the working function a recording must have; those that `peek` cannot prove are chance.
fn enough(case: &Case) -> u64 {
    if case.sampler() == Sampler::Peek { 1 } else { 50 }
}

/// Records the process while it works for `cpu`.
fn record(case: &Case, pid: u32, cpu: Duration) -> Result<(Run, Collapsed)> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.txt");
    let words = format!("-f raw -r 1000 {} --pid {pid} -o", case.sampler_words());
    let run = Profiler::new("record").words(&words).arg(&file).spawn()?.end_after_cpu_time(pid, cpu)?;
    Ok((run, Collapsed::parse(&std::fs::read_to_string(&file)?)?))
}

/// How many samples there are with the function on the stack.
fn samples_in(profile: &Collapsed, function: &str) -> u64 {
    let has = |stack: &&Stack| stack.frames.iter().any(|frame| frame.plain_name() == function);
    profile.stacks.iter().filter(has).map(|stack| stack.count).sum()
}

/// Records the process, whose only thread works in `function`: nothing else is shown, and no thread is missed.
fn expect_work(case: &Case, pid: u32, function: &str) -> Result<()> {
    let (run, profile) = record(case, pid, RECORDED)?;
    let shown = samples_in(&profile, function);
    ensure!(shown >= enough(case), "{shown} samples\n{}", run.stderr);
    ensure!(shown == profile.total(), "{} samples elsewhere", profile.total() - shown);
    let unknown = run.ledger()?.lost.get("thread not found").copied().unwrap_or(0);
    ensure!(unknown <= shown / 10, "{unknown} samples of unknown threads, {shown} shown");
    Ok(())
}

/// The only thread of a dump, which must be in `function`.
fn expect_only_thread(pid: u32, function: &str) -> Result<()> {
    let words = format!("--json --pid {pid}");
    let threads = dumped_json(&Profiler::new("dump").words(&words).succeed()?.stdout)?;
    ensure!(threads.len() == 1, "{} threads: {threads:?}", threads.len());
    let is_there = threads[0].frames.iter().any(|frame| frame.plain_name() == function);
    ensure!(is_there, "not in {function}: {threads:?}");
    Ok(())
}

fn child_forked_by_c_code(case: &Case) -> Result<()> {
    for way in ["call", "system"] {
        let fixture = Fixture::start(case.interpreter, "c_hosts/forked.py", &[way])?;
        let child = *fixture.children().first().context("no child")?;
        expect_only_thread(child, "work_of_child")?;
        expect_work(case, child, "work_of_child").with_context(|| format!("forked by {way}"))?;
        fixture.finish()?;
    }
    Ok(())
}

/// A process whose first thread has ended, and whose other one works.
fn without_first_thread(case: &Case) -> Result<Fixture> {
    let fixture = Fixture::start(case.interpreter, "c_hosts/first_ended.py", &[])?;
    let limit = Instant::now() + LONGEST_END;
    while process_state(fixture.pid())? != 'Z' {
        ensure!(Instant::now() < limit, "the first thread does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(fixture)
}

fn first_thread_ended(case: &Case) -> Result<()> {
    let fixture = without_first_thread(case)?;
    expect_only_thread(fixture.pid(), "work_of_other")?;
    expect_work(case, fixture.pid(), "work_of_other")
}

fn tree_goes_on_when_first_thread_ends(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.txt");
    let fixture = without_first_thread(case)?;
    let words = format!("--subprocesses -f raw -r 1000 {} -o", case.sampler_words());
    let run = Profiler::new("record").words(&words).arg(&file).pid(&fixture);
    run.spawn()?.end_after_cpu_time(fixture.pid(), RECORDED)?;
    let profile = Collapsed::parse(&std::fs::read_to_string(&file)?)?;
    ensure!(profile.total() >= enough(case), "{} samples", profile.total());
    Ok(())
}

/// An interpreter that has a library, of another version than `host`, and the folder that it is installed in.
fn guest_for(host: &Interpreter) -> Option<(&'static Interpreter, String, String)> {
    let others = interpreters().iter().filter(|guest| guest.minor != host.minor && guest.root().is_none());
    let mut found = others.filter_map(|guest| {
        let words = guest.words();
        let home = Path::new(words.first()?).parent()?.parent()?.to_str()?.to_owned();
        let library = format!("{home}/lib/libpython3.{}.so.1.0", guest.minor);
        Path::new(&library).exists().then_some((guest, library, home))
    });
    let guest = found.next();
    if guest.is_none() {
        missing("an interpreter with a library, to be run by another one");
    }
    guest
}

fn program_that_runs_another_python(case: &Case) -> Result<()> {
    let Some((guest, library, home)) = guest_for(case.interpreter) else { return Ok(()) };
    let version = format!("3.{}.", guest.minor);
    let fixture = Fixture::start(case.interpreter, "c_hosts/two_pythons.py", &[&library, &home])?;
    let run = Profiler::new("dump").pid(&fixture).succeed()?;
    let line = format!("process {} also runs CPython {version}", fixture.pid());
    ensure!(run.stderr.contains(&line), "{}", run.stderr);
    let dump = run.stdout;
    let own = format!("Python v3.{}.", case.interpreter.minor);
    ensure!(dump.lines().nth(1).is_some_and(|line| line.starts_with(&own)), "{dump}");
    ensure!(
        dumped_text(&dump, fixture.pid())?.iter().any(|thread| thread.leaf() == "work_of_host"),
        "{dump}"
    );
    let doctor = Profiler::new("doctor").words("--json").pid(&fixture).run()?.stdout;
    let doctor: serde_json::Value = serde_json::from_str(&doctor)?;
    let other = &doctor["process"]["python"]["other_pythons"][0]["version"];
    ensure!(other.as_str().is_some_and(|other| other.starts_with(&version)), "{doctor}");
    // Both of them work: of the other one, the call from the program's own Python is seen.
    let (run, profile) = record(case, fixture.pid(), RECORDED * 2)?;
    let shown = samples_in(&profile, "work_of_host");
    ensure!(shown >= enough(case), "{shown} samples\n{}", run.stderr);
    let line = format!("not sampled: another Python in process {}, CPython {version}", fixture.pid());
    ensure!(run.stderr.contains(&line), "{}", run.stderr);
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(child_forked_by_c_code).on(On::Layouts).by(SAMPLERS),
        test!(first_thread_ended).on(On::Layouts).by(SAMPLERS),
        test!(tree_goes_on_when_first_thread_ends).on(On::Minors(&[11])).by(&[Sampler::Pause, Sampler::Bpf]),
        test!(program_that_runs_another_python).on(On::Minors(&[8, 11])).by(&[Sampler::Pause, Sampler::Bpf]),
    ]
}
