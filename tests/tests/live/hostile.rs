//! Hostile targets: stacks without end, names that are no text, a thousand threads, and threads and processes that live
//! a millisecond. More and longer of these is in the soak tests. Targets that change their memory map, closed streams and
//! broken pipes are in `rough`, core files that are cut short in `core`. Where frames are counted or names are compared,
//! the sampler is `pause`: the in-kernel one cuts stacks and names sooner.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use profiler_tests::hostile::{
    CHURN, LATE, ManyThreads, must_be_free, must_dump_or_fail, must_make_progress, top,
};
use profiler_tests::streams::must_need_no_reader;
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Sampler, Test};
use profiler_tests::test;
use profiler_tests::{
    Collapsed, Fixture, Frame, Interpreter, Profiler, Run, Scratch, Terminal, USUAL_SIZE, dumped_json,
    dumped_text, one_interpreter, process_state, profiler_path,
};
use serde_json::Value;

const NAMES: &str = "hostile/names.py";
const RECURSION: &str = "hostile/recursion.py";

const ALL_SAMPLERS: &[Sampler] = &[Sampler::Pause, Sampler::Bpf, Sampler::Peek];

/// The most frames that are shown of a stack, see `profiler_python::MAX_FRAMES`.
const MOST_FRAMES: usize = 4096;

/// Names of a stack of `recursion.py`, root first: each function below its only caller.
fn must_be_recursion(names: &[&str]) -> Result<()> {
    for pair in names.windows(2) {
        let legal = match pair[1] {
            "even" => ["odd", "begin", "<truncated>"].contains(&pair[0]),
            "odd" => ["even", "<truncated>"].contains(&pair[0]),
            "begin" => ["overflow", "run", "Thread.run", "<truncated>"].contains(&pair[0]),
            "arrive" => pair[0] == "odd",
            "<truncated>" => false,
            _ => true,
        };
        ensure!(legal, "{} called by {}", pair[1], pair[0]);
    }
    let is_whole = names.first() != Some(&"<truncated>");
    ensure!(names.len() <= MOST_FRAMES + 1, "{} frames", names.len());
    ensure!(is_whole || names.len() == MOST_FRAMES + 1, "cut to {} frames", names.len());
    Ok(())
}

/// The plain names of the frames.
fn plain_names<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> Vec<&'a str> {
    frames.into_iter().map(Frame::plain_name).collect()
}

fn too_deep_stack_is_dumped_without_root(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, RECURSION, &["still"])?;
    let dump = |words| Profiler::new("dump").words(words).pid(&fixture).succeed();
    let json = dump("--json")?.stdout;
    let values: Vec<Value> = serde_json::from_str(&json)?;
    let threads = dumped_json(&json)?;
    let deep = threads.iter().position(|thread| thread.leaf() == "arrive").context("no deep thread")?;
    let names: Vec<&str> = threads[deep].frames.iter().rev().map(|frame| frame.plain_name()).collect();
    ensure!(names.len() == MOST_FRAMES && values[deep]["truncated"] == true, "{} frames", names.len());
    must_be_recursion(&names)?;
    ensure!(values[1 - deep]["truncated"] == false, "the other thread is cut as well");
    let text = dump("")?.stdout;
    ensure!(text.matches("    <truncated> (the stack is deeper than is read)\n").count() == 1, "{text}");
    Ok(())
}

fn too_deep_stack_is_recorded_without_root(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, RECURSION, &["still"])?;
    let words = format!("{} -i -f raw -r 100 -d 0.2 -o -", case.sampler_words());
    let run = Profiler::new("record").words(&words).pid(&fixture).succeed()?;
    let profile = Collapsed::parse(&run.stdout)?;
    let deep = profile.stacks.iter().find(|stack| stack.contains("arrive")).context("not recorded")?;
    let names = plain_names(&deep.frames);
    must_be_recursion(&names)?;
    ensure!(names.len() == MOST_FRAMES + 1, "{} frames", names.len());
    Ok(())
}

fn recursion_errors_leave_stacks_whole(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, RECURSION, &["loop"])?;
    let words = format!("{} -f raw -r 100 -o -", case.sampler_words());
    let running = Profiler::new("record").words(&words).pid(&fixture).spawn()?;
    let run = running.end_after_cpu_time(fixture.pid(), Duration::from_millis(300))?;
    let profile = Collapsed::parse(&run.stdout)?;
    let mut most = 0;
    for stack in &profile.stacks {
        let names = plain_names(&stack.frames);
        must_be_recursion(&names)?;
        most = most.max(names.len());
    }
    ensure!(most > MOST_FRAMES / 4, "no deep stack among {}: {}", profile.stacks.len(), run.stderr);
    must_be_free(fixture.pid())
}

