//! Accounts: the programs of [`profiler_tests::account`] are started and stand still; what they report is compared with
//! what is read of them, and stored with the memory that this took.

use std::collections::HashSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use object::LittleEndian;
use object::read::elf::{ElfFile64, SectionHeader};
use profiler_memory::Recorder;
use profiler_model::Pid;
use profiler_os::{Process, ProcessMemory};
use profiler_python::{
    ASYNCIO_SECTION, Module, find, interpreters as interpreters_of, thread_names, thread_states,
};
use profiler_tests::account::asyncio::AsyncioTree;
use profiler_tests::account::locals::Locals;
use profiler_tests::account::numpy_values::{NumpyValues, Reported};
use profiler_tests::account::objects::{KNOWN_OBJECTS, Objects};
use profiler_tests::account::{Account, Anchors, StoredAccount};
use profiler_tests::snapshot::LoadedModule;
use profiler_tests::{
    Environment, Fixture, Interpreter, cache, fixture_folder, interpreters, wait_until_still,
};

use super::{keep_stack, modules, neutral, overwrite_all};
use crate::run;

/// What each file of a stored account should stay below.
const MAX_STORED_BYTES: usize = 110 << 10;

/// The first minor version whose tasks can be read.
const FIRST_WITH_TASKS: u32 = 14;

/// How many modules the program `known_objects.py` has more than usual: enough for deleted entries and for wider index slots
/// than the smallest. The live test makes more, so that they are wider still.
const MORE_MODULES: &str = "200";

/// An interpreter as it describes itself.
struct Facts {
    version: String,
    hex_version: u64,
    /// The folders that it is installed in.
    folders: Vec<String>,
}

impl Facts {
    fn of(interpreter: &Interpreter) -> Result<Self> {
        let question = "import json, platform, sys\n\
            print(json.dumps([platform.python_version(), sys.hexversion, [sys.prefix, sys.base_prefix]]))";
        let words = interpreter.inline_words(question);
        let answer = run::output(std::process::Command::new(&words[0]).args(&words[1..]))?;
        let (version, hex_version, folders) = serde_json::from_str(&answer)?;
        Ok(Facts { version, hex_version, folders })
    }
}

/// Makes those of all topics anew.
pub fn run() -> Result<()> {
    for interpreter in interpreters() {
        make(interpreter).with_context(|| interpreter.id.clone())?;
    }
    for environment in [Environment::Packages, Environment::Numpy1] {
        let interpreter = environment.interpreter().context("no NumPy: `cargo xtask prepare`")?;
        numpy_values(interpreter).with_context(|| interpreter.id.clone())?;
    }
    Ok(())
}

fn make(interpreter: &Interpreter) -> Result<()> {
    let facts = Facts::of(interpreter)?;
    let mut fixture = Fixture::inline(interpreter, KNOWN_OBJECTS)?;
    let objects: Objects = serde_json::from_str(&fixture.ask(MORE_MODULES)?)?;
    store(&fixture, &facts, &interpreter.id, objects)?;
    let mut fixture = start(interpreter, "locals/locals.py")?;
    let answer = fixture.ask("")?;
    store(&fixture, &facts, &interpreter.id, Locals::new(anchors(&fixture, &facts)?, &answer)?)?;
    if interpreter.minor >= FIRST_WITH_TASKS {
        let fixture = start(interpreter, "asyncio_tree/asyncio_tree.py")?;
        let tree = AsyncioTree::new(anchors(&fixture, &facts)?, description(&fixture)?);
        store(&fixture, &facts, &interpreter.id, tree)?;
    }
    Ok(())
}

/// Those of NumPy bear its version: its interpreter says nothing about them.
fn numpy_values(interpreter: &Interpreter) -> Result<()> {
    let facts = Facts::of(interpreter)?;
    let mut fixture = start(interpreter, "locals/numpy_values.py")?;
    let reported = Reported::parse(&fixture.ask("")?)?;
    let version = reported.version().to_owned();
    store(&fixture, &facts, &version, NumpyValues::new(anchors(&fixture, &facts)?, reported))
}

/// Starts a program of `fixtures/` as text, so that its place is not part of its memory.
fn start(interpreter: &Interpreter, program: &str) -> Result<Fixture> {
    Fixture::inline(interpreter, &fs::read_to_string(fixture_folder().join(program))?)
}

