//! Hostile targets: stacks without end, names that are no text, ten thousand threads, and threads and processes
//! that live a millisecond. What changes its memory map, closed streams and broken pipes are in `rough`, core
//! files that are cut short in `core`. Recordings name their sampler where they count frames or instants: the
//! in-kernel one cuts stacks and names sooner.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    Collapsed, Fixture, Interpreter, Profiler, Run, Scratch, Terminal, USUAL_SIZE, dumped_json, dumped_text,
    every_interpreter_side_by_side, missing, one_interpreter, process_state, profiler_path, state_of,
    tracer_of,
};
use serde_json::Value;

const NAMES: &str = "hostile/names.py";
const RECURSION: &str = "hostile/recursion.py";
const CHURN: &str = "hostile/churn.py";

/// The most frames that are shown of a stack, see `profiler_python::MAX_FRAMES`.
const MOST_FRAMES: usize = 4096;

/// How far a recording got along, by its ledger.
struct Ledger {
    attempts: u64,
    shown: u64,
    lost: u64,
    /// Instants for which a busy machine had no time.
    late: u64,
}

/// The ledger of a speedscope file. Its sum must be right.
fn ledger_of(file: &Value) -> Result<Ledger> {
    let ledger = &file["ledger"];
    let number = |name: &str| ledger[name].as_u64().with_context(|| format!("no {name} in {ledger}"));
    let reasons = ledger["lost"].as_object().context("no reasons")?;
    let lost = reasons.values().filter_map(Value::as_u64).sum();
    let late = reasons.get("sampler late").and_then(Value::as_u64).unwrap_or(0);
    let found = Ledger { attempts: number("attempts")?, shown: number("shown")?, lost, late };
    let sum = found.shown + number("not_asked_for")? + lost;
    ensure!(found.attempts == sum, "the ledger does not add up: {ledger}");
    Ok(found)
}

/// Records a fixture for so long and reads the speedscope file.
fn recorded(fixture: &Fixture, words: &str) -> Result<(Run, Value)> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.json");
    let run = Profiler::new("record").words("-f speedscope").words(words).arg("-o").arg(&file);
    let run = run.pid(fixture).succeed()?;
    Ok((run, serde_json::from_slice(&fs::read(&file)?)?))
}

/// No thread of the process is left stopped or traced.
fn must_be_free(pid: u32) -> Result<()> {
    ensure!(tracer_of(pid)? == 0, "still traced");
    for entry in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let tid = entry.file_name().to_string_lossy().parse()?;
        // One that has ended meanwhile has no state.
        let state = state_of(pid, tid).unwrap_or('X');
        ensure!(!"tT".contains(state), "thread {tid} is left in state {state}");
    }
    Ok(())
}

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

fn a_stack_that_is_too_deep_is_cut_at_its_root_and_says_so() {
    every_interpreter_side_by_side(|interpreter| {
        let fixture = Fixture::start(interpreter, RECURSION, &["still"])?;
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
        let run = Profiler::new("record")
            .words("--sampler pause -i -f raw -r 100 -d 0.2 -o -")
            .pid(&fixture)
            .succeed()?;
        let profile = Collapsed::parse(&run.stdout)?;
        let deep = profile.stacks.iter().find(|stack| stack.contains("arrive")).context("not recorded")?;
        let names: Vec<&str> = deep.frames.iter().map(|frame| frame.plain_name()).collect();
        must_be_recursion(&names)?;
        ensure!(names.len() == MOST_FRAMES + 1, "{} frames", names.len());
        Ok(())
    });
}

fn recursion_errors_that_are_raised_again_and_again() {
    every_interpreter_side_by_side(|interpreter| {
        let fixture = Fixture::start(interpreter, RECURSION, &["loop"])?;
        let run = Profiler::new("record")
            .words("--sampler pause -f raw -r 100 -d 0.4 -o -")
            .pid(&fixture)
            .succeed()?;
        let profile = Collapsed::parse(&run.stdout)?;
        let mut most = 0;
        for stack in &profile.stacks {
            let names: Vec<&str> = stack.frames.iter().map(|frame| frame.plain_name()).collect();
            must_be_recursion(&names)?;
            most = most.max(names.len());
        }
        ensure!(most > MOST_FRAMES / 4, "no deep stack among {}: {}", profile.stacks.len(), run.stderr);
        must_be_free(fixture.pid())
    });
}