fn top_marks_a_too_deep_stack(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, RECURSION, &["loop"])?;
    let mut terminal = top(&fixture, &case.sampler_words(), USUAL_SIZE)?;
    terminal.wait_for_text("even")?;
    terminal.press_for("4", "<truncated>")?;
    terminal.press_for("5", "<truncated>")?;
    terminal.press("q")?;
    ensure!(terminal.wait()?.code() == Some(0), "{}", terminal.screen());
    Ok(())
}

/// The fixture with hostile names, with arguments of raw bytes.
fn names_fixture(interpreter: &Interpreter) -> Result<Fixture> {
    let mut words = interpreter.fixture_words(NAMES, &[]);
    words
        .push(OsStr::from_bytes(b"\xff\x1b]52;c;b3duZWQ=\x07;\n\x9b31m \xc2\x9b31m \xe2\x80\xae").to_owned());
    Fixture::start_words(&words)
}

/// The names of its functions and threads.
fn hostile_names(fixture: &mut Fixture) -> Result<Vec<String>> {
    let answer: Value = serde_json::from_str(&fixture.ask("")?)?;
    Ok(serde_json::from_value(answer["names"].clone())?)
}

/// Whether a terminal would take the character for anything else than a character to be seen.
fn commands_a_terminal(char: char) -> bool {
    let turns_or_hides = ['\u{ad}', '\u{61c}', '\u{200b}', '\u{200f}', '\u{2028}', '\u{2029}', '\u{202e}'];
    char.is_control()
        || turns_or_hides.contains(&char)
        || "\u{2060}\u{2066}\u{2069}\u{feff}\u{e0041}".contains(char)
}

/// Text of lines without anything else that commands a terminal.
fn must_be_tame(text: &str) -> Result<()> {
    let wild = text.chars().find(|char| *char != '\n' && commands_a_terminal(*char));
    ensure!(wild.is_none(), "{wild:?} in {text:?}");
    Ok(())
}

/// A frame of collapsed stacks as it was before it was written.
fn unescaped(frame: &str) -> Result<String> {
    let mut name = String::new();
    let mut rest = frame;
    while let Some(char) = rest.chars().next() {
        let after = &rest[char.len_utf8()..];
        let (meant, length) = match (char, after.chars().next()) {
            ('\\', Some('n')) => ('\n', 2),
            ('\\', Some('r')) => ('\r', 2),
            ('\\', Some('t')) => ('\t', 2),
            ('\\', Some('\\')) => ('\\', 2),
            ('\\', Some('u')) if after[1..].starts_with('{') => {
                let (digits, _) = after[2..].split_once('}').context("an escape without an end")?;
                let code = char::from_u32(u32::from_str_radix(digits, 16)?).context("no character")?;
                (code, 4 + digits.len())
            }
            _ => (char, char.len_utf8()),
        };
        name.push(meant);
        rest = &rest[length..];
    }
    Ok(name)
}

/// The functions of the main thread's stack, root first, must have the names, each called by the one before.
fn must_be_the_chain(frames: &[String], names: &[String]) -> Result<()> {
    let start = frames.iter().position(|frame| frame.starts_with(&names[0])).context("no first name")?;
    for (frame, name) in frames[start..].iter().zip(names) {
        ensure!(frame.starts_with(&format!("{name} (")) || frame == name, "{frame:?} instead of {name:?}");
    }
    ensure!(frames[start..].len() > names.len(), "{} of {} names", frames[start..].len(), names.len());
    Ok(())
}

fn hostile_names_stay_names_in_stacks(case: &Case) -> Result<()> {
    let mut fixture = names_fixture(case.interpreter)?;
    let names = hostile_names(&mut fixture)?;
    let words = format!("{} -i -s -t -f raw -r 100 -d 0.3 -o -", case.sampler_words());
    let run = Profiler::new("record").words(&words).pid(&fixture).succeed()?;
    must_be_tame(&run.stdout)?;
    must_be_tame(&run.stderr)?;
    let profile = Collapsed::parse(&run.stdout)?;
    let mut threads = BTreeSet::new();
    for stack in &profile.stacks {
        ensure!(stack.processes == [fixture.pid()], "{stack:?}");
        threads.insert(unescaped(stack.thread.as_deref().context("no thread")?)?);
    }
    let wanted = names.iter().cloned().chain(["MainThread".to_owned()]).collect();
    ensure!(threads == wanted, "threads {threads:?}");
    let line = run.stdout.lines().find(|line| line.contains(";work (")).context("no work")?;
    let (stack, _) = line.rsplit_once(' ').context("no count")?;
    let frames: Vec<String> = stack.split(';').map(unescaped).collect::<Result<_>>()?;
    must_be_the_chain(&frames, &names)
}

