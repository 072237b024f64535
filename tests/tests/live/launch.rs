//! `record -- command` and how a recording ends: the command's pipes, status and signals are its own.

use std::ffi::OsString;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use profiler_tests::statistics::most_instants;
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    Collapsed, Fixture, Profiler, Run, Running, Scratch, Terminal, USUAL_SIZE, WORK, can_load_programs,
    count_before, every_interpreter_side_by_side, one_interpreter, profiler_path, read_speedscope,
};

fn profile_of(scratch: &Scratch) -> Result<Collapsed> {
    Collapsed::parse(&std::fs::read_to_string(scratch.file("out.txt")).context("no data was written")?)
}

/// A recording of `source` that writes collapsed stacks.
fn record(scratch: &Scratch, source: &str) -> Profiler {
    let words = one_interpreter().inline_words(source);
    Profiler::new("record").words("-f raw -r 500 -o").arg(scratch.file("out.txt")).command(&words)
}

fn input_and_output_are_the_commands_own() {
    every_interpreter_side_by_side(|interpreter| {
        let scratch = Scratch::new()?;
        let source = format!(
            "import sys\n{WORK}text = sys.stdin.read()\nsys.stdout.write(text.upper())\n\
             sys.stderr.write('to stderr: ' + text)\n"
        );
        let mut running = Profiler::new("record")
            .words("-f raw -r 500 -o")
            .arg(scratch.file("out.txt"))
            .command(&interpreter.inline_words(&source))
            .with_stdin()
            .spawn()?;
        running.stdin.take().context("stdin")?.write_all(b"some text\n")?;
        let run = running.wait()?;
        ensure!(run.code() == Some(0), "{run:?}");
        ensure!(run.stdout == "SOME TEXT\n", "stdout is {:?}", run.stdout);
        ensure!(run.stderr.contains("to stderr: some text"), "stderr is {:?}", run.stderr);
        ensure!(profile_of(&scratch)?.count(|stack| stack.contains("work")) > 0, "no work seen");
        Ok(())
    });
}

fn priority_and_cpus_are_the_commands_own_whatever_the_profiler_has_for_itself() {
    let source = "import os\nprint(os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), \
                  sorted(os.sched_getaffinity(0)))\n";
    let words = one_interpreter().inline_words(&format!("{WORK}{source}"));
    let alone = std::process::Command::new(&words[0]).args(&words[1..]).output().unwrap();
    let alone = String::from_utf8(alone.stdout).unwrap();
    for options in ["--sampler auto", "--sampler pause", "--sampler auto --mode wall"] {
        let scratch = Scratch::new().unwrap();
        let run = Profiler::new("record")
            .words(&format!("-f raw {options} -o"))
            .arg(scratch.file("out.txt"))
            .command(&words)
            .succeed()
            .unwrap();
        assert_eq!(run.stdout, alone, "{options}");
    }
}

/// The niceness that the scheduler goes by for a process's first thread.
fn niceness(pid: u32) -> Result<i64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(") ").context("no name")?.1;
    // The nineteenth field of all; these begin with the third.
    Ok(after_name.split(' ').nth(16).context("no niceness")?.parse()?)
}

fn once_the_program_is_loaded_the_profiler_is_as_nice_as_before() {
    let mut fixture = Fixture::start(one_interpreter(), "labyrinth/labyrinth.py", &[]).unwrap();
    let scratch = Scratch::new().unwrap();
    let record = Profiler::new("record").words("-f raw -o").arg(scratch.file("out.txt"));
    let mut running = record.pid(&fixture).spawn().unwrap();
    running.wait_until_sampling().unwrap();
    assert_eq!(niceness(running.profiler_pid()).unwrap(), niceness(std::process::id()).unwrap());
    fixture.progress().unwrap();
    running.signal(Signal::SIGINT).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(0));
}