fn anchors(fixture: &Fixture, facts: &Facts) -> Result<Anchors> {
    wait_until_still(fixture.pid())?;
    let process = Process::new(Pid::new(fixture.pid()));
    let memory = ProcessMemory::new(Pid::new(fixture.pid()));
    let loaded: Vec<LoadedModule> =
        modules(&process, &facts.version)?.iter().map(|module| module.load()).collect::<Result<_>>()?;
    let places: Vec<Module<'_>> = loaded.iter().map(LoadedModule::as_module).collect();
    let runtime = find(&places, &memory)?;
    let interpreters = interpreters_of(&memory, &runtime)?;
    let interpreter = interpreters.first().context("no interpreter")?;
    let names = thread_names(&memory, &runtime.offsets, interpreter.address)?;
    let threads = thread_states(&memory, &runtime.offsets, interpreter)?.into_iter().map(|thread| {
        let name = names.get(&thread.pthread_id).cloned();
        // A program that does not use threads has no names.
        (name.unwrap_or_else(|| "MainThread".to_owned()), thread.address.as_u64())
    });
    Ok(Anchors {
        hex_version: facts.hex_version,
        runtime: runtime.main_address.as_u64(),
        threads: threads.collect(),
    })
}

/// The section in which asyncio describes itself, from the file that has it.
fn description(fixture: &Fixture) -> Result<Vec<u8>> {
    let process = Process::new(Pid::new(fixture.pid()));
    let executable = process.executable()?.to_string_lossy().into_owned();
    let mappings = process.mappings()?;
    let is_meant = |path: &str| path.contains("/_asyncio.") || path == executable;
    let files: HashSet<&str> =
        mappings.iter().map(|mapping| &*mapping.path).filter(|path| is_meant(path)).collect();
    for path in files {
        let file = fs::read(path).with_context(|| path.to_owned())?;
        let elf = ElfFile64::<LittleEndian>::parse(&*file)?;
        if let Some((_, section)) = elf.elf_section_table().section_by_name(LittleEndian, ASYNCIO_SECTION) {
            return Ok(section.data(LittleEndian, &*file)?.to_vec());
        }
    }
    anyhow::bail!("asyncio does not describe itself")
}

/// Compares the account with the process, and stores it with what was read of the process for that.
fn store<A: Account>(fixture: &Fixture, facts: &Facts, id: &str, account: A) -> Result<()> {
    wait_until_still(fixture.pid())?;
    let memory = ProcessMemory::new(Pid::new(fixture.pid()));
    let recorder = Recorder::new(&memory);
    account.check(&recorder, &memory).with_context(|| A::TOPIC)?;
    if let Some(anchors) = account.walked() {
        keep_stack(&recorder, &anchors.offsets(&recorder)?, anchors.main_thread()?)?;
    }
    let mut stored = StoredAccount { id: id.to_owned(), memory: recorder.into_snapshot(), account };
    neutralise(&mut stored, facts)?;
    stored.check().context("the stored memory does not give what the process gave")?;
    let bytes = stored.store()?;
    println!("{} {id}: {bytes} bytes", A::TOPIC);
    ensure!(bytes <= MAX_STORED_BYTES, "{bytes} bytes are more than an account should have");
    Ok(())
}

/// Replaces the names of folders of this machine by letters, as many as they have, and makes sure that none is left.
fn neutralise<A: Account>(stored: &mut StoredAccount<A>, facts: &Facts) -> Result<()> {
    for folder in facts.folders.iter().filter(|folder| *folder != "/usr") {
        let account = serde_json::to_string(&stored.account)?;
        stored.account = serde_json::from_str(&account.replace(&**folder, &neutral(folder)))?;
        overwrite_all(&mut stored.memory, folder);
    }
    let account = serde_json::to_string(&stored.account)?;
    let here = [run::workspace().to_path_buf(), cache::folder()];
    for folder in here.iter().map(|folder| folder.display().to_string()) {
        let is_left =
            account.contains(&folder) || !super::places(&stored.memory, folder.as_bytes()).is_empty();
        ensure!(!is_left, "{folder} is part of {} {}", A::TOPIC, stored.id);
    }
    Ok(())
}