fn hostile_names_stay_names_in_dumps(case: &Case) -> Result<()> {
    let mut fixture = names_fixture(case.interpreter)?;
    let names = hostile_names(&mut fixture)?;
    let json = Profiler::new("dump").words("--json").pid(&fixture).succeed()?.stdout;
    must_be_tame(&json)?;
    let dumped = dumped_json(&json)?;
    let main = dumped.iter().find(|thread| thread.name.as_deref() == Some("MainThread"));
    let frames = main.context("no main thread")?.frames.iter().rev();
    must_be_the_chain(&frames.map(|frame| frame.function.clone()).collect::<Vec<_>>(), &names)?;
    let text = Profiler::new("dump").words("--locals --source").pid(&fixture).succeed()?.stdout;
    must_be_tame(&text)?;
    let text = Profiler::new("dump").pid(&fixture).succeed()?.stdout;
    ensure!(dumped_text(&text, fixture.pid())?.len() == names.len() + 1, "{text}");
    Ok(())
}

/// The texts of the titles of an SVG, by a parser of XML that is not ours.
fn titles(svg: &Path) -> Result<Vec<String>> {
    let program = "import json, sys, xml.dom.minidom as dom\n\
                   titles = dom.parse(sys.argv[1]).getElementsByTagName('title')\n\
                   print(json.dumps([''.join(child.data for child in title.childNodes) for title in titles]))";
    let words = one_interpreter().inline_words(program);
    let output = Command::new(&words[0]).args(&words[1..]).arg(svg).output()?;
    ensure!(output.status.success(), "no XML: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A recording of hostile names in this format: its file and what is in it.
fn recorded_names(
    case: &Case,
    scratch: &Scratch,
    fixture: &Fixture,
    format: &str,
) -> Result<(PathBuf, String)> {
    let file = scratch.file(&format!("out \u{1b}]0;x\u{7}.{format}"));
    let record = Profiler::new("record").words(&case.sampler_words()).words("-t -r 100 -d 0.3 -f");
    let run = record.arg(format).arg("-o").arg(&file).pid(fixture).succeed()?;
    must_be_tame(&run.stderr)?;
    let text = fs::read_to_string(&file)?;
    must_be_tame(&text.replace('\t', " ")).with_context(|| format.to_owned())?;
    Ok((file, text))
}

fn hostile_names_leave_files_well_formed(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let mut fixture = names_fixture(case.interpreter)?;
    let names = hostile_names(&mut fixture)?;
    let write = |format: &str| recorded_names(case, &scratch, &fixture, format);
    let (svg, _) = write("flamegraph")?;
    let titles: Vec<String> = titles(&svg)?.iter().map(|title| unescaped(title)).collect::<Result<_>>()?;
    for name in &names {
        let is_shown = titles.iter().any(|title| title.starts_with(&format!("{name} (")));
        ensure!(is_shown, "{name:?}: {titles:?}");
    }
    let must_have_all = |named: &Value| -> Result<()> {
        let named = named.as_array().context("an array")?;
        let shown: BTreeSet<&str> = named.iter().filter_map(|one| one["name"].as_str()).collect();
        ensure!(names.iter().all(|name| shown.contains(name.as_str())), "{shown:?}");
        Ok(())
    };
    let speedscope: Value = serde_json::from_str(&write("speedscope")?.1)?;
    must_have_all(&speedscope["shared"]["frames"]).context("speedscope")?;
    must_have_all(&serde_json::from_str(&write("chrometrace")?.1)?).context("chrometrace")
}

/// What a program wrote to a terminal, without the sequences that the profiler itself uses: those that move, clear
/// and colour, and those that change modes.
fn without_own_sequences(bytes: &[u8]) -> Result<String> {
    let text = String::from_utf8(bytes.to_vec()).context("no UTF-8")?;
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|char: char| char.is_ascii_alphabetic()).context("a sequence without an end")?;
        let is_own = part[..end].chars().all(|char| char.is_ascii_digit() || ";?".contains(char));
        ensure!(is_own, "the sequence {part:?}");
        plain += &part[end + 1..];
    }
    Ok(plain.replace(['\r', '\n'], " "))
}

