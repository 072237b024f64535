//! `cargo xtask snapshots`: stores snapshots of real processes of every CPython on this machine, on which the
//! crate `python` is tested without processes or privileges.
//!
//! For each interpreter, `program.py` is started and stands still; a survey of it is taken, compared with
//! what the program says of itself, and repeated on what was recorded of its memory. Stored is only memory
//! that the survey needs: nothing else of this machine gets into the repository, and where its interpreters
//! lie is replaced by as many letters. Accounts of objects, variables and tasks are stored beside them: see
//! [`accounts`].

mod accounts;
mod distil;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;

use anyhow::{Context, Result, ensure};
use profiler_memory::{ReadMemory, Recorder, Snapshot};
use profiler_model::{NsTid, Pid, RemoteAddr};
use profiler_os::{Mapping, Process, ProcessMemory};
use profiler_python::{Module, Offsets, find, interpreters as interpreters_of, thread_states};
use profiler_tests::snapshot::{About, LoadedModule, StoredModule, StoredProcess};
use profiler_tests::survey::{Survey, SurveyedFrame, survey, survey_apart};
use profiler_tests::{Fixture, Interpreter, interpreters, wait_until_still};
use serde::Deserialize;

const PROGRAM: &str = include_str!("program.py");

/// What a snapshot should stay below, to be kept in the repository without a second thought.
const MAX_STORED_BYTES: usize = 60 << 10;

/// A stack has fewer frames than this: the program recurses some sixty deep.
const MAX_PROGRAM_FRAMES: usize = 1000;

/// A frame as the program says it is: function, file, first line and position.
type ToldFrame = (String, String, u32, [Option<u32>; 4]);

/// What the program says of itself.
#[derive(Deserialize)]
struct Account {
    /// Where its interpreter is installed.
    prefix: String,
    /// Such as `3.6.15`.
    version: String,
    /// The stacks of all threads but the one that says this.
    stacks: HashMap<u64, Vec<ToldFrame>>,
    names: HashMap<u64, String>,
    /// The thread that says this, and then holds the GIL.
    describer: u64,
    interpreters: usize,
}

/// Makes all snapshots and accounts anew, or only one kind: `surveys` or `accounts`.
pub fn run(arguments: &[String]) -> Result<()> {
    match arguments {
        [] => surveys().and_then(|()| accounts::run()),
        [kind] if kind == "surveys" => surveys(),
        [kind] if kind == "accounts" => accounts::run(),
        _ => anyhow::bail!("expected `surveys`, `accounts` or nothing"),
    }
}

fn surveys() -> Result<()> {
    for interpreter in interpreters() {
        let bytes = make(interpreter).with_context(|| interpreter.id.clone())?;
        println!("{}: {bytes} bytes", interpreter.id);
    }
    Ok(())
}

fn make(interpreter: &Interpreter) -> Result<usize> {
    let mut fixture = Fixture::inline(interpreter, PROGRAM)?;
    let pid = fixture.pid();
    wait_until_still(pid)?;
    let account: Account = serde_json::from_str(&fixture.ask("describe")?)?;
    wait_until_still(pid)?;
    fixture.ask("hold")?;
    wait_until_still(pid)?;

    let process = Process::new(Pid::new(pid));
    let memory = ProcessMemory::new(Pid::new(pid));
    let alive: HashSet<NsTid> = process.threads()?.into_iter().map(|tid| NsTid::new(tid.as_u32())).collect();
    let modules = modules(&process, &account.version)?;
    let loaded: Vec<LoadedModule> = modules.iter().map(StoredModule::load).collect::<Result<_>>()?;
    let places: Vec<Module<'_>> = loaded.iter().map(LoadedModule::as_module).collect();
    let recorder = Recorder::new(&memory);
    let seen = survey_apart(&places, &recorder, &memory, &alive)?;
    agrees(&seen, &account)?;
    keep_frames(&recorder, &places)?;

    let root = interpreter.root().map_or(Ok(String::new()), |root| -> Result<String> {
        Ok(fs::canonicalize(root)?.display().to_string())
    })?;
    let mut stored = StoredProcess {
        id: interpreter.id.clone(),
        memory: recorder.into_snapshot(),
        about: About { modules, alive: alive.into_iter().map(NsTid::as_u32).collect(), survey: seen },
    };
    stored.about.alive.sort_unstable();
    neutralise(&mut stored, &root, &account.prefix)?;
    let again = survey(&places, &stored.memory.with_whole_pages(), &stored.alive())?;
    ensure!(again == stored.about.survey, "the snapshot does not give what the process gave");
    let bytes = stored.store()?;
    ensure!(bytes <= MAX_STORED_BYTES, "{bytes} bytes are more than a snapshot should have");
    Ok(bytes)
}

