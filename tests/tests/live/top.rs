//! `top` in real pseudo-terminals: what is on the screen, what keys do, and that the terminal is whole
//! afterwards whatever happened.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use profiler_tests::statistics::most_instants;
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    Fixture, Interpreter, Profiler, Scratch, Terminal, USUAL_SIZE, can_load_programs, count_before,
    interpreters, one_interpreter, profiler_path,
};

fn top_words(arguments: &str) -> Vec<OsString> {
    let words = arguments.split_whitespace().map(OsString::from);
    [profiler_path().into(), "top".into()].into_iter().chain(words).collect()
}

fn top(fixture: &Fixture, size: (u16, u16)) -> Result<Terminal> {
    top_by("auto", fixture, size)
}

fn top_by(sampler: &str, fixture: &Fixture, size: (u16, u16)) -> Result<Terminal> {
    Terminal::start(&top_words(&format!("--sampler {sampler} --delay 0.3 --pid {}", fixture.pid())), size)
}

/// Those that can be taken here and lose nothing; the first is what `auto` takes.
fn samplers() -> &'static [&'static str] {
    if can_load_programs() { &["bpf", "pause"] } else { &["pause"] }
}

fn labyrinth(interpreter: &Interpreter) -> Result<Fixture> {
    Fixture::start(interpreter, "labyrinth/labyrinth.py", &[])
}

/// An old one, a new one, and those without symbols.
fn some_interpreters() -> Vec<&'static Interpreter> {
    let mut some: Vec<_> = interpreters().iter().filter(|one| [8, 13].contains(&one.minor)).collect();
    some.extend(interpreters().last().filter(|newest| newest.minor > 13));
    some
}

fn every_tab_shows_what_runs() {
    for interpreter in some_interpreters() {
        let look = || -> Result<()> {
            let fixture = labyrinth(interpreter)?;
            let mut terminal = top(&fixture, USUAL_SIZE)?;
            let functions = terminal.wait_for("functions", |screen| screen.contains("_from_"))?;
            for word in
                ["GIL", "CPU", "RSS", "rate", "own%", "samples", "maze.py", &fixture.pid().to_string()]
            {
                ensure!(functions.contains(word), "no {word:?} in\n{functions}");
            }
            terminal.press_for("2", " line ")?;
            terminal.press("3")?;
            // On a busy machine it may only be ready to run, or be met in the middle of a fault of a page.
            let runs = |line: &str| {
                line.contains("MainThread") && (line.contains("runs") || line.contains(" CPU  "))
            };
            terminal.wait_for("a thread that runs", |screen| {
                screen.contains("waits for") && screen.lines().any(runs)
            })?;
            terminal.press("4")?;
            // Either function may be the one that the table of threads, which is drawn until then, has as current.
            let is_open = |screen: &str| {
                ["tot%▾", "drive_plain", "n0_from_outside_at_0"].iter().all(|word| screen.contains(word))
            };
            terminal.wait_for("the call tree", is_open)?;
            terminal.press_for("5", "arrows or the mouse")?;
            let flame = terminal.press_for("\x1b[B\x1b[B", "own 0.0% ")?;
            ensure!(flame.contains("▏n0_from_outside_at_0"), "{flame}");
            terminal.press_for("?", "write what is seen")?;
            terminal.press("xq")?;
            ensure!(terminal.wait()?.code() == Some(0), "{}", terminal.screen());
            ensure!(terminal.screen().contains("samples in"), "no ledger:\n{}", terminal.screen());
            fixture.finish().map(drop)
        };
        look().with_context(|| interpreter.id.clone()).unwrap();
    }
}

fn small_terminals_and_other_sizes() {
    let fixture = labyrinth(one_interpreter()).unwrap();
    let mut terminal = top(&fixture, (12, 60)).unwrap();
    let small = terminal.wait_for_text("_from_").unwrap();
    assert!(small.contains("own%") && small.contains("samples") && small.contains("q quit"), "{small}");
    terminal.resize((20, 140)).unwrap();
    terminal.wait_for("both times side by side", |screen| screen.contains("TOT wall")).unwrap();
    terminal.resize((3, 10)).unwrap();
    terminal.wait_for("what fits", |screen| !screen.contains("TOT wall")).unwrap();
    terminal.resize((12, 60)).unwrap();
    terminal.wait_for_text("q quit").unwrap();
    // No key is kept back until the next one when another size comes just before it.
    for round in 0..20 {
        terminal.resize((12, 61 + round)).unwrap();
        terminal.press_for("2", " line ").unwrap();
        terminal.press_for("3", "waits for").unwrap();
    }
    terminal.press("\x03").unwrap();
    assert_eq!(terminal.wait().unwrap().code(), Some(0));
}

