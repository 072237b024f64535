//! `top` in real pseudo-terminals: what is on the screen, what keys do, and that the terminal is whole
//! afterwards whatever happened.

use std::ffi::OsString;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Sampler, Test};
use profiler_tests::test;
use profiler_tests::{Fixture, Scratch, Terminal, USUAL_SIZE, profiler_path};

fn top_words(case: &Case, arguments: &str) -> Vec<OsString> {
    let arguments = format!("{} --delay 0.3 {arguments}", case.sampler_words());
    let words = arguments.split_whitespace().map(OsString::from);
    [profiler_path().into(), "top".into()].into_iter().chain(words).collect()
}

fn top(case: &Case, fixture: &Fixture, size: (u16, u16)) -> Result<Terminal> {
    Terminal::start(&top_words(case, &format!("--pid {}", fixture.pid())), size)
}

/// `top` of a target in a terminal of the usual size, which shows functions of the labyrinth.
fn top_of_labyrinth(case: &Case) -> Result<(Fixture, Terminal)> {
    let fixture = labyrinth(case)?;
    let terminal = top(case, &fixture, USUAL_SIZE)?;
    terminal.wait_for_text("_from_")?;
    Ok((fixture, terminal))
}

fn labyrinth(case: &Case) -> Result<Fixture> {
    Fixture::start(case.interpreter, "labyrinth/labyrinth.py", &[])
}

/// Presses a key that ends it; it must succeed.
fn quit(terminal: &mut Terminal, key: &str) -> Result<()> {
    terminal.press(key)?;
    let status = terminal.wait()?;
    ensure!(status.code() == Some(0), "{status:?}:\n{}", terminal.screen());
    Ok(())
}

fn every_tab_shows_what_runs(case: &Case) -> Result<()> {
    let fixture = labyrinth(case)?;
    let mut terminal = top(case, &fixture, USUAL_SIZE)?;
    let functions = terminal.wait_for("functions", |screen| screen.contains("_from_"))?;
    for word in ["GIL", "CPU", "RSS", "rate", "own%", "samples", "maze.py", &fixture.pid().to_string()] {
        ensure!(functions.contains(word), "no {word:?} in\n{functions}");
    }
    terminal.press_for("2", " line ")?;
    terminal.press("3")?;
    // On a busy machine it may only be ready to run, or be met in the middle of a page fault.
    let runs = |line: &str| line.contains("MainThread") && (line.contains("runs") || line.contains(" CPU  "));
    let thread_runs = |screen: &str| screen.contains("waits for") && screen.lines().any(runs);
    terminal.wait_for("a thread that runs", thread_runs)?;
    terminal.press("4")?;
    // The table of threads, which is drawn until then, may have either function as the current one.
    let tree = ["tot%▾", "drive_plain", "n0_from_outside_at_0"];
    terminal.wait_for("the call tree", |screen| tree.iter().all(|word| screen.contains(word)))?;
    terminal.press_for("5", "arrows or the mouse")?;
    let flame = terminal.press_for("\x1b[B\x1b[B", "own 0.0% ")?;
    ensure!(flame.contains("▏n0_from_outside_at_0"), "{flame}");
    terminal.press_for("?", "write what is seen")?;
    quit(&mut terminal, "xq")?;
    ensure!(terminal.screen().contains("samples in"), "no ledger:\n{}", terminal.screen());
    fixture.finish().map(drop)
}

fn small_and_changing_terminals_are_filled(case: &Case) -> Result<()> {
    let fixture = labyrinth(case)?;
    let mut terminal = top(case, &fixture, (12, 60))?;
    let small = terminal.wait_for_text("_from_")?;
    ensure!(small.contains("own%") && small.contains("samples") && small.contains("q quit"), "{small}");
    terminal.resize((20, 140))?;
    terminal.wait_for("both times side by side", |screen| screen.contains("TOT wall"))?;
    terminal.resize((3, 10))?;
    terminal.wait_for("what fits", |screen| !screen.contains("TOT wall"))?;
    terminal.resize((12, 60))?;
    terminal.wait_for_text("q quit")?;
    // A key is not kept back until the next one if a change of size comes just before it.
    for round in 0..20 {
        terminal.resize((12, 61 + round))?;
        terminal.press_for("2", " line ")?;
        terminal.press_for("3", "waits for")?;
    }
    quit(&mut terminal, "\x03")
}

