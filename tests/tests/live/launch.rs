//! `record -- command` and how a recording ends: the pipes, status and signals are those of the command.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use profiler_tests::place::{with_ignored_signal, with_usual_signals};
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Sampler, Test};
use profiler_tests::test;
use profiler_tests::{
    Collapsed, Fixture, Profiler, Running, Scratch, Terminal, WORK, profiler_path, read_speedscope,
};

const LABYRINTH: &str = "labyrinth/labyrinth.py";

/// CPU time of a target in which there are far more samples than a test needs.
const ENOUGH_WORK: Duration = Duration::from_millis(200);

/// No test waits longer for a command.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

fn profile_of(scratch: &Scratch) -> Result<Collapsed> {
    Collapsed::parse(&std::fs::read_to_string(scratch.file("out.txt")).context("no data was written")?)
}

fn must_have_samples(scratch: &Scratch) -> Result<()> {
    ensure!(profile_of(scratch)?.total() > 0, "no samples");
    Ok(())
}

fn must_show_work(scratch: &Scratch) -> Result<()> {
    ensure!(profile_of(scratch)?.count(|stack| stack.contains("work")) > 0, "no work seen");
    Ok(())
}

/// A recording that writes collapsed stacks.
fn record(case: &Case, scratch: &Scratch) -> Profiler {
    options(Profiler::new("record"), case, scratch)
}

fn options(record: Profiler, case: &Case, scratch: &Scratch) -> Profiler {
    record.words(&case.sampler_words()).words("-f raw -r 500 -o").arg(scratch.file("out.txt"))
}

/// A recording of a program given as text.
fn record_source(case: &Case, scratch: &Scratch, source: &str) -> Profiler {
    record(case, scratch).command(&case.interpreter.inline_words(source))
}

fn command_keeps_its_own_pipes(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let source = format!(
        "import sys\n{WORK}text = sys.stdin.read()\nsys.stdout.write(text.upper())\n\
         sys.stderr.write('to stderr: ' + text)\n"
    );
    let mut running = record_source(case, &scratch, &source).with_stdin().spawn()?;
    running.stdin.take().context("stdin")?.write_all(b"some text\n")?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    ensure!(run.stdout == "SOME TEXT\n", "stdout is {:?}", run.stdout);
    ensure!(run.stderr.contains("to stderr: some text"), "stderr is {:?}", run.stderr);
    must_show_work(&scratch)
}

/// Whatever priority the profiler takes for itself.
fn command_keeps_its_own_priority_and_cpus(case: &Case) -> Result<()> {
    let source = "import os\nprint(os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), \
                  sorted(os.sched_getaffinity(0)))\n";
    let words = case.interpreter.inline_words(&format!("{WORK}{source}"));
    let alone = std::process::Command::new(&words[0]).args(&words[1..]).output()?;
    let alone = String::from_utf8(alone.stdout)?;
    let modes: &[&str] = if case.sampler() == Sampler::Bpf { &["", "--mode wall"] } else { &[""] };
    for mode in modes {
        let scratch = Scratch::new()?;
        let run = record(case, &scratch).words(mode).command(&words).succeed()?;
        ensure!(run.stdout == alone, "[{mode}] {} instead of {alone}", run.stdout);
    }
    Ok(())
}

/// The niceness that the scheduler goes by for the first thread of a process.
fn niceness(pid: u32) -> Result<i64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(") ").context("no name")?.1;
    // The nineteenth field of all; these begin with the third.
    Ok(after_name.split(' ').nth(16).context("no niceness")?.parse()?)
}

fn profiler_niceness_is_restored_after_load(case: &Case) -> Result<()> {
    let mut fixture = Fixture::start(case.interpreter, LABYRINTH, &[])?;
    let scratch = Scratch::new()?;
    let mut running = record(case, &scratch).pid(&fixture).spawn()?;
    running.wait_until_sampling()?;
    let (own, ours) = (niceness(running.profiler_pid())?, niceness(std::process::id())?);
    ensure!(own == ours, "the profiler has niceness {own}, its parent {ours}");
    fixture.progress()?;
    running.signal(Signal::SIGINT)?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    Ok(())
}