fn hostile_names_reach_no_terminal(case: &Case) -> Result<()> {
    let fixture = names_fixture(case.interpreter)?;
    let mut terminal = top(&fixture, &case.sampler_words(), (50, 160))?;
    terminal.wait_for_text(r"title \u{1b}]0;owned\u{7}")?;
    terminal.press_for("2", " line ")?;
    terminal.press_for("3", "clipboard ")?;
    terminal.press_for("4", r"line\nbreak")?;
    terminal.press_for("5", r"line\nbreak")?;
    terminal.press("q")?;
    ensure!(terminal.wait()?.code() == Some(0), "{}", terminal.screen());
    must_be_tame(&without_own_sequences(&terminal.bytes())?)?;

    let scratch = Scratch::new()?;
    let words = format!("record {} -s -t -d 0.3 --pid {} -o", case.sampler_words(), fixture.pid());
    must_print_tamely(&words, Some(scratch.file("out \u{1b}]0;x\u{7}.svg").into()))
}

fn hostile_names_are_tame_in_looks(case: &Case) -> Result<()> {
    let fixture = names_fixture(case.interpreter)?;
    must_print_tamely(&format!("doctor --pid {}", fixture.pid()), None)?;
    must_print_tamely(&format!("dump -s --locals --pid {}", fixture.pid()), None)?;
    let json = Profiler::new("doctor").words("--json").pid(&fixture).succeed()?.stdout;
    must_be_tame(&json)?;
    serde_json::from_str::<Value>(&json).map(drop).context("no JSON")
}

/// Runs the profiler in a terminal, which must only be written to.
fn must_print_tamely(words: &str, last: Option<OsString>) -> Result<()> {
    let all = words.split_whitespace().map(OsString::from);
    let all: Vec<OsString> = std::iter::once(profiler_path().into()).chain(all).chain(last).collect();
    let mut terminal = Terminal::start(&all, USUAL_SIZE)?;
    ensure!(terminal.wait()?.code() == Some(0), "{words}: {}", terminal.screen());
    must_be_tame(&without_own_sequences(&terminal.bytes())?).with_context(|| words.to_owned())
}

fn hostile_file_names_are_tame_in_messages(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let name = OsStr::from_bytes(b"sl\x1b]0;x\x07\xc2\x9b31m\xe2\x80\xae\xff\neep");
    let program = scratch.path().join(name);
    fs::copy("/bin/sleep", &program)?;
    let sleep = Fixture::spawn(&[program.clone().into(), "1000".into()])?;
    let tame = |run: Run| must_be_tame(&run.stderr).and_then(|()| must_be_tame(&run.stdout)).map(|()| run);
    let record = || Profiler::new("record").words(&case.sampler_words());
    tame(Profiler::new("dump").pid(&sleep).fail(&["python"])?)?;
    tame(record().words("-d 1 -o -").pid(&sleep).fail(&["no samples", "native code"])?)?;
    tame(Profiler::new("doctor").pid(&sleep).run()?)?;
    let ended = record().words("-o -").command(&[program.as_os_str(), OsStr::new("0")]);
    let ended = tame(ended.fail(&["python", "no samples", "native code"])?)?;
    // One error, not what the name would like to be a second one.
    let errors = ended.stderr.lines().filter(|line| line.starts_with("error"));

    ensure!(errors.count() == 1, "{}", ended.stderr);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o644))?;
    tame(record().words("-o -").command(&[&program]).fail(&["not executable"])?)?;
    tame(Profiler::new("dump").arg("--core").arg(&program).fail(&["a program"])?)?;
    let nowhere = program.join("out.svg");
    tame(record().arg("-o").arg(&nowhere).pid(&sleep).fail(&["cannot write"])?).map(drop)
}

fn thousand_threads_are_sampled(case: &Case) -> Result<()> {
    const THREADS: u64 = 1000;
    const WORK: Duration = Duration::from_millis(300);
    let Some(target) = ManyThreads::start(case.interpreter, THREADS)? else { return Ok(()) };
    let sampler = case.sampler_words();
    // The in-kernel program knows no thread at first. How much it loses meanwhile is judged by the soak tests.
    let excused: &[&str] = match case.sampler() {
        Sampler::Bpf => &[LATE, "thread not found"],
        _ => &[LATE],
    };
    target.must_be_dumped()?;
    for words in ["-r 1000", "-r 100 -i"] {
        target.must_be_recorded(&format!("{words} {sampler}"), WORK, excused)?;
    }
    target.must_be_shown_by_top(&sampler)
}