fn the_exit_status_is_the_commands_own() {
    for (source, status) in [("raise SystemExit(7)", 7), ("raise SystemExit(0)", 0), ("1 / 0", 1)] {
        let scratch = Scratch::new().unwrap();
        let run = record(&scratch, &format!("{WORK}{source}")).run().unwrap();
        assert_eq!(run.code(), Some(status), "{source}: {}", run.stderr);
        assert!(profile_of(&scratch).unwrap().total() > 0);
    }
}

fn a_command_killed_by_a_signal_is_reported_as_a_shell_does() {
    let scratch = Scratch::new().unwrap();
    let run = record(&scratch, &format!("import os, signal\n{WORK}os.kill(os.getpid(), signal.SIGKILL)"));
    let run = run.run().unwrap();
    assert_eq!(run.code(), Some(128 + 9), "{}", run.stderr);
    assert!(profile_of(&scratch).unwrap().total() > 0);
}

/// A command that tells on stdout when it is up and which signal ended it. It works until then.
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

/// Waits until the listener has written its file.
fn wait_until_up(running: &mut Running, scratch: &Scratch) -> Result<()> {
    let limit = Instant::now() + Duration::from_secs(60);
    while !scratch.file("listener.up").exists() {
        ensure!(Instant::now() < limit, "the command does not come up");
        std::thread::sleep(Duration::from_millis(1));
    }
    running.wait_until_sampling()
}

fn signals_reach_the_command() {
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGUSR1] {
        let scratch = Scratch::new().unwrap();
        let mut words = one_interpreter().inline_words(LISTENER);
        words.push(scratch.file("listener").into());
        let run = Profiler::new("record").words("-f raw -r 500 -o").arg(scratch.file("out.txt"));
        let mut running = run.command(&words).spawn().unwrap();
        wait_until_up(&mut running, &scratch).unwrap();
        running.signal(signal).unwrap();
        let run = running.wait().unwrap();
        assert_eq!(run.stdout, format!("got {}\n", signal as i32), "{run:?}");
        assert_eq!(run.code(), Some(3), "{run:?}");
        assert!(profile_of(&scratch).unwrap().total() > 0);
    }
}

fn python_that_is_not_up_yet_is_waited_for() {
    every_interpreter_side_by_side(|interpreter| {
        let scratch = Scratch::new()?;
        // A shell that becomes Python only when a line arrives.
        let mut words = vec!["sh".into(), "-c".into(), "read line; exec \"$@\"".into(), "sh".into()];
        words.extend(interpreter.inline_words(WORK));
        let run = Profiler::new("record").words("-f raw -r 500 -o").arg(scratch.file("out.txt"));
        let mut running = run.command(&words).with_stdin().spawn()?;
        running.stdin.take().context("stdin")?.write_all(b"go\n")?;
        let run = running.wait()?;
        ensure!(run.code() == Some(0), "{run:?}");
        ensure!(profile_of(&scratch)?.count(|stack| stack.contains("work")) > 0, "no work seen");
        Ok(())
    });
}

fn the_duration_is_in_real_seconds() {
    let scratch = Scratch::new().unwrap();
    let fixture = Fixture::start(one_interpreter(), "labyrinth/labyrinth.py", &[]).unwrap();
    let start = Instant::now();
    let run = Profiler::new("record").words("-f raw -d 1 -r 500 -o").arg(scratch.file("out.txt"));
    run.pid(&fixture).succeed().unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1), "ended early");
    assert!(profile_of(&scratch).unwrap().total() > 0);
    fixture.finish().unwrap();
}

fn control_c_ends_the_recording_not_the_data() {
    every_interpreter_side_by_side(|interpreter| {
        let scratch = Scratch::new()?;
        let mut fixture = Fixture::start(interpreter, "labyrinth/labyrinth.py", &[])?;
        let run = Profiler::new("record").words("-f raw -r 500 -o").arg(scratch.file("out.txt"));
        let mut running = run.pid(&fixture).spawn()?;
        running.wait_until_sampling()?;
        running.signal(Signal::SIGINT)?;
        let run = running.wait()?;
        ensure!(run.code() == Some(0), "{run:?}");
        ensure!(profile_of(&scratch)?.total() > 0, "no data");
        fixture.progress().map(drop)
    });
}