fn exit_status_is_that_of_the_command(case: &Case) -> Result<()> {
    for (source, status) in [("raise SystemExit(7)", 7), ("raise SystemExit(0)", 0), ("1 / 0", 1)] {
        let scratch = Scratch::new()?;
        let run = record_source(case, &scratch, &format!("{WORK}{source}")).run()?;
        ensure!(run.code() == Some(status), "{source}: {run:?}");
        must_have_samples(&scratch)?;
    }
    Ok(())
}

fn killed_command_gives_status_of_a_shell(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let source = format!("import os, signal\n{WORK}os.kill(os.getpid(), signal.SIGKILL)");
    let run = record_source(case, &scratch, &source).run()?;
    ensure!(run.code() == Some(128 + 9), "{run:?}");
    must_have_samples(&scratch)
}

/// A command that makes a file when it is ready, and prints which signal ended it. It works until then.
const LISTENER: &str = "\
import os, signal, sys
got = []
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: got.append(number))
open(sys.argv[-1], 'w').close()
os.rename(sys.argv[-1], sys.argv[-1] + '.up')
for _ in range(10 ** 10):
    if got:
        break
print('got', int(got[0]), flush=True)
raise SystemExit(3)
";

/// The listener under `record` in a place; it is ready and sampled.
fn listener(case: &Case, scratch: &Scratch, place: &[std::ffi::OsString]) -> Result<Running> {
    let mut words = case.interpreter.inline_words(LISTENER);
    words.push(scratch.file("listener").into());
    let record = options(Profiler::within(place, "record"), case, scratch);
    let mut running = record.command(&words).spawn()?;
    let limit = Instant::now() + LONGEST_WAIT;
    while !scratch.file("listener.up").exists() {
        ensure!(Instant::now() < limit, "the command does not come up");
        std::thread::sleep(Duration::from_millis(1));
    }
    running.wait_until_sampling()?;
    Ok(running)
}

/// The listener ends because of this signal, and its recording is complete.
fn must_end_by(signal: Signal, running: Running, scratch: &Scratch) -> Result<()> {
    let run = running.wait()?;
    ensure!(run.stdout == format!("got {}\n", signal as i32), "{signal}: {run:?}");
    ensure!(run.code() == Some(3), "{signal}: {run:?}");
    must_have_samples(scratch)
}

fn signals_reach_the_command(case: &Case) -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGUSR1] {
        let scratch = Scratch::new()?;
        let running = listener(case, &scratch, &with_usual_signals())?;
        running.signal(signal)?;
        must_end_by(signal, running, &scratch)?;
    }
    Ok(())
}

fn ignored_hangup_stays_ignored(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let running = listener(case, &scratch, &with_ignored_signal("HUP"))?;
    running.signal(Signal::SIGHUP)?;
    running.signal(Signal::SIGTERM)?;
    must_end_by(Signal::SIGTERM, running, &scratch)
}

fn python_that_starts_late_is_found(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    // A shell that becomes Python only when a line arrives.
    let mut words = vec!["sh".into(), "-c".into(), "read line; exec \"$@\"".into(), "sh".into()];
    words.extend(case.interpreter.inline_words(WORK));
    let mut running = record(case, &scratch).command(&words).with_stdin().spawn()?;
    running.stdin.take().context("stdin")?.write_all(b"go\n")?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    must_show_work(&scratch)
}

fn recording_lasts_its_duration(case: &Case) -> Result<()> {
    const DURATION: f64 = 0.3;
    let scratch = Scratch::new()?;
    let fixture = Fixture::start(case.interpreter, LABYRINTH, &[])?;
    let start = Instant::now();
    let run = record(case, &scratch).words(&format!("-d {DURATION}")).pid(&fixture).succeed()?;
    ensure!(start.elapsed().as_secs_f64() >= DURATION, "ended after {:?}", start.elapsed());
    ensure!(run.sampled_for()? >= DURATION, "{}", run.stderr);
    must_have_samples(&scratch)?;
    fixture.finish().map(drop)
}

fn interrupt_ends_recording_and_keeps_data(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let mut fixture = Fixture::start(case.interpreter, LABYRINTH, &[])?;
    let mut running = record(case, &scratch).pid(&fixture).spawn()?;
    running.wait_until_sampling()?;
    running.signal(Signal::SIGINT)?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    must_have_samples(&scratch)?;
    fixture.progress().map(drop)
}

fn end_of_target_ends_recording(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let mut fixture = Fixture::start(case.interpreter, LABYRINTH, &[])?;
    let mut running = record(case, &scratch).pid(&fixture).spawn()?;
    running.wait_until_sampling()?;
    fixture.close_stdin();
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    must_have_samples(&scratch)
}