fn threads_come_and_go(case: &Case) -> Result<()> {
    let mut fixture = Fixture::start(case.interpreter, CHURN, &["threads"])?;
    must_make_progress(&mut fixture, &format!("-r 200 {}", case.sampler_words()))?;
    must_make_progress(&mut fixture, &format!("-r 200 -i -t {}", case.sampler_words()))
}

fn dumps_survive_threads_that_come_and_go(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, CHURN, &["threads"])?;
    for _ in 0..5 {
        must_dump_or_fail(&fixture)?;
    }
    must_be_free(fixture.pid())
}

fn processes_come_and_go(case: &Case) -> Result<()> {
    let mut fixture = Fixture::start(case.interpreter, CHURN, &["processes"])?;
    must_make_progress(&mut fixture, &format!("-s -r 200 -i {}", case.sampler_words()))?;
    // It waits for each of its children: one that was left stopped would have ended this.
    ensure!(process_state(fixture.pid())? != 't', "left traced");
    Ok(())
}

fn another_thread_gives_pages_back(case: &Case) -> Result<()> {
    let mut fixture = Fixture::start(case.interpreter, CHURN, &["pages"])?;
    must_make_progress(&mut fixture, &format!("-r 500 -i {}", case.sampler_words()))
}

fn terminals_of_any_size_are_survived(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, "labyrinth/labyrinth.py", &[])?;
    for size in [(0, 0), (1, 1), (1, 200), (200, 1), (12, 60)] {
        let mut terminal = top(&fixture, &case.sampler_words(), size)?;
        // It has the terminal for itself, and draws on another screen, before it is asked to end.
        let limit = Instant::now() + Duration::from_secs(30);
        while !terminal.bytes().windows(8).any(|eight| eight == b"\x1b[?1049h") {
            ensure!(Instant::now() < limit, "{size:?}: nothing is drawn");
            std::thread::yield_now();
        }
        for keys in ["2", "3", "4", "5", "?", "x", "\x1b[B", "/a\r", "q"] {
            terminal.press(keys)?;
        }
        let status = terminal.wait().with_context(|| format!("{size:?}"))?;
        ensure!(status.code() == Some(0), "{size:?}: {}", terminal.screen());
        let bytes = terminal.bytes();
        ensure!(!String::from_utf8_lossy(&bytes).contains("panicked"), "{size:?}");
    }
    Ok(())
}

fn doctor_needs_no_reader(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, "labyrinth/labyrinth.py", &[])?;
    let pid = fixture.pid();
    must_need_no_reader(&format!("doctor --pid {pid}"))?;
    must_need_no_reader(&format!("doctor --json --pid {pid}"))
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(too_deep_stack_is_dumped_without_root).on(On::Layouts),
        test!(too_deep_stack_is_recorded_without_root).on(On::Layouts).by(&[Sampler::Pause]),
        test!(recursion_errors_leave_stacks_whole).on(On::Layouts).by(&[Sampler::Pause]),
        test!(top_marks_a_too_deep_stack).by(PAUSE_AND_BPF),
        test!(hostile_names_stay_names_in_stacks).on(On::Layouts).by(&[Sampler::Pause]),
        test!(hostile_names_stay_names_in_dumps).on(On::Layouts),
        test!(hostile_names_leave_files_well_formed).by(&[Sampler::Pause]),
        test!(hostile_names_reach_no_terminal).by(PAUSE_AND_BPF),
        test!(hostile_names_are_tame_in_looks),
        test!(hostile_file_names_are_tame_in_messages).by(PAUSE_AND_BPF),
        test!(thousand_threads_are_sampled).by(PAUSE_AND_BPF),
        test!(threads_come_and_go).on(On::Layouts).by(ALL_SAMPLERS),
        test!(dumps_survive_threads_that_come_and_go).on(On::Layouts),
        test!(processes_come_and_go).by(ALL_SAMPLERS),
        test!(another_thread_gives_pages_back).by(ALL_SAMPLERS),
        test!(terminals_of_any_size_are_survived).by(&[Sampler::Pause]),
        test!(doctor_needs_no_reader),
    ]
}