/// Writes what is filtered in every format.
fn write_in_every_format(terminal: &mut Terminal) -> Result<()> {
    let scratch = Scratch::new()?;
    let files = [
        ("out.svg", "flamegraph", "<?xml"),
        ("out.txt", "raw", ""),
        ("out.json", "speedscope", "{"),
        ("out.trace", "chrometrace", "["),
    ];
    for (name, format, start) in files {
        let file = scratch.file(name);
        // The proposed name is taken back first.
        let keys = format!("w{}{}\r", "\x7f".repeat(80), file.display());
        terminal.press_for(&keys, &format!("{name} ({format}): "))?;
        let text = std::fs::read_to_string(&file)?;
        ensure!(text.starts_with(start) && text.contains("drive_plain"), "{name}");
    }
    Ok(())
}

fn view_is_filtered_written_frozen_and_reset(case: &Case) -> Result<()> {
    let (_fixture, mut terminal) = top_of_labyrinth(case)?;
    terminal.press_for("/drive_plain\r", "/drive_plain")?;
    // The first sample of a thread may stand for no time, and what has none is not drawn in a flame graph.
    let has_time = |line: &str| {
        line.split_once("drive_plain ")
            .is_some_and(|(times, _)| times.contains(|digit| ('1'..='9').contains(&digit)))
    };
    let is_filtered = |screen: &str| screen.lines().any(has_time) && !screen.contains("n0_from");
    terminal.wait_for("only the one function", is_filtered)?;
    write_in_every_format(&mut terminal)?;
    terminal.press_for("\x1b", "maze.py")?;
    // Esc ends what is typed, and the key behind it is a key again, however soon it comes.
    terminal.press_for("/absent\x1b3", "waits for")?;
    terminal.press_for("/absent\x1b1", "maze.py")?;
    terminal.press_for("f", "FROZEN")?;
    terminal.press_for("fp", "PAUSED")?;
    terminal.press_for("r", "0 samples")?;
    terminal.press_for("pm", "wall")?;
    terminal.wait_for_text("_from_")?;
    quit(&mut terminal, "q")
}

fn mouse_chooses_tabs_and_columns(case: &Case) -> Result<()> {
    let fixture = labyrinth(case)?;
    let mut terminal = top(case, &fixture, USUAL_SIZE)?;
    terminal.wait_for_text("own%▾")?;
    // A click on the second title of the table, and one on the third tab.
    terminal.press_for("\x1b[<0;9;4M\x1b[<0;9;4m", "tot%▾")?;
    terminal.press_for("\x1b[<0;30;3M\x1b[<0;30;3m", "waits for")?;
    quit(&mut terminal, "q")
}

/// That suspended time is no loss is in the statistical tests.
fn suspended_top_gives_terminal_to_shell(case: &Case) -> Result<()> {
    let fixture = labyrinth(case)?;
    let mut terminal = Terminal::shell()?;
    let words = top_words(case, &format!("--pid {}", fixture.pid()));
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    terminal.press_for(&(words.join(" ") + "\r"), "own%")?;
    terminal.press_for("\x1a", "Stopped")?;
    terminal.press_for("echo on the $((40 + 2))th line\r", "on the 42th line")?;
    terminal.press_for("fg\r", "own%")?;
    terminal.wait_for_text("_from_")?;
    terminal.press_for("q", " MB; ")?;
    terminal.press("exit 5\r")?;
    ensure!(terminal.wait()?.code() == Some(5), "{}", terminal.screen());
    Ok(())
}

fn keys_are_answered_while_writing_file(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let (_fixture, mut terminal) = top_of_labyrinth(case)?;
    // Writing to this lasts until somebody reads.
    let pipe = scratch.file("out.txt");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU)?;
    let keys = format!("w{}{}\r", "\x7f".repeat(80), pipe.display());
    terminal.press_for(&keys, "writing ")?;
    terminal.press_for("f", "FROZEN")?;
    terminal.press_for(&keys, "still being written")?;
    let text = std::fs::read_to_string(&pipe)?;
    ensure!(text.contains("_from_"), "{text}");
    terminal.wait_for_text("out.txt (raw): ")?;
    quit(&mut terminal, "q")
}

