//! Strings, code objects and thread names, read from outside in a live process, are what the process itself
//! says they are, on every version.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use profiler_memory::ReadMemory;
use profiler_model::{Pid, RemoteAddr};
use profiler_os::ProcessMemory;
use profiler_python::{
    CodeHead, CodeObject, MAX_DEBUG_OFFSETS_BYTES, Offsets, Version, code_type, offsets_for,
    parse_debug_offsets, read_string, thread_names,
};
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{Interpreter, every_interpreter};

const SCRIPT: &str = include_str!("../../data/known_objects.py");

/// What the process says of itself.
#[derive(serde::Deserialize)]
struct Described {
    hex_version: u64,
    interpreter: u64,
    runtime: u64,
    code_type: u64,
    strings: Vec<(u64, String)>,
    codes: Vec<(u64, String, Option<String>, String, u32)>,
    threads: HashMap<u64, String>,
}

/// The offsets, without looking for the runtime: finding it is another test's business.
fn offsets(memory: &ProcessMemory, described: &Described) -> Result<Offsets> {
    let version = Version::from_hex(described.hex_version);
    if version.minor < 13 {
        return Ok(offsets_for(version)?);
    }
    let mut bytes = [0; MAX_DEBUG_OFFSETS_BYTES];
    memory.read(RemoteAddr::new(described.runtime), &mut bytes)?;
    Ok(parse_debug_offsets(&bytes)?)
}

fn check_strings(memory: &ProcessMemory, offsets: &Offsets, described: &Described) -> Result<()> {
    for (address, text) in &described.strings {
        let read = read_string(memory, offsets, RemoteAddr::new(*address))?;
        ensure!(read == *text, "the string {text:?} is read as {read:?}");
    }
    Ok(())
}

fn check_codes(memory: &ProcessMemory, offsets: &Offsets, described: &Described) -> Result<()> {
    for (address, name, qualified_name, file, first_line) in &described.codes {
        let address = RemoteAddr::new(*address);
        let code = CodeObject::read(memory, offsets, address)?;
        let read = (&*code.name, code.qualified_name.as_deref(), &*code.file, code.first_line);
        let said = (&**name, qualified_name.as_deref(), &**file, Some(*first_line));
        ensure!(read == said, "the code object {said:?} is read as {read:?}");
        let lines = code.line_table.as_ref().context("its line table is not read")?;
        ensure!(lines.position(None).line == Some(*first_line), "{name} starts elsewhere");
        ensure!(lines.position(Some(0)).line.is_some(), "the first instruction of {name} has no line");
        ensure!(CodeHead::read(memory, offsets, address)? == code.head, "the head of {name} changes");
        let found = code_type(memory, offsets, address)?;
        ensure!(found.as_u64() == described.code_type, "the type of code objects is not at {found}");
    }
    let no_code = RemoteAddr::new(described.strings[0].0);
    ensure!(code_type(memory, offsets, no_code).is_err(), "a string passes for a code object");
    Ok(())
}

fn check(memory: &ProcessMemory, answers: &mut BufReader<ChildStdout>) -> Result<()> {
    let mut line = String::new();
    answers.read_line(&mut line)?;
    let described: Described = serde_json::from_str(&line).context("the program did not say where")?;
    let offsets = offsets(memory, &described)?;
    check_strings(memory, &offsets, &described)?;
    check_codes(memory, &offsets, &described)?;
    let names = thread_names(memory, &offsets, RemoteAddr::new(described.interpreter))?;
    ensure!(names.len() > 100, "only {} threads have names", names.len());
    ensure!(names == described.threads, "names {names:?}\n instead of {:?}", described.threads);
    Ok(())
}

fn check_interpreter(interpreter: &Interpreter) -> Result<()> {
    let words = interpreter.inline_words(SCRIPT);
    let mut child = Command::new(&words[0])
        .args(&words[1..])
        .env("PYTHONUTF8", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("the interpreter does not start")?;
    let memory = ProcessMemory::new(Pid::new(child.id()));
    let mut answers = BufReader::new(child.stdout.take().context("no stdout")?);
    let mut go_on = child.stdin.take().context("no stdin")?;
    let usual = check(&memory, &mut answers).context("in the usual situation");
    go_on.write_all(b"\n").context("the program has ended")?;
    let unusual = check(&memory, &mut answers).context("in the unusual situation");
    // Its end of file tells the program to leave.
    drop(go_on);
    let status = child.wait()?;
    usual.and(unusual)?;
    ensure!(status.success(), "the program ended with {status}");
    Ok(())
}

fn strings_code_objects_and_thread_names_are_what_the_process_says() {
    every_interpreter(check_interpreter);
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(strings_code_objects_and_thread_names_are_what_the_process_says)]
}