fn what_is_seen_is_filtered_frozen_reset_and_written() {
    let scratch = Scratch::new().unwrap();
    let fixture = labyrinth(one_interpreter()).unwrap();
    let mut terminal = top(&fixture, USUAL_SIZE).unwrap();
    terminal.wait_for_text("_from_").unwrap();
    terminal.press_for("/drive_plain\r", "/drive_plain").unwrap();
    let is_filtered = |screen: &str| screen.contains("drive_plain ") && !screen.contains("n0_from");
    terminal.wait_for("only the one function", is_filtered).unwrap();
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
        terminal.press_for(&keys, &format!("{name} ({format}): ")).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with(start) && text.contains("drive_plain"), "{name}");
    }
    terminal.press_for("\x1b", "maze.py").unwrap();
    // Esc ends what is typed, and the key behind it is a key again, however soon it comes.
    terminal.press_for("/absent\x1b3", "waits for").unwrap();
    terminal.press_for("/absent\x1b1", "maze.py").unwrap();
    terminal.press_for("f", "FROZEN").unwrap();
    terminal.press_for("fp", "PAUSED").unwrap();
    terminal.press_for("r", "0 samples").unwrap();
    terminal.press_for("pm", "wall").unwrap();
    terminal.wait_for_text("_from_").unwrap();
    terminal.press("q").unwrap();
    assert_eq!(terminal.wait().unwrap().code(), Some(0));
}

fn the_mouse_chooses_tabs_and_columns() {
    let fixture = labyrinth(one_interpreter()).unwrap();
    let mut terminal = top(&fixture, USUAL_SIZE).unwrap();
    terminal.wait_for_text("own%▾").unwrap();
    // A click on the second title of the table, and one on the third tab.
    terminal.press_for("\x1b[<0;9;4M\x1b[<0;9;4m", "tot%▾").unwrap();
    terminal.press_for("\x1b[<0;30;3M\x1b[<0;30;3m", "waits for").unwrap();
    terminal.press("q").unwrap();
    assert_eq!(terminal.wait().unwrap().code(), Some(0));
}

fn control_z_gives_the_shell_its_terminal_and_fg_comes_back() {
    let fixture = labyrinth(one_interpreter()).unwrap();
    let shell = ["bash", "--norc", "--noprofile", "-i"].map(OsString::from);
    let mut terminal = Terminal::start(&shell, USUAL_SIZE).unwrap();
    terminal.wait_for("a prompt", |screen| screen.contains(['$', '#'])).unwrap();
    let words: Vec<String> = top_words(&format!("--delay 0.3 --pid {}", fixture.pid()))
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let began = Instant::now();
    terminal.press_for(&format!("{}\r", words.join(" ")), "own%").unwrap();
    terminal.press_for("\x1a", "Stopped").unwrap();
    // Two hundred instants, for which nobody asked for samples.
    terminal.press_for("sleep 2; echo on the $((40 + 2))th line\r", "on the 42th line").unwrap();
    terminal.press_for("fg\r", "own%").unwrap();
    terminal.wait_for_text("_from_").unwrap();
    let screen = terminal.press_for("q", " MB; ").unwrap();
    let most = most_instants(100, began.elapsed().saturating_sub(Duration::from_secs(2)));
    let late = count_before(&screen, " sampler late").unwrap_or(0);
    assert!(late <= most, "{late} late of at most {most}: {screen}");
    terminal.press("exit 5\r").unwrap();
    assert_eq!(terminal.wait().unwrap().code(), Some(5));
}

fn keys_are_answered_while_a_file_is_written() {
    let scratch = Scratch::new().unwrap();
    let fixture = labyrinth(one_interpreter()).unwrap();
    let mut terminal = top(&fixture, USUAL_SIZE).unwrap();
    terminal.wait_for_text("_from_").unwrap();
    // Writing to this lasts until somebody reads.
    let pipe = scratch.file("out.txt");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let keys = format!("w{}{}\r", "\x7f".repeat(80), pipe.display());
    terminal.press_for(&keys, "writing ").unwrap();
    terminal.press_for("f", "FROZEN").unwrap();
    terminal.press_for(&keys, "still being written").unwrap();
    let text = std::fs::read_to_string(&pipe).unwrap();
    assert!(text.contains("_from_"), "{text}");
    terminal.wait_for_text("out.txt (raw): ").unwrap();
    terminal.press("q").unwrap();
    assert_eq!(terminal.wait().unwrap().code(), Some(0));
}