fn ended_target_leaves_its_last_picture(case: &Case) -> Result<()> {
    let (mut fixture, mut terminal) = top_of_labyrinth(case)?;
    fixture.kill()?;
    let last = terminal.wait_for_text("ENDED")?;
    ensure!(last.contains("_from_"), "{last}");
    terminal.press_for("3", " ended ")?;
    terminal.press_for("4", "n0_from_outside_at_0")?;
    quit(&mut terminal, "q")
}

/// The threads of the fixture `waiting`, and what the screen says that they do.
const STATES: [(&str, &str); 5] = [
    ("sleeps", "sleep"),
    ("waits_for_lock", "lock"),
    ("waits_for_socket", "socket"),
    ("waits_for_pipe", "file"),
    ("hashes", "hashes"),
];

fn threads_show_what_they_wait_for(case: &Case) -> Result<()> {
    let mut fixture = Fixture::start(case.interpreter, "waiting/waiting.py", &[])?;
    fixture.ask("hash")?;
    let mut terminal = top(case, &fixture, USUAL_SIZE)?;
    terminal.wait_for_text("own%")?;
    terminal.press("3")?;
    let shows_all = |screen: &str| {
        STATES.iter().all(|(name, state)| {
            let line = screen.lines().find(|line| line.contains(&format!(" {name} ")));
            line.is_some_and(|line| line.matches(name).count() == 2 && line.contains(state))
        })
    };
    terminal.wait_for("what each thread does and where", shows_all)?;
    // A function that waits is shown for as long as it waits, beside those that run.
    terminal.press_for("1i", "+idle")?;
    terminal.wait_for("a function that waits", |screen| screen.contains("waits_for_socket"))?;
    let last = terminal.press_for("q", " of CPU (")?;
    ensure!(terminal.wait()?.code() == Some(0), "{last}");
    ensure!(last.contains("never stopped") || case.sampler() != Sampler::Bpf, "{last}");
    Ok(())
}

/// Holds the GIL and works, while another process takes nearly all of the only CPU that both may use.
const OUTCOMPETED: &str = "\
import os, sys
def work():
    while True: pass
read, write = os.pipe()
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
if os.fork() == 0:
    os.close(write)
    os.set_blocking(read, False)
    while True:
        try:
            if not os.read(read, 1): os._exit(0)
        except BlockingIOError: pass
os.close(read)
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
print('ready', flush=True)
work()
";

fn runnable_gil_holder_is_shown_as_holder(case: &Case) -> Result<()> {
    let fixture = Fixture::inline(case.interpreter, OUTCOMPETED)?;
    let mut terminal = top(case, &fixture, USUAL_SIZE)?;
    terminal.wait_for_text("own%")?;
    terminal.press("3")?;
    let words = [" ready+GIL ", " CPU ", " work ("];
    let is_shown = |screen: &str| screen.lines().any(|line| words.iter().all(|word| line.contains(word)));
    terminal.wait_for("a runnable thread that holds the GIL", is_shown)?;
    quit(&mut terminal, "q")
}

fn signals_leave_the_terminal_whole(case: &Case) -> Result<()> {
    let fixture = labyrinth(case)?;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        let mut terminal = top(case, &fixture, USUAL_SIZE)?;
        terminal.wait_for_text("_from_")?;
        terminal.signal(signal)?;
        let status = terminal.wait().with_context(|| signal.to_string())?;
        ensure!(status.code() == Some(0), "{signal}: {status:?}");
    }
    Ok(())
}

fn process_tree_is_one_picture(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, "tree/tree.py", &["fork", "2"])?;
    let mut terminal = Terminal::start(&top_words(case, &format!("-s --pid {}", fixture.pid())), (50, 160))?;
    terminal.wait_for_text("work_of_fork")?;
    terminal.press("3")?;
    // One of them may be found, and be seen, before the other.
    let pids: Vec<String> = fixture.children().iter().map(u32::to_string).collect();
    let are_there =
        |screen: &str| screen.contains("waits for") && pids.iter().all(|pid| screen.contains(pid));
    terminal.wait_for("both children", are_there)?;
    let last = terminal.press_for("q", "processes: ")?;
    ensure!(terminal.wait()?.code() == Some(0), "{last}");
    Ok(())
}