fn file_name_chooses_the_format(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let fixture = Fixture::start(case.interpreter, LABYRINTH, &[])?;
    let written = |name: &str| -> Result<String> {
        let file = scratch.file(name);
        let record = Profiler::new("record").words(&case.sampler_words()).words("-r 500 -o").arg(&file);
        record.pid(&fixture).spawn()?.end_after_cpu_time(fixture.pid(), ENOUGH_WORK)?;
        Ok(std::fs::read_to_string(file)?)
    };
    let svg = written("flame.svg")?;
    ensure!(svg.contains("<svg") && svg.contains("_from_"), "{}", &svg[..svg.len().min(300)]);
    ensure!(!read_speedscope(&written("scope.json")?)?.is_empty(), "no samples");
    ensure!(Collapsed::parse(&written("stacks.txt")?)?.total() > 0, "no samples");
    Ok(())
}

/// The ledger as text, on stderr and in the data.
fn run_ends_with_its_ledger(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let fixture = Fixture::start(case.interpreter, LABYRINTH, &[])?;
    let run = record(case, &scratch).words("-d 0.3").pid(&fixture).succeed()?;
    let ledger = run.stderr.to_lowercase();
    for word in ["samples", "lost", "stopped", "cpu"] {
        ensure!(ledger.contains(word), "no word of {word:?} in\n{}", run.stderr);
    }
    let in_the_data = profile_of(&scratch)?.ledger.context("no ledger in the data")?;
    ensure!(in_the_data.contains("samples") && in_the_data.contains("lost"), "{in_the_data}");
    ensure!(run.stdout.is_empty(), "stdout belongs to the command: {:?}", run.stdout);
    Ok(())
}

fn functions_lines_and_paths_are_options(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let fixture = Fixture::start(case.interpreter, "unique_names/unique_names.py", &["--seconds", "60"])?;
    let leaves = |option: &str| -> Result<Vec<_>> {
        let record = record(case, &scratch).words(option).pid(&fixture);
        record.spawn()?.end_after_cpu_time(fixture.pid(), ENOUGH_WORK)?;
        let mut hot = profile_of(&scratch)?.stacks;
        hot.retain(|stack| stack.contains("count_with_list"));
        ensure!(!hot.is_empty(), "{option}: nothing seen");
        Ok(hot)
    };
    ensure!(leaves("")?.len() > 1, "all lines are one");
    let by_function = leaves("-F")?;
    ensure!(by_function.len() == 1, "the lines of a leaf are not one: {by_function:?}");
    let without_lines = leaves("--nolineno")?;
    let has_line = |stack: &profiler_tests::Stack| stack.leaf().is_some_and(|leaf| leaf.line.is_some());
    ensure!(!without_lines.iter().any(has_line), "{without_lines:?}");
    let full = leaves("--full-filenames")?;
    let file = full[0].leaf().and_then(|leaf| leaf.file.clone()).context("no file")?;
    ensure!(file.starts_with('/') && file.ends_with("unique_names.py"), "{file}");
    Ok(())
}

/// How many clocks of CPUs run an in-kernel program of the only child of process `parent`.
fn clocks_of_child(parent: u32) -> Result<usize> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    let files = std::fs::read_dir(format!("/proc/{}/fd", children.trim()))?;
    let links = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    Ok(links.filter(|link| link.to_string_lossy().contains("perf_event")).count())
}

/// That suspended time is no loss is in the statistical tests.
fn suspended_recording_leaves_target_alone(case: &Case) -> Result<()> {
    const ROUNDS: usize = 4;
    let scratch = Scratch::new()?;
    let mut fixture = Fixture::start(case.interpreter, LABYRINTH, &[])?;
    let mut terminal = Terminal::shell()?;
    let words = format!(
        "{} record {} -f raw -r 1000 -o {} --pid {}\r",
        profiler_path().display(),
        case.sampler_words(),
        scratch.file("out.txt").display(),
        fixture.pid()
    );
    terminal.press_for(&words, " samples, ")?;
    let shell = terminal.pid();
    let is_back = |screen: &str| screen.contains(" samples, ") && !screen.contains("Stopped");
    for _ in 0..ROUNDS {
        if case.sampler() == Sampler::Bpf {
            // The progress line on the screen may be older than the clocks.
            terminal.wait_for("clocks", |_| clocks_of_child(shell).is_ok_and(|clocks| clocks > 0))?;
        }
        terminal.press_for("\x1a", "Stopped")?;
        // The other sampler keeps events that count and interrupt nothing.
        let is_quiet = case.sampler() != Sampler::Bpf || clocks_of_child(shell)? == 0;
        ensure!(is_quiet, "it interrupts the target while it is suspended");
        // A thread that was held would not answer.
        fixture.progress()?;
        terminal.press("clear; fg\r")?;
        terminal.wait_for("the progress line", is_back)?;
    }
    terminal.press_for("\x03", " MB; ")?;
    must_have_samples(&scratch)
}

