//! `dump --locals`: the values of variables are what the program says itself, on every version; and reading
//! them survives memory that lies.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use profiler_memory::{ReadMemory, Recorder};
use profiler_model::{Pid, RemoteAddr};
use profiler_os::ProcessMemory;
use profiler_python::{
    MAX_DEBUG_OFFSETS_BYTES, Offsets, RawFrame, ReprLimits, Values, Version, offsets_for,
    parse_debug_offsets, variables,
};
use profiler_tests::damage::{CHANGE_BYTES, Damage, Limited};
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{Fixture, Profiler, every_interpreter, one_interpreter, wait_until_still};
use serde::Deserialize;

const LOCALS: &str = "locals/locals.py";

/// How often the memory of a process is damaged.
const ROUNDS: u64 = 300;

#[derive(Deserialize)]
struct Thread {
    frames: Vec<DumpedFrame>,
}

#[derive(Deserialize)]
struct DumpedFrame {
    name: String,
    locals: Option<Vec<Local>>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Local {
    name: String,
    addr: u64,
    arg: bool,
    repr: Option<String>,
}

/// A frame as the program says it is: its function, its variables with addresses and values, and where it and
/// its code object are.
type Told = (String, HashMap<String, (u64, String)>, u64, u64);

/// What the program says: its version, where its runtime is, its frames.
type Account = (u64, u64, Vec<Told>);

fn dumped(fixture: &Fixture, words: &str) -> Result<Vec<DumpedFrame>> {
    let json = Profiler::new("dump").words("--json").words(words).pid(fixture).succeed()?.stdout;
    let threads: Vec<Thread> = serde_json::from_str(&json)?;
    threads.into_iter().next().map(|thread| thread.frames).context("no thread")
}

fn told(fixture: &mut Fixture) -> Result<Account> {
    let account = serde_json::from_str(&fixture.ask("")?)?;
    wait_until_still(fixture.pid())?;
    Ok(account)
}

/// Whether a value as shown is the value that the program tells.
fn is_told(shown: &str, told: &str, limit: usize) -> bool {
    if let Some(start) = shown.strip_suffix("...")
        && start.chars().count() == limit
    {
        return told.starts_with(start);
    }
    // A class says of its instances what it wants; the address is compared for itself.
    let is_object = shown.starts_with('<') && told.starts_with('<');
    let is_large = shown.starts_with("<int of up to") && told.len() > 500;
    // Nested deeper than is shown.
    let is_deep = shown.contains("...") && shown.starts_with("[[[[[") && told.starts_with('[');
    shown == told || is_object || is_large || is_deep
}

fn agrees(frame: &DumpedFrame, told: &Told, limit: usize) -> Result<()> {
    ensure!(frame.name.rsplit('.').next() == Some(&told.0), "{} instead of {}", frame.name, told.0);
    let shown = frame.locals.as_ref().with_context(|| format!("no variables of {}", frame.name))?;
    for (name, (address, value)) in &told.1 {
        let local = shown.iter().find(|local| local.name == *name);
        let local = local.with_context(|| format!("{}: no variable {name}", frame.name))?;
        ensure!(local.addr == *address, "{name} is at {:#x}, not at {address:#x}", local.addr);
        let repr = local.repr.as_deref().with_context(|| format!("{name} could not be read"))?;
        ensure!(is_told(repr, value, limit), "{name} is shown as {repr}, the program says {value}");
    }
    ensure!(shown.len() == told.1.len(), "{}: more variables than the program has", frame.name);
    Ok(())
}

fn values_are_what_the_program_says() {
    every_interpreter(|interpreter| {
        let mut fixture = Fixture::start(interpreter, LOCALS, &[])?;
        let (_, _, told) = told(&mut fixture)?;
        ensure!(told.iter().map(|frame| frame.1.len()).sum::<usize>() > 60, "told little: {told:?}");
        for (words, limit) in [("--locals", 128), ("-ll", 256), ("-l --nonblocking", 128)] {
            let frames = dumped(&fixture, words)?;
            ensure!(frames.len() == told.len(), "{} frames, {} told", frames.len(), told.len());
            // The innermost frame and the outermost are not told of.
            for (frame, told) in frames.iter().zip(&told).skip(1).take(told.len() - 2) {
                agrees(frame, told, limit).with_context(|| words.to_owned())?;
            }
        }
        Ok(())
    });
}

fn parameters_are_told_from_other_variables() {
    every_interpreter(|interpreter| {
        let fixture = Fixture::start(interpreter, LOCALS, &[])?;
        let frames = dumped(&fixture, "-l")?;
        let arguments = |function: &str| -> Result<Vec<(&str, bool)>> {
            let frame = frames.iter().find(|frame| frame.name == function).context("not there")?;
            let locals = frame.locals.as_ref().context("no variables")?;
            Ok(locals.iter().map(|local| (&*local.name, local.arg)).collect())
        };
        let takes = arguments("takes")?;
        let all = ["first", "second", "named", "other", "args", "kwargs"].map(|name| (name, true));
        ensure!(takes[..6] == all && takes[6..] == [("after", false)], "{takes:?}");
        let shares = arguments("shares")?;
        // One of them has moved into a cell.
        ensure!(shares.contains(&("parameter", true)) && shares.contains(&("own", false)), "{shares:?}");
        Ok(())
    });
}

fn text_is_laid_out_as_py_spy_does() -> Result<()> {
    let fixture = Fixture::start(one_interpreter(), LOCALS, &[])?;
    let text = Profiler::new("dump").words("-l").pid(&fixture).succeed()?.stdout;
    let expected = ")\n        Arguments:\n            first: 1\n            second: 3\n";
    ensure!(text.contains(expected), "{text}");
    ensure!(text.contains("\n        Locals:\n            after: 1\n    loses (locals.py:"), "{text}");
    // Nothing of a value commands the terminal.
    ensure!(text.chars().all(|char| char == '\n' || !char.is_control()), "{text:?}");
    ensure!(text.contains(r"escape: '\x1b[31mred\x1b[0m'"), "{text}");
    Ok(())
}

fn lines_of_source_with_what_runs_marked() {
    every_interpreter(|interpreter| {
        let fixture = Fixture::start(interpreter, LOCALS, &[])?;
        let text = Profiler::new("dump").words("--source=always").pid(&fixture).succeed()?.stdout;
        let marked = "        return holds()\n               ^^^^^^^\n    main";
        let expected = if interpreter.minor >= 11 { marked } else { "        return holds()\n    main" };
        ensure!(text.contains(expected), "{text}");
        ensure!(text.contains("        stands()\n    loses"), "{text}");
        let plain = Profiler::new("dump").pid(&fixture).succeed()?.stdout;
        ensure!(!plain.contains("sys.stdin"), "not at a terminal: {plain}");
        let frames = dumped(&fixture, "--source")?;
        let source = frames.first().and_then(|frame| frame.source.as_deref());
        ensure!(source == Some("    for _ in sys.stdin:"), "{source:?}");
        Ok(())
    });
}

fn a_running_program_is_read_while_it_stands_still() {
    every_interpreter(|interpreter| {
        // Whenever it is looked at, the list and the number are of the same round, or the frame is between.
        let source = "import os\n\
                      def turn(count):\n    items = [count, count + 1]\n    pair = (count, items)\n    \
                      return pair\n\
                      print('ready', os.getpid(), flush=True)\n\
                      count = 0\nwhile True:\n    turn(count)\n    count += 1\n";
        let fixture = Fixture::inline(interpreter, source)?;
        let mut seen = 0;
        for _ in 0..30 {
            for frame in dumped(&fixture, "-l")?.iter().filter(|frame| frame.name == "turn") {
                let locals = frame.locals.as_ref().context("variables not read")?;
                let value = |name| {
                    let local = locals.iter().find(|local| local.name == name);
                    local.and_then(|local| local.repr.clone())
                };
                let count: u64 = value("count").context("no count")?.parse()?;
                let items = format!("[{count}, {}]", count + 1);
                ensure!(value("items").is_none_or(|value| value == items), "{:?}", value("items"));
                let pair = format!("({count}, {items})");
                ensure!(value("pair").is_none_or(|value| value == pair), "{:?}", value("pair"));
                seen += 1;
            }
        }
        ensure!(seen > 0, "never seen in `turn`");
        Ok(())
    });
}

/// The offsets, without looking for the runtime: finding it is another test's business.
fn offsets(memory: &ProcessMemory, hex_version: u64, runtime: u64) -> Result<Offsets> {
    let version = Version::from_hex(hex_version);
    if version.minor < 13 {
        return Ok(offsets_for(version)?);
    }
    let mut bytes = [0; MAX_DEBUG_OFFSETS_BYTES];
    memory.read(RemoteAddr::new(runtime), &mut bytes)?;
    Ok(parse_debug_offsets(&bytes)?)
}

/// SplitMix64: random numbers that are the same in every run.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*state ^ *state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

/// All variables of all frames, as text; nothing of it may be longer than was asked for.
fn read_all(memory: &impl ReadMemory, offsets: &Offsets, frames: &[Told]) -> Vec<String> {
    let limits = ReprLimits { characters: 128 };
    let values = Values::new(memory, offsets, limits);
    let mut all = Vec::new();
    for (_, _, place, code) in frames {
        let frame =
            RawFrame { code: RemoteAddr::new(*code), instruction: 0, bytecode_copy: 0, is_entry: false };
        for variable in variables(&values, RemoteAddr::new(*place), &frame).unwrap_or_default() {
            let value = variable.value.unwrap_or_default();
            assert!(value.chars().count() <= limits.characters + 3, "{value}");
            all.push(format!("{}: {value}", variable.name));
        }
    }
    all
}

fn memory_that_lies_is_survived() {
    every_interpreter(|interpreter| {
        let mut fixture = Fixture::start(interpreter, LOCALS, &[])?;
        let (hex_version, runtime, frames) = told(&mut fixture)?;
        let memory = ProcessMemory::new(Pid::new(fixture.pid()));
        let offsets = offsets(&memory, hex_version, runtime)?;
        let recorder = Recorder::new(&memory);
        let whole = read_all(&recorder, &offsets, &frames);
        ensure!(whole.len() > 60, "{whole:?}");
        let damage = Damage::of(&recorder.into_snapshot());
        let (mut state, mut unlike) = (u64::from(interpreter.minor), 0);
        for _ in 0..ROUNDS {
            let count = 1 + random(&mut state) % 48;
            let changes: Vec<u8> = std::iter::repeat_with(|| random(&mut state).to_le_bytes())
                .flatten()
                .take(count as usize * CHANGE_BYTES)
                .collect();
            let memory = Limited::new(damage.by(&changes));
            unlike += u64::from(read_all(&memory, &offsets, &frames) != whole);
        }
        // Otherwise the damage would not hit what is read.
        ensure!(unlike > ROUNDS / 2, "only {unlike} of {ROUNDS} are different");
        Ok(())
    });
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(values_are_what_the_program_says),
        test!(parameters_are_told_from_other_variables),
        test!(text_is_laid_out_as_py_spy_does),
        test!(lines_of_source_with_what_runs_marked),
        test!(a_running_program_is_read_while_it_stands_still),
        test!(memory_that_lies_is_survived),
    ]
}