/// Prints a line at once, works, and has to be interrupted twice.
const STUBBORN_COMMAND: &str = "\
import os, sys, time
print('words', 'of the command')
end = time.time() + 60
def work():
    while time.time() < end: pass
try:
    work()
except KeyboardInterrupt:
    try:
        os.write(os.open('/dev/tty', os.O_WRONLY), b'once more, please\\n')
        work()
    except KeyboardInterrupt:
        sys.exit(7)
";

fn output_of_command_comes_after_the_screen(case: &Case) -> Result<()> {
    let mut words = top_words(case, "--");
    words.extend(case.interpreter.inline_words(STUBBORN_COMMAND));
    let mut terminal = Terminal::start(&words, USUAL_SIZE)?;
    let screen = terminal.wait_for_text("work")?;
    ensure!(!screen.contains("words of the command"), "{screen}");
    // It does not end at once, and is then interrupted by the user.
    let is_waited_for =
        |screen: &str| screen.contains("once more, please") && screen.contains("Ctrl-C interrupts it again");
    terminal.press("q")?;
    terminal.wait_for("that it is waited for", is_waited_for)?;
    terminal.press("\x03")?;
    ensure!(terminal.wait()?.code() == Some(7), "{}", terminal.screen());
    ensure!(terminal.screen().contains("words of the command"), "{}", terminal.screen());
    Ok(())
}

/// A function and a thread whose names would set the title of a terminal.
const EVIL_NAMES: &str = "\
import sys, threading
evil = 'e\\x1b]0;owned\\x07\\n\\x9b2J\\u202evil'
def work():
    while True: pass
try:
    work.__code__ = work.__code__.replace(co_name=evil)
except AttributeError:
    pass
if hasattr(work.__code__, 'co_qualname'):
    work.__code__ = work.__code__.replace(co_qualname=evil)
thread = threading.Thread(target=work, name='t\\x1b]0;owned\\x07\\nread', daemon=True)
thread.start()
print('ready', flush=True)
sys.stdin.read()
";

fn names_never_command_the_terminal(case: &Case) -> Result<()> {
    let fixture = Fixture::inline(case.interpreter, EVIL_NAMES)?;
    let mut terminal = top(case, &fixture, USUAL_SIZE)?;
    terminal.wait_for_text(r"e\u{1b}]0;owned")?;
    terminal.press_for("3", r"t\u{1b}]0;owned")?;
    for tab in ["4", "5"] {
        terminal.press_for(tab, r"e\u{1b}]0;owned")?;
    }
    quit(&mut terminal, "q")?;
    let bytes = terminal.bytes();
    ensure!(!bytes.windows(4).any(|four| four == b"\x1b]0;"), "a title was set");
    ensure!(!bytes.windows(2).any(|two| two == b"\xc2\x9b"), "a C1 control got through");
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(every_tab_shows_what_runs).on(On::Layouts).by(PAUSE_AND_BPF),
        test!(small_and_changing_terminals_are_filled).by(&[Sampler::Pause]),
        test!(view_is_filtered_written_frozen_and_reset).by(PAUSE_AND_BPF),
        test!(mouse_chooses_tabs_and_columns).by(&[Sampler::Pause]),
        test!(suspended_top_gives_terminal_to_shell).by(PAUSE_AND_BPF),
        test!(keys_are_answered_while_writing_file).by(&[Sampler::Pause]),
        test!(ended_target_leaves_its_last_picture).by(PAUSE_AND_BPF),
        test!(threads_show_what_they_wait_for).by(PAUSE_AND_BPF),
        test!(runnable_gil_holder_is_shown_as_holder).by(PAUSE_AND_BPF),
        test!(signals_leave_the_terminal_whole).by(PAUSE_AND_BPF),
        test!(process_tree_is_one_picture).by(PAUSE_AND_BPF),
        test!(output_of_command_comes_after_the_screen).by(PAUSE_AND_BPF),
        test!(names_never_command_the_terminal).by(&[Sampler::Pause]),
    ]
}