/// Works for a while, reports that it is asked to end, and ends late or never.
const WORKS_ON: &str = "\
import signal, time
def asked(*_): print('asked to end', flush=True)
signal.signal(signal.SIGTERM, asked)
end = time.monotonic() + 1.5
while HANGS or time.monotonic() < end: pass
print('ended by itself', flush=True)";

/// What a command of this source printed, of which a part of a second is recorded.
fn printed_beside_recording(case: &Case, source: &str, words: &str) -> Result<String> {
    let scratch = Scratch::new()?;
    let record = record(case, &scratch).words("-d 0.3").words(words);
    let run = record.command(&case.interpreter.inline_words(source)).succeed()?;
    must_have_samples(&scratch)?;
    Ok(run.stdout)
}

fn command_is_ended_when_its_time_is_over(case: &Case) -> Result<()> {
    let polite = "while True: pass";
    ensure!(printed_beside_recording(case, polite, "")?.is_empty(), "it runs on");
    let stubborn = WORKS_ON.replace("HANGS", "True");
    let printed = printed_beside_recording(case, &stubborn, "")?;
    ensure!(printed == "asked to end\n", "it is killed without being asked, or not at all: {printed:?}");
    let late = WORKS_ON.replace("HANGS", "False");
    let printed = printed_beside_recording(case, &late, "--keep-running")?;
    ensure!(printed == "ended by itself\n", "it does not run on: {printed:?}");
    Ok(())
}

/// Its pipe is also the command's: it is closed only when both have ended.
fn command_that_ignores_the_end_is_killed_and_data_goes_to_stdout(case: &Case) -> Result<()> {
    for source in ["while True: pass", "import signal\nsignal.signal(15, signal.SIG_IGN)\nwhile True: pass"] {
        let record = Profiler::new("record").words(&case.sampler_words());
        let record = record.words("-d 0.3 -r 500 --format raw -o -");
        let run = record.command(&case.interpreter.inline_words(source)).succeed()?;
        ensure!(Collapsed::parse(&run.stdout)?.total() > 0, "no samples: {run:?}");
    }
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(command_is_ended_when_its_time_is_over).by(PAUSE_AND_BPF),
        test!(command_that_ignores_the_end_is_killed_and_data_goes_to_stdout).by(PAUSE_AND_BPF),
        test!(command_keeps_its_own_pipes).by(PAUSE_AND_BPF),
        test!(command_keeps_its_own_priority_and_cpus).by(PAUSE_AND_BPF),
        test!(profiler_niceness_is_restored_after_load).by(&[Sampler::Bpf]),
        test!(exit_status_is_that_of_the_command).by(PAUSE_AND_BPF),
        test!(killed_command_gives_status_of_a_shell).by(PAUSE_AND_BPF),
        test!(signals_reach_the_command).by(PAUSE_AND_BPF),
        test!(ignored_hangup_stays_ignored).by(&[Sampler::Pause]),
        test!(python_that_starts_late_is_found).on(On::Every).by(PAUSE_AND_BPF),
        test!(recording_lasts_its_duration).by(PAUSE_AND_BPF),
        test!(interrupt_ends_recording_and_keeps_data).on(On::Layouts).by(PAUSE_AND_BPF),
        test!(end_of_target_ends_recording).on(On::Layouts).by(PAUSE_AND_BPF),
        test!(file_name_chooses_the_format).by(&[Sampler::Pause]),
        test!(run_ends_with_its_ledger).by(PAUSE_AND_BPF),
        test!(functions_lines_and_paths_are_options).by(PAUSE_AND_BPF),
        test!(suspended_recording_leaves_target_alone).by(PAUSE_AND_BPF),
    ]
}