fn the_end_of_the_target_ends_the_recording() {
    every_interpreter_side_by_side(|interpreter| {
        let scratch = Scratch::new()?;
        let mut fixture = Fixture::start(interpreter, "labyrinth/labyrinth.py", &[])?;
        let run = Profiler::new("record").words("-f raw -r 500 -o").arg(scratch.file("out.txt"));
        let mut running = run.pid(&fixture).spawn()?;
        running.wait_until_sampling()?;
        fixture.close_stdin();
        let run = running.wait()?;
        ensure!(run.code() == Some(0), "{run:?}");
        ensure!(profile_of(&scratch)?.total() > 0, "no data");
        Ok(())
    });
}

fn the_ending_of_the_file_chooses_the_format() {
    let scratch = Scratch::new().unwrap();
    let fixture = Fixture::start(one_interpreter(), "labyrinth/labyrinth.py", &[]).unwrap();
    let written = |name: &str| {
        let file = scratch.file(name);
        Profiler::new("record").words("-d 1 -r 200 -o").arg(&file).pid(&fixture).succeed().unwrap();
        std::fs::read_to_string(file).unwrap()
    };
    let svg = written("flame.svg");
    assert!(svg.contains("<svg") && svg.contains("_from_"), "{}", &svg[..svg.len().min(300)]);
    assert!(!read_speedscope(&written("scope.json")).unwrap().is_empty());
    assert!(Collapsed::parse(&written("stacks.txt")).unwrap().total() > 0);
}

fn the_run_ends_with_its_ledger() {
    let scratch = Scratch::new().unwrap();
    let fixture = Fixture::start(one_interpreter(), "labyrinth/labyrinth.py", &[]).unwrap();
    let run = Profiler::new("record").words("-f raw -d 1 -r 500 -o").arg(scratch.file("out.txt"));
    let run = run.pid(&fixture).succeed().unwrap();
    let ledger = run.stderr.to_lowercase();
    for word in ["samples", "lost", "stopped", "cpu"] {
        assert!(ledger.contains(word), "no word of {word:?} in\n{}", run.stderr);
    }
    let in_the_data = profile_of(&scratch).unwrap().ledger.unwrap();
    assert!(in_the_data.contains("samples") && in_the_data.contains("lost"), "{in_the_data}");
    assert!(run.stdout.is_empty(), "stdout belongs to the command: {:?}", run.stdout);
}

fn functions_without_lines_and_whole_paths() {
    let scratch = Scratch::new().unwrap();
    let fixture =
        Fixture::start(one_interpreter(), "unique_names/unique_names.py", &["--seconds", "60"]).unwrap();
    let leaves = |option: &str| {
        let file = scratch.file("out.txt");
        let run = Profiler::new("record").words("-f raw -d 1 -r 200").words(option).arg("-o").arg(&file);
        run.pid(&fixture).succeed().unwrap();
        let profile = Collapsed::parse(&std::fs::read_to_string(file).unwrap()).unwrap();
        let hot: Vec<_> =
            profile.stacks.iter().filter(|stack| stack.contains("count_with_list")).cloned().collect();
        assert!(!hot.is_empty(), "{option}: nothing seen");
        hot
    };
    assert!(leaves("").len() > 1, "lines are told apart");
    // By function the stacks of all lines of the leaf are one.
    assert_eq!(leaves("-F").len(), 1);
    let nolineno = leaves("--nolineno");
    assert!(nolineno.iter().all(|stack| stack.leaf().unwrap().line.is_none()), "{nolineno:?}");
    let full = leaves("--full-filenames");
    let file = full[0].leaf().unwrap().file.clone().unwrap();
    assert!(file.starts_with('/') && file.ends_with("unique_names.py"), "{file}");
}