fn a_target_that_dies_leaves_the_last_picture() {
    for sampler in samplers() {
        let mut fixture = labyrinth(one_interpreter()).unwrap();
        let mut terminal = top_by(sampler, &fixture, USUAL_SIZE).unwrap();
        terminal.wait_for_text("_from_").unwrap();
        fixture.kill().unwrap();
        let last = terminal.wait_for_text("ENDED").unwrap();
        assert!(last.contains("_from_"), "{sampler}: {last}");
        terminal.press_for("3", " ended ").unwrap();
        terminal.press_for("4", "n0_from_outside_at_0").unwrap();
        terminal.press("q").unwrap();
        assert_eq!(terminal.wait().unwrap().code(), Some(0), "{sampler}");
    }
}

fn every_sampler_tells_what_threads_wait_for() {
    let states = [
        ("sleeps", "sleep"),
        ("waits_for_lock", "lock"),
        ("waits_for_socket", "socket"),
        ("waits_for_pipe", "file"),
        ("hashes", "hashes"),
    ];
    for sampler in samplers() {
        let mut fixture = Fixture::start(one_interpreter(), "waiting/waiting.py", &[]).unwrap();
        fixture.ask("hash").unwrap();
        let mut terminal = top_by(sampler, &fixture, USUAL_SIZE).unwrap();
        terminal.wait_for_text("own%").unwrap();
        terminal.press("3").unwrap();
        let tells_all = |screen: &str| {
            states.iter().all(|(name, state)| {
                let line = screen.lines().find(|line| line.contains(&format!(" {name} ")));
                line.is_some_and(|line| line.matches(name).count() == 2 && line.contains(state))
            })
        };
        terminal.wait_for("what each thread does and where", tells_all).unwrap();
        // What waits is shown for as long as it waits, with those that run.
        terminal.press_for("1i", "+idle").unwrap();
        terminal.wait_for("a function that waits", |screen| screen.contains("waits_for_socket")).unwrap();
        let last = terminal.press_for("q", " of CPU (").unwrap();
        assert_eq!(terminal.wait().unwrap().code(), Some(0), "{sampler}");
        assert!(last.contains("never stopped") || *sampler != "bpf", "{last}");
    }
}

/// Holds the GIL and works where another process leaves it next to nothing of the only CPU that both may have.
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

fn who_holds_the_gil_and_waits_for_a_cpu_is_ready_and_holds_it() {
    for sampler in samplers() {
        let fixture = Fixture::inline(one_interpreter(), OUTCOMPETED).unwrap();
        let mut terminal = top_by(sampler, &fixture, USUAL_SIZE).unwrap();
        terminal.wait_for_text("own%").unwrap();
        terminal.press("3").unwrap();
        let is_told = |screen: &str| {
            let words = [" ready+GIL ", " CPU ", " work ("];
            screen.lines().any(|line| words.iter().all(|word| line.contains(word)))
        };
        terminal.wait_for("a thread that is ready", is_told).unwrap();
        terminal.press("q").unwrap();
        assert_eq!(terminal.wait().unwrap().code(), Some(0), "{sampler}");
    }
}

fn signals_end_it_and_leave_the_terminal_whole() {
    let fixture = labyrinth(one_interpreter()).unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        let mut terminal = top(&fixture, USUAL_SIZE).unwrap();
        terminal.wait_for_text("_from_").unwrap();
        terminal.signal(signal).unwrap();
        assert_eq!(terminal.wait().unwrap().code(), Some(0), "{signal}");
    }
}

fn a_tree_of_processes_is_one_picture() {
    for sampler in samplers() {
        let fixture = Fixture::start(one_interpreter(), "tree/tree.py", &["fork", "2"]).unwrap();
        let words = top_words(&format!("--sampler {sampler} --delay 0.3 -s --pid {}", fixture.pid()));
        let mut terminal = Terminal::start(&words, (50, 160)).unwrap();
        terminal.wait_for_text("work_of_fork").unwrap();
        terminal.press("3").unwrap();
        // One of them may be found, and be seen, before the other.
        let pids: Vec<String> = fixture.children().iter().map(u32::to_string).collect();
        let are_there =
            |screen: &str| screen.contains("waits for") && pids.iter().all(|pid| screen.contains(pid));
        terminal.wait_for("both children", are_there).with_context(|| sampler.to_owned()).unwrap();
        terminal.press_for("q", "processes: ").unwrap();
        assert_eq!(terminal.wait().unwrap().code(), Some(0), "{sampler}");
    }
}