/// The files that may hold the runtime: the executable, and what is called Python.
fn modules(process: &Process, version: &str) -> Result<Vec<StoredModule>> {
    let executable = process.executable()?.to_string_lossy().into_owned();
    let mut files: BTreeMap<(bool, String), Vec<Mapping>> = BTreeMap::new();
    for mapping in process.mappings()? {
        let name = mapping.path.rsplit('/').next().unwrap_or_default();
        if mapping.path == executable || name.starts_with("libpython3.") {
            let key = (mapping.path != executable, mapping.path.clone());
            files.entry(key).or_default().push(mapping);
        }
    }
    let module = |((_, path), mappings): ((bool, String), Vec<Mapping>)| {
        let file = fs::read(&path).with_context(|| path.clone())?;
        let distilled = distil::distil(&file, version)?;
        Ok(StoredModule {
            path,
            file: distilled.iter().map(|byte| format!("{byte:02x}")).collect(),
            mappings: mappings.iter().map(stored_mapping).collect(),
        })
    };
    files.into_iter().map(module).collect()
}

fn stored_mapping(mapping: &Mapping) -> (u64, u64, u64, String) {
    let letters = [(mapping.readable, 'r'), (mapping.writable, 'w'), (mapping.executable, 'x')];
    let letters = letters.into_iter().filter_map(|(is, letter)| is.then_some(letter)).collect();
    (mapping.start.as_u64(), mapping.end.as_u64(), mapping.file_offset, letters)
}

/// Whether what was read is what the program says, for all threads that it speaks of.
fn agrees(seen: &Survey, account: &Account) -> Result<()> {
    ensure!(seen.interpreters.len() == account.interpreters, "{} interpreters", seen.interpreters.len());
    let threads = seen.threads();
    for (ident, stack) in &account.stacks {
        let frames = &threads.get(ident).with_context(|| format!("no thread {ident}"))?.frames;
        let frames = frames.as_ref().map_err(|reason| anyhow::anyhow!("thread {ident}: {reason}"))?;
        let frames: Vec<_> = frames.iter().map(as_in_account).collect();
        ensure!(frames == *stack, "the stack is read as\n{frames:?}\n, the program says\n{stack:?}");
    }
    let idle = threads.len() - account.stacks.len();
    ensure!(idle == account.interpreters, "{idle} threads beside the ones that the program speaks of");
    for (ident, name) in &account.names {
        let read = threads.get(ident).and_then(|thread| thread.name.as_ref());
        ensure!(read == Some(name), "thread {name:?} is called {read:?}");
    }
    let holders: Vec<u64> =
        threads.values().filter(|thread| thread.holds_gil).map(|thread| thread.pthread_id).collect();
    ensure!(holders == [account.describer], "the GIL is held by {holders:?}");
    Ok(())
}

fn as_in_account(frame: &SurveyedFrame) -> ToldFrame {
    (frame.function.clone(), frame.file.clone(), frame.first_line.unwrap_or(0), frame.position)
}

/// Reads all frames once more through the recorder, each by itself: the walk reads them by the page, with all
/// that lies around them.
fn keep_frames<M: ReadMemory>(recorder: &Recorder<M>, modules: &[Module<'_>]) -> Result<()> {
    let runtime = find(modules, recorder)?;
    let offsets = &runtime.offsets;
    for interpreter in interpreters_of(recorder, &runtime)? {
        for thread in thread_states(recorder, offsets, &interpreter)? {
            keep_stack(recorder, offsets, thread.address)?;
        }
    }
    Ok(())
}

fn keep_stack<M: ReadMemory>(recorder: &Recorder<M>, offsets: &Offsets, thread: RemoteAddr) -> Result<()> {
    let root = offsets.thread.base_frame.map(|field| recorder.field(thread, field)).transpose()?;
    let mut at = recorder.field(thread, offsets.thread.frame)?;
    if let Some(current) = offsets.thread.cframe_current_frame.filter(|_| !at.is_null()) {
        at = recorder.field(at, current)?;
    }
    let mut frame = vec![0; offsets.frame.size as usize];
    for _ in 0..MAX_PROGRAM_FRAMES {
        if at.is_null() || Some(at) == root {
            return Ok(());
        }
        recorder.read(at, &mut frame)?;
        at = offsets.frame.previous.get(&frame).unwrap_or_default();
    }
    anyhow::bail!("a stack without an end")
}

/// Replaces the names of folders of this machine by letters, as many as they have.
fn neutralise(stored: &mut StoredProcess, root: &str, prefix: &str) -> Result<()> {
    for module in &mut stored.about.modules {
        module.path = module.path.strip_prefix(root).unwrap_or(&module.path).to_owned();
    }
    if prefix == "/usr" {
        return Ok(());
    }
    let about = serde_json::to_string(&stored.about)?;
    stored.about = serde_json::from_str(&about.replace(prefix, &neutral(prefix)))?;
    overwrite_all(&mut stored.memory, prefix);
    Ok(())
}

/// As many letters as the name of a folder has.
fn neutral(folder: &str) -> String {
    format!("/{}", "x".repeat(folder.len() - 1))
}

fn overwrite_all(memory: &mut Snapshot, folder: &str) {
    for at in places(memory, folder.as_bytes()) {
        memory.overwrite(at, neutral(folder).as_bytes());
    }
}

fn places(memory: &Snapshot, text: &[u8]) -> Vec<RemoteAddr> {
    let in_range = |(start, bytes): (RemoteAddr, &[u8])| {
        let windows = (0u64..).zip(bytes.windows(text.len()));
        let found = windows.filter(|(_, window)| *window == text).map(|(at, _)| start.offset(at));
        found.collect::<Vec<_>>()
    };
    memory.ranges().flat_map(in_range).collect()
}