/// How many clocks of CPUs run an in-kernel program of the one child of process `parent`.
fn clocks_of_child(parent: u32) -> Result<usize> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    let files = std::fs::read_dir(format!("/proc/{}/fd", children.trim()))?;
    let links = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    Ok(links.filter(|link| link.to_string_lossy().contains("bpf_link")).count())
}

/// For so long it is suspended in the end: nobody asked for samples of that time.
const SUSPENDED: Duration = Duration::from_secs(2);

const CONTROL_Z_RATE: u32 = 1000;

fn control_z_suspends_it_when_nothing_is_stopped_and_is_no_loss() {
    let scratch = Scratch::new().unwrap();
    let mut fixture = Fixture::start(one_interpreter(), "labyrinth/labyrinth.py", &[]).unwrap();
    let shell = ["bash", "--norc", "--noprofile", "-i"].map(OsString::from);
    let mut terminal = Terminal::start(&shell, USUAL_SIZE).unwrap();
    terminal.wait_for("a prompt", |screen| screen.contains(['$', '#'])).unwrap();
    let words = format!(
        "{} record -f raw -r {CONTROL_Z_RATE} -o {} --pid {}\r",
        profiler_path().display(),
        scratch.file("out.txt").display(),
        fixture.pid()
    );
    terminal.press_for(&words, " samples, ").unwrap();
    let (loads_programs, shell_pid) = (can_load_programs(), terminal.pid());
    let is_back = |screen: &str| screen.contains(" samples, ") && !screen.contains("Stopped");
    let mut before = (Instant::now(), 0);
    for seconds in [0, 0, 0, 0, SUSPENDED.as_secs()] {
        if loads_programs {
            // Its line on the screen may be older than they are.
            terminal.wait_for("clocks", |_| clocks_of_child(shell_pid).unwrap() > 0).unwrap();
        }
        terminal.press_for("\x1a", "Stopped").unwrap();
        assert_eq!(clocks_of_child(shell_pid).unwrap(), 0, "it interrupts the target");
        // The target goes on meanwhile: a thread that was held would not answer.
        fixture.progress().unwrap();
        // In the end for two thousand instants.
        let asked = Instant::now();
        terminal.press(&format!("clear; sleep {seconds}; fg\r")).unwrap();
        let screen = terminal.wait_for("the progress line", is_back).unwrap();
        if seconds == 0 {
            before = (asked, count_before(&screen, " lost").unwrap());
        }
    }
    let screen = terminal.press_for("\x03", " MB; ").unwrap();
    let (since, lost) = before;
    let most = lost + most_instants(CONTROL_Z_RATE, since.elapsed().saturating_sub(SUSPENDED));
    let late = count_before(&screen, " sampler late").unwrap_or(0);
    assert!(late <= most, "{late} late of at most {most}: {screen}");
    assert!(profile_of(&scratch).unwrap().total() > 0);
}

/// Works until its file `end` is there, and then tells for how long it has. Its file `worked` says that half a
/// second is over.
const TIMED_WORK: &str = "\
import os, sys, time
begun = time.monotonic()
worked = False
while not os.path.exists(sys.argv[2]):
    for _ in range(1000): pass
    if not worked and time.monotonic() - begun > 0.5:
        worked = True
        open(sys.argv[1], 'w').close()
print(time.monotonic() - begun)
";

/// The number behind `before` in a message, with the word that follows it.
fn number_behind<'a>(message: &'a str, before: &str) -> Option<(f64, &'a str)> {
    let mut words = message.split_once(before)?.1.split_whitespace();
    Some((words.next()?.replace(',', "").parse().ok()?, words.next()?.trim_matches([',', ';'])))
}

/// How long there was no Python, in seconds, as the ledger tells; it says nothing where that was no time.
fn seconds_without_python(run: &Run) -> f64 {
    match number_behind(&run.stderr, "no Python in the first ") {
        None => 0.0,
        Some((number, "s")) => number,
        Some((number, "ms")) => number / 1e3,
        Some((number, "µs")) => number / 1e6,
        Some((_, unit)) => panic!("{unit} is no unit of time"),
    }
}