fn a_command_keeps_its_status_and_its_words_come_at_the_end() {
    let source = "import sys, time\nprint('words', 'of the command')\nend = time.time() + 60\n\
                  def work():\n    while time.time() < end: pass\n\
                  try:\n    work()\nexcept KeyboardInterrupt:\n\
                  \x20   try:\n        open('/dev/tty', 'w').write('once more, please\\n')\n        work()\n\
                  \x20   except KeyboardInterrupt:\n        sys.exit(7)\n";
    let mut words = top_words("--delay 0.3 --");
    words.extend(one_interpreter().inline_words(source));
    let mut terminal = Terminal::start(&words, USUAL_SIZE).unwrap();
    let screen = terminal.wait_for_text("work").unwrap();
    assert!(!screen.contains("words of the command"), "{screen}");
    // It does not end at once, and is then interrupted by the user.
    let is_waited_for =
        |screen: &str| screen.contains("once more, please") && screen.contains("Ctrl-C interrupts it again");
    terminal.press("q").unwrap();
    terminal.wait_for("that it is waited for", is_waited_for).unwrap();
    terminal.press("\x03").unwrap();
    assert_eq!(terminal.wait().unwrap().code(), Some(7), "{}", terminal.screen());
    assert!(terminal.screen().contains("words of the command"), "{}", terminal.screen());
}

fn names_of_a_target_never_command_the_terminal() {
    let source = "import sys, threading\nevil = 'e\\x1b]0;owned\\x07\\n\\x9b2J\\u202evil'\n\
                  def work():\n    while True: pass\n\
                  try:\n    work.__code__ = work.__code__.replace(co_name=evil)\nexcept AttributeError:\n    pass\n\
                  if hasattr(work.__code__, 'co_qualname'):\n    work.__code__ = work.__code__.replace(co_qualname=evil)\n\
                  thread = threading.Thread(target=work, name='t\\x1b]0;owned\\x07\\nread', daemon=True)\nthread.start()\n\
                  print('ready', flush=True)\nsys.stdin.read()\n";
    let fixture = Fixture::inline(one_interpreter(), source).unwrap();
    let mut terminal = top(&fixture, USUAL_SIZE).unwrap();
    terminal.wait_for_text(r"e\u{1b}]0;owned").unwrap();
    terminal.press_for("3", r"t\u{1b}]0;owned").unwrap();
    for tab in ["4", "5"] {
        terminal.press_for(tab, r"e\u{1b}]0;owned").unwrap();
    }
    terminal.press("q").unwrap();
    terminal.wait().unwrap();
    let bytes = terminal.bytes();
    assert!(!bytes.windows(4).any(|four| four == b"\x1b]0;"), "a title was set");
    assert!(!bytes.windows(2).any(|two| two == b"\xc2\x9b"), "a C1 control got through");
}

fn without_a_terminal_it_says_what_to_use_instead() {
    let fixture = labyrinth(one_interpreter()).unwrap();
    let run = Profiler::new("top").pid(&fixture).fail(&["terminal"]).unwrap();
    for word in ["profiler record --pid", "profiler dump --pid"] {
        assert!(run.stderr.contains(word), "{}", run.stderr);
    }
    let dumb = ["env", "TERM=dumb"].map(OsString::from).into_iter();
    let words: Vec<OsString> = dumb.chain(top_words(&format!("--pid {}", fixture.pid()))).collect();
    let mut terminal = Terminal::start(&words, USUAL_SIZE).unwrap();
    assert_eq!(terminal.wait().unwrap().code(), Some(1));
    assert!(terminal.screen().contains("profiler record"), "{}", terminal.screen());
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(every_tab_shows_what_runs),
        test!(small_terminals_and_other_sizes),
        test!(what_is_seen_is_filtered_frozen_reset_and_written),
        test!(the_mouse_chooses_tabs_and_columns),
        test!(control_z_gives_the_shell_its_terminal_and_fg_comes_back),
        test!(keys_are_answered_while_a_file_is_written),
        test!(a_target_that_dies_leaves_the_last_picture),
        test!(every_sampler_tells_what_threads_wait_for),
        test!(who_holds_the_gil_and_waits_for_a_cpu_is_ready_and_holds_it),
        test!(signals_end_it_and_leave_the_terminal_whole),
        test!(a_tree_of_processes_is_one_picture),
        test!(a_command_keeps_its_status_and_its_words_come_at_the_end),
        test!(names_of_a_target_never_command_the_terminal),
        test!(without_a_terminal_it_says_what_to_use_instead),
    ]
}
