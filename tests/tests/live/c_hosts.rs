//! Programs in which C code does what CPython does not expect: it forks, calls Python from threads of its own, ends the
//! first thread, runs another Python.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use profiler_tests::suite::{Case, On, Sampler, Test};
use profiler_tests::{
    Collapsed, Fixture, Interpreter, Profiler, Run, Scratch, Stack, WeightedSample, dumped_json, dumped_text,
    interpreters, missing, process_state, read_speedscope, test,
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

/// A host that runs another Python, and the version of that one.
fn with_guest(case: &Case, ways: &[&str]) -> Result<Option<(Fixture, String)>> {
    let Some((guest, library, home)) = guest_for(case.interpreter) else { return Ok(None) };
    let arguments: Vec<&str> = [library.as_str(), &home].into_iter().chain(ways.iter().copied()).collect();
    let fixture = Fixture::start(case.interpreter, "c_hosts/two_pythons.py", &arguments)?;
    Ok(Some((fixture, format!("3.{}.", guest.minor))))
}

fn second_python_of_a_process_is_named(case: &Case) -> Result<()> {
    let Some((fixture, version)) = with_guest(case, &[])? else { return Ok(()) };
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
    let other = &doctor["process"]["python"]["other_pythons"][0];
    ensure!(other["version"].as_str().is_some_and(|other| other.starts_with(&version)), "{doctor}");
    ensure!(other["sampled"] == true, "{doctor}");
    let text = Profiler::new("doctor").pid(&fixture).run()?.stdout;
    ensure!(text.contains("which is sampled as well"), "{text}");
    Ok(())
}

/// Records the CPU time of a process that works for so much of it; returns the samples. No function of one Python may be on a
/// stack of the other, all that was recorded must have been used, and every Python must have been sampled.
fn record_both(case: &Case, fixture: &Fixture, cpu: Duration) -> Result<Vec<WeightedSample>> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.json");
    let words = format!("-f speedscope -r 1000 {} --pid {} -o", case.sampler_words(), fixture.pid());
    let running = Profiler::new("record").words(&words).arg(&file).spawn()?;
    let run = running.end_after_cpu_time(fixture.pid(), cpu)?;
    ensure!(!run.stderr.contains("not sampled"), "{}", run.stderr);
    let samples = read_speedscope(&std::fs::read_to_string(&file)?)?;
    let is_of = |sample: &WeightedSample, python: &str| {
        sample.frames.iter().any(|frame| frame.plain_name().starts_with(python))
    };
    let mixed = samples.iter().find(|sample| is_of(sample, HOST) && is_of(sample, GUEST));
    ensure!(mixed.is_none(), "{mixed:?}");
    let ledger = run.ledger()?;
    let recorded = ledger.lost_cpu + seconds(&samples, |_| true);
    let used = ledger.target_cpu;
    let chance = match case.sampler() {
        Sampler::Bpf => 4.0 * (2.0 * samples.len() as f64).sqrt() / 1000.0,
        Sampler::Pause | Sampler::Peek => ROUNDING,
    };
    ensure!(recorded <= used + chance, "{recorded} s recorded of {used} s\n{}", run.stderr);
    Ok(samples)
}

/// The functions of the two Pythons begin like this.
const HOST: &str = "work_of_host";
const GUEST: &str = "work_of_guest";

/// The CPU time of the process is read at slightly other instants than that of its threads, in seconds. A tick of `bpf` stands for
/// all the time since the one before, which chance gives to one program or another.
const ROUNDING: f64 = 0.02;

/// How many seconds such samples stand for.
fn seconds(samples: &[WeightedSample], is_meant: impl Fn(&WeightedSample) -> bool) -> f64 {
    samples.iter().filter(|sample| is_meant(sample)).map(|sample| sample.weight).sum()
}

fn threads_of_both_pythons_are_sampled(case: &Case) -> Result<()> {
    let Some((fixture, _)) = with_guest(case, &[])? else { return Ok(()) };
    let samples = record_both(case, &fixture, RECORDED * 4)?;
    for function in [HOST, GUEST] {
        let shown = samples.iter().filter(|sample| sample.ends_in(function)).count() as u64;
        ensure!(shown >= enough(case), "{shown} samples of {function} in {}", samples.len());
    }
    Ok(())
}

fn thread_of_both_pythons_is_sampled_where_it_runs(case: &Case) -> Result<()> {
    /// Chance explains a third of this: there are a thousand samples of a thousand turns.
    const TOLERANCE: f64 = 0.12;
    let Some((fixture, _)) = with_guest(case, &["turns"])? else { return Ok(()) };
    let samples = record_both(case, &fixture, RECORDED * 10)?;
    let account = fixture.finish()?;
    let spent = |name: &str| account[name].as_f64().with_context(|| format!("no {name} in {account}"));
    let (host, guest) = (spent("work_of_host_until")?, spent("work_of_guest")?);
    let sampled = |name: &str| seconds(&samples, |sample| sample.has(name));
    let (of_host, of_guest) = (sampled("work_of_host_until"), sampled("work_of_guest"));
    ensure!(of_host > 0.0 && of_guest > 0.0, "{of_host} s of host, {of_guest} s of guest");
    if case.sampler() != Sampler::Peek {
        let (expected, found) = (guest / (host + guest), of_guest / (of_host + of_guest));
        ensure!((expected - found).abs() < TOLERANCE, "guest {expected} of the time, {found} of the samples");
    }
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(child_forked_by_c_code).on(On::Layouts).by(SAMPLERS),
        test!(first_thread_ended).on(On::Layouts).by(SAMPLERS),
        test!(tree_goes_on_when_first_thread_ends).on(On::Minors(&[11])).by(&[Sampler::Pause, Sampler::Bpf]),
        test!(second_python_of_a_process_is_named).on(On::Minors(&[8, 11])),
        test!(threads_of_both_pythons_are_sampled).on(On::Minors(&[8, 11])).by(SAMPLERS),
        test!(thread_of_both_pythons_is_sampled_where_it_runs).on(On::Minors(&[8, 11])).by(SAMPLERS),
    ]
}