fn what_a_command_did_before_it_was_looked_at_belongs_to_the_recording() {
    const RATE: f64 = 500.0;
    let scratch = Scratch::new().unwrap();
    let file = |name: &str| scratch.file(name);
    let appears = |name: &str| {
        let limit = Instant::now() + Duration::from_secs(60);
        while !file(name).exists() {
            assert!(Instant::now() < limit, "no file {name}");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let mut words: Vec<OsString> = ["sh", "-c"].map(OsString::from).to_vec();
    let wait = ": > \"$0\"; until [ -e \"$1\" ]; do sleep 0.01; done; shift; exec \"$@\"";
    words.extend([wait.into(), file("waits").into(), file("go").into()]);
    words.extend(one_interpreter().inline_words(TIMED_WORK));
    words.extend([file("worked").into(), file("end").into()]);
    let recording = Profiler::new("record").words("-f raw -r 500 --sampler pause -o").arg(file("out.txt"));
    let mut running = recording.command(&words).spawn().unwrap();
    appears("waits");
    // It does not look for half a second in which a Python works.
    running.signal(Signal::SIGSTOP).unwrap();
    std::fs::write(file("go"), "").unwrap();
    appears("worked");
    running.signal(Signal::SIGCONT).unwrap();
    running.wait_until_sampling().unwrap();
    std::fs::write(file("end"), "").unwrap();
    let run = running.wait().unwrap();
    assert_eq!(run.code(), Some(0), "{}", run.stderr);
    let worked: f64 = run.stdout.trim().parse().unwrap();
    let whole = run.sampled_for().unwrap();
    let before = seconds_without_python(&run);
    let (lost, _) = number_behind(&run.stderr, "; lost ").unwrap();
    let (late, _) = number_behind(&run.stderr, "%): ").unwrap();
    let idle = run
        .stderr
        .split_once(" more not asked for")
        .map_or(0.0, |(text, _)| text.rsplit(' ').next().unwrap().replace(',', "").parse().unwrap());
    let attempts = profile_of(&scratch).unwrap().total() as f64 + idle + lost;
    assert!(whole - before >= worked, "{worked} s of {whole} s\n{}", run.stderr);
    // Five deviations of a number of instants that are spaced at random.
    let most = |seconds: f64| seconds * RATE + 5.0 * (seconds * RATE).sqrt();
    let least = |seconds: f64| seconds * RATE - 5.0 * (seconds * RATE).sqrt();
    assert!(
        run.stderr.contains("sampler late") && late >= least(0.5),
        "half a second was not seen\n{}",
        run.stderr
    );
    assert!(attempts >= least(worked), "{worked} s\n{}", run.stderr);
    assert!(attempts <= most(whole - before), "{} s\n{}", whole - before, run.stderr);
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(input_and_output_are_the_commands_own),
        test!(priority_and_cpus_are_the_commands_own_whatever_the_profiler_has_for_itself),
        test!(once_the_program_is_loaded_the_profiler_is_as_nice_as_before),
        test!(the_exit_status_is_the_commands_own),
        test!(a_command_killed_by_a_signal_is_reported_as_a_shell_does),
        test!(signals_reach_the_command),
        test!(python_that_is_not_up_yet_is_waited_for),
        test!(the_duration_is_in_real_seconds),
        test!(control_c_ends_the_recording_not_the_data),
        test!(the_end_of_the_target_ends_the_recording),
        test!(the_ending_of_the_file_chooses_the_format),
        test!(the_run_ends_with_its_ledger),
        test!(functions_without_lines_and_whole_paths),
        test!(control_z_suspends_it_when_nothing_is_stopped_and_is_no_loss),
        test!(what_a_command_did_before_it_was_looked_at_belongs_to_the_recording),
    ]
}