fn top_shows_a_stack_that_is_too_deep() {
    let fixture = Fixture::start(one_interpreter(), RECURSION, &["loop"]).unwrap();
    let mut terminal = top(&fixture, USUAL_SIZE).unwrap();
    terminal.wait_for_text("even").unwrap();
    terminal.press_for("4", "<truncated>").unwrap();
    terminal.press_for("5", "<truncated>").unwrap();
    terminal.press("q").unwrap();
    assert_eq!(terminal.wait().unwrap().code(), Some(0));
}

fn top(fixture: &Fixture, size: (u16, u16)) -> Result<Terminal> {
    let words = format!("top --delay 0.3 --pid {}", fixture.pid());
    let words = words.split_whitespace().map(OsString::from);
    let words: Vec<OsString> = std::iter::once(profiler_path().into()).chain(words).collect();
    Terminal::start(&words, size)
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

fn hostile_names_stay_names_in_stacks_and_dumps() {
    every_interpreter_side_by_side(|interpreter| {
        let mut fixture = names_fixture(interpreter)?;
        let names = hostile_names(&mut fixture)?;
        let run = Profiler::new("record")
            .words("--sampler pause -i -s -t -f raw -r 100 -d 0.3 -o -")
            .pid(&fixture)
            .succeed()?;
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
        must_be_the_chain(&frames, &names)?;

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
    });
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

fn hostile_names_leave_files_well_formed() {
    let scratch = Scratch::new().unwrap();
    let mut fixture = names_fixture(one_interpreter()).unwrap();
    let names = hostile_names(&mut fixture).unwrap();
    let write = |format: &str| {
        let file = scratch.file(&format!("out \u{1b}]0;x\u{7}.{format}"));
        let run = Profiler::new("record")
            .words("--sampler pause -t -r 100 -d 0.3 -f")
            .arg(format)
            .arg("-o")
            .arg(&file);
        let run = run.pid(&fixture).succeed().unwrap();
        must_be_tame(&run.stderr).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        must_be_tame(&text.replace('\t', " ")).context(format.to_owned()).unwrap();
        (file, text)
    };
    let (svg, _) = write("flamegraph");
    let titles: Vec<String> = titles(&svg).unwrap().iter().map(|title| unescaped(title).unwrap()).collect();
    for name in &names {
        assert!(titles.iter().any(|title| title.starts_with(&format!("{name} ("))), "{name:?}: {titles:?}");
    }
    let (_, speedscope) = write("speedscope");
    let speedscope: Value = serde_json::from_str(&speedscope).unwrap();
    let frames = speedscope["shared"]["frames"].as_array().unwrap();
    let shown: BTreeSet<&str> = frames.iter().filter_map(|frame| frame["name"].as_str()).collect();
    assert!(names.iter().all(|name| shown.contains(name.as_str())), "{shown:?}");
    let (_, trace) = write("chrometrace");
    let trace: Vec<Value> = serde_json::from_str(&trace).unwrap();
    let shown: BTreeSet<&str> = trace.iter().filter_map(|event| event["name"].as_str()).collect();
    assert!(names.iter().all(|name| shown.contains(name.as_str())), "{shown:?}");
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

fn hostile_names_reach_no_terminal() {
    let fixture = names_fixture(one_interpreter()).unwrap();
    let mut terminal = top(&fixture, (50, 160)).unwrap();
    terminal.wait_for_text(r"title \u{1b}]0;owned\u{7}").unwrap();
    terminal.press_for("2", " line ").unwrap();
    terminal.press_for("3", "clipboard ").unwrap();
    terminal.press_for("4", r"line\nbreak").unwrap();
    terminal.press_for("5", r"line\nbreak").unwrap();
    terminal.press("q").unwrap();
    assert_eq!(terminal.wait().unwrap().code(), Some(0));
    must_be_tame(&without_own_sequences(&terminal.bytes()).unwrap()).unwrap();

    let scratch = Scratch::new().unwrap();
    let file = scratch.file("out \u{1b}]0;x\u{7}.svg");
    for words in [
        format!("record -s -t -d 0.5 --pid {} -o", fixture.pid()),
        format!("doctor --pid {}", fixture.pid()),
        format!("dump -s --locals --pid {}", fixture.pid()),
    ] {
        let is_record = words.starts_with("record");
        let words = words.split_whitespace().map(OsString::from);
        let words = std::iter::once(profiler_path().into()).chain(words);
        let words: Vec<OsString> = words.chain(is_record.then(|| file.clone().into())).collect();
        let mut terminal = Terminal::start(&words, USUAL_SIZE).unwrap();
        assert_eq!(terminal.wait().unwrap().code(), Some(0), "{}", terminal.screen());
        must_be_tame(&without_own_sequences(&terminal.bytes()).unwrap()).unwrap();
    }
    let json = Profiler::new("doctor").words("--json").pid(&fixture).succeed().unwrap().stdout;
    must_be_tame(&json).unwrap();
    let _: Value = serde_json::from_str(&json).unwrap();
}

fn hostile_names_of_programs_and_files_in_messages() {
    let scratch = Scratch::new().unwrap();
    let name = OsStr::from_bytes(b"sl\x1b]0;x\x07\xc2\x9b31m\xe2\x80\xae\xff\neep");
    let program = scratch.path().join(name);
    fs::copy("/bin/sleep", &program).unwrap();
    let sleep = Fixture::spawn(&[program.clone().into(), "1000".into()]).unwrap();
    let tame = |run: Run| {
        must_be_tame(&run.stderr).and_then(|()| must_be_tame(&run.stdout)).unwrap();
        run
    };
    tame(Profiler::new("dump").pid(&sleep).fail(&["python"]).unwrap());
    tame(Profiler::new("record").words("-d 1 -o -").pid(&sleep).fail(&["python"]).unwrap());
    tame(Profiler::new("doctor").pid(&sleep).run().unwrap());
    let ended = Profiler::new("record").words("-o -").command(&[program.as_os_str(), OsStr::new("0")]);
    let ended = tame(ended.fail(&["python"]).unwrap());
    // One error, not what the name would like to be a second one.
    assert_eq!(
        ended.stderr.lines().filter(|line| !line.starts_with("  try: ")).count(),
        1,
        "{}",
        ended.stderr
    );
    fs::set_permissions(&program, fs::Permissions::from_mode(0o644)).unwrap();
    tame(Profiler::new("record").words("-o -").command(&[&program]).fail(&["not executable"]).unwrap());
    tame(Profiler::new("dump").arg("--core").arg(&program).fail(&["a program"]).unwrap());
    let nowhere = program.join("out.svg");
    tame(Profiler::new("record").arg("-o").arg(&nowhere).pid(&sleep).fail(&["cannot write"]).unwrap());
}

/// How many of `what` a line of the closing ledger tells: `... 1,234 times, ...`.
fn told(stderr: &str, what: &str) -> u64 {
    let before = stderr.split_once(what).map_or("", |(before, _)| before);
    let digits = before.rsplit(' ').next().unwrap_or_default().replace(',', "");
    digits.parse().unwrap_or_default()
}

fn ten_thousand_threads() {
    let mut fixture = Fixture::start(one_interpreter(), "hostile/many_threads.py", &[]).unwrap();
    let threads: u64 = fixture.ask("").unwrap().parse().unwrap();
    if threads < 10_000 {
        return missing(&format!("ten thousand threads: only {threads} may be started here"));
    }
    let all = threads + 1;
    let dump = Profiler::new("dump").words("--json").pid(&fixture).succeed().unwrap();
    let dumped = dumped_json(&dump.stdout).unwrap();
    assert_eq!(dumped.len() as u64, all);
    assert_eq!(dumped.iter().filter(|thread| thread.frames.is_empty()).count(), 0);
    assert_eq!(dumped.iter().filter(|thread| thread.owns_gil).count(), 1);
    must_be_free(fixture.pid()).unwrap();

    for words in
        ["-r 100 -d 2 --sampler pause", "-r 100 -d 2 --sampler pause -i", "-r 100 -d 1 -i --nonblocking"]
    {
        let (run, file) = recorded(&fixture, words).unwrap();
        let ledger = ledger_of(&file).unwrap();
        assert!(
            ledger.shown > 0 && ledger.lost - ledger.late < ledger.attempts / 100,
            "{words}: {}",
            run.stderr
        );
        must_be_free(fixture.pid()).unwrap();
        // A thread has an entry in the roster, one in the profile, its name and at most two open files; what
        // is copied at once is bounded by 256 threads. The binary itself takes eight megabytes.
        let megabytes = told(&run.stderr, " MB;");
        assert!((1..=8 + all / 1000 * 10).contains(&megabytes), "{megabytes} MB\n{}", run.stderr);
        if words.ends_with("-i") {
            // Everything is new at the first look, which is not one long stop.
            let looks = (ledger.attempts - ledger.lost) / all;
            let instants = told(&run.stderr, " times,") + told(&run.stderr, " instants needed no stop");
            assert!(instants >= looks + all / 256, "{instants} instants at {looks} looks\n{}", run.stderr);
        }
    }

    let mut terminal = top(&fixture, USUAL_SIZE).unwrap();
    terminal.wait_for_text("work").unwrap();
    terminal.press_for("3", "MainThread").unwrap();
    terminal.press("q").unwrap();
    assert_eq!(terminal.wait().unwrap().code(), Some(0));
    must_be_free(fixture.pid()).unwrap();
}

/// What a fixture makes new while it is recorded, at least.
const NEW_ONES: u64 = 25;

/// A fixture that has not made them after this time does not get on.
const LONGEST_ROUND: Duration = Duration::from_secs(60);

/// A recording of a fixture that makes new things all the time and must get on with it: it lasts until there were
/// enough of them, and for a while of the fixture's work.
fn must_get_on(fixture: &mut Fixture, words: &str) -> Result<Ledger> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.json");
    let record = Profiler::new("record").words("-f speedscope").words(words).arg("-o").arg(&file);
    let mut running = record.pid(fixture).spawn()?;
    running.wait_until_sampling()?;
    let before: u64 = fixture.ask("")?.parse()?;
    fixture.work_for(Duration::from_millis(200))?;
    let limit = Instant::now() + LONGEST_ROUND;
    while fixture.ask("")?.parse::<u64>()? < before + NEW_ONES {
        ensure!(Instant::now() < limit, "{words}: the fixture does not get on");
        std::thread::sleep(Duration::from_millis(1));
    }
    running.signal(Signal::SIGINT)?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{words}: {run:?}");
    let ledger = ledger_of(&serde_json::from_slice(&fs::read(&file)?)?)?;
    ensure!(ledger.shown > 0, "{words}: {}", run.stderr);
    must_be_free(fixture.pid())?;
    Ok(ledger)
}

fn threads_that_come_and_go_without_end() {
    for interpreter in
        profiler_tests::interpreters().iter().filter(|one| [6, 10, 12, 14].contains(&one.minor))
    {
        let mut fixture = Fixture::start(interpreter, CHURN, &["threads"]).unwrap();
        for words in ["-r 200", "-r 200 -i -t", "-r 200 -i --nonblocking"] {
            must_get_on(&mut fixture, words).context(interpreter.id.clone()).unwrap();
        }
        for _ in 0..5 {
            let run = Profiler::new("dump").words("--json").pid(&fixture).run().unwrap();
            assert!(matches!(run.code(), Some(0 | 1)) && !run.stderr.contains("panicked"), "{run:?}");
            dumped_json(&run.stdout).with_context(|| run.stderr.clone()).unwrap();
        }
        must_be_free(fixture.pid()).unwrap();
    }
}

fn processes_that_come_and_go_without_end() {
    let mut fixture = Fixture::start(one_interpreter(), CHURN, &["processes"]).unwrap();
    for words in ["-s -r 200", "-s -r 200 -i --nonblocking"] {
        must_get_on(&mut fixture, words).unwrap();
    }
    // It waits for each of its children, so one that was left stopped would have ended this.
    assert_ne!(process_state(fixture.pid()).unwrap(), 't');
}

fn pages_that_are_given_back_by_another_thread() {
    let mut fixture = Fixture::start(one_interpreter(), CHURN, &["pages"]).unwrap();
    must_get_on(&mut fixture, "-r 500").unwrap();
    must_get_on(&mut fixture, "-r 500 -i --nonblocking").unwrap();
}

fn terminals_of_any_size() {
    let fixture = Fixture::start(one_interpreter(), "labyrinth/labyrinth.py", &[]).unwrap();
    for size in [(0, 0), (1, 1), (1, 200), (200, 1), (12, 60)] {
        let mut terminal = top(&fixture, size).unwrap();
        // It has the terminal for itself, and draws on another screen, before it is asked to end.
        let limit = Instant::now() + Duration::from_secs(30);
        while !terminal.bytes().windows(8).any(|eight| eight == b"\x1b[?1049h") {
            assert!(Instant::now() < limit, "{size:?}: nothing is drawn");
            std::thread::yield_now();
        }
        for keys in ["2", "3", "4", "5", "?", "x", "\x1b[B", "/a\r", "q"] {
            terminal.press(keys).unwrap();
        }
        let status = terminal.wait().context(format!("{size:?}")).unwrap();
        assert_eq!(status.code(), Some(0), "{size:?}: {}", terminal.screen());
        let bytes = terminal.bytes();
        assert!(!String::from_utf8_lossy(&bytes).contains("panicked"), "{size:?}");
    }
}

/// Runs a line of shell that calls the profiler `"$0"`; returns what went to stderr.
fn shell(script: &str) -> String {
    let mut command = Command::new("sh");
    let output =
        command.arg("-c").arg(script).arg(profiler_path()).stdin(Stdio::null()).output().expect("sh");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{script}: {said}");
    said
}

fn what_is_printed_once_needs_no_reader() {
    let fixture = Fixture::start(one_interpreter(), "labyrinth/labyrinth.py", &[]).unwrap();
    let pid = fixture.pid();
    let of_doctor = [format!("doctor --pid {pid}"), format!("doctor --json --pid {pid}")];
    let others = ["completions bash", "man", "--help", "record --help", "--version"];
    for words in of_doctor.iter().map(String::as_str).chain(others) {
        for trap in ["", "trap '' PIPE; "] {
            let run = |ending: &str| shell(&format!("{trap}\"$0\" {words} {ending}; echo status $? >&2"));
            for ending in [">&-", "<&- >&-"] {
                assert!(run(ending).contains("status 0"), "{words} {ending}: {}", run(ending));
            }
            let piped = shell(&format!("{trap}{{ \"$0\" {words}; echo status $? >&2; }} | head -0"));
            assert!(piped.contains("status 0"), "{words}: {piped}");
            let full = run(">/dev/full");
            let is_told = full.contains("status 1") && full.contains("No space left on device");
            assert!(is_told || words.ends_with("--help") || words == "--version", "{words}: {full}");
        }
    }
    for ending in ["<&-", ">&-", ">/dev/null", "| cat"] {
        let said = shell(&format!("\"$0\" top --pid {pid} {ending}"));
        assert!(said.contains("top needs a terminal"), "{ending}: {said}");
    }
    assert!(shell(&format!("\"$0\" top --pid {pid} <&- >&- 2>&-")).is_empty());
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(a_stack_that_is_too_deep_is_cut_at_its_root_and_says_so),
        test!(recursion_errors_that_are_raised_again_and_again),
        test!(top_shows_a_stack_that_is_too_deep),
        test!(hostile_names_stay_names_in_stacks_and_dumps),
        test!(hostile_names_leave_files_well_formed),
        test!(hostile_names_reach_no_terminal),
        test!(hostile_names_of_programs_and_files_in_messages),
        test!(ten_thousand_threads),
        test!(threads_that_come_and_go_without_end),
        test!(processes_that_come_and_go_without_end),
        test!(pages_that_are_given_back_by_another_thread),
        test!(terminals_of_any_size),
        test!(what_is_printed_once_needs_no_reader),
    ]
}
