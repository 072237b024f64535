//! Accounts: programs that stand still and report what their objects are, compared with what is read of their
//! memory. `cargo xtask snapshots` stores both, for every interpreter, beside the snapshots of
//! [`crate::snapshot`]: in a folder for each topic the memory that the comparison reads (`ID.pmem`) and the
//! account (`ID.json`).

pub mod asyncio;
pub mod locals;
pub mod numpy_values;
pub mod objects;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use profiler_memory::{PageCopy, ReadMemory, Snapshot};
use profiler_model::RemoteAddr;
use profiler_python::{
    Callers, MAX_DEBUG_OFFSETS_BYTES, Offsets, RawStack, STACK_PAGE_BYTES, Version, offsets_for,
    parse_debug_offsets,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::snapshot::{StoredId, StoredProcess, ids_in};

/// What a program reports of itself.
pub trait Account: Serialize + DeserializeOwned {
    /// The folder of those that are stored.
    const TOPIC: &'static str;

    /// Reads all that the account describes and compares it. Stacks are read from `stacks`: by the page, which is more
    /// than has to be stored.
    ///
    /// # Errors
    /// When anything differs.
    fn check(&self, memory: &impl ReadMemory, stacks: &impl ReadMemory) -> Result<()>;

    /// The thread whose stack is walked, and where to start.
    fn walked(&self) -> Option<&Anchors>;
}

/// Where reading starts, so that the runtime need not be found: that is the business of other tests.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Anchors {
    /// `sys.hexversion`.
    pub hex_version: u64,
    /// `_PyRuntime`; 0 where there is none.
    pub runtime: u64,
    /// The thread states, by the names of their threads.
    pub threads: Vec<(String, u64)>,
}

impl Anchors {
    /// The offsets of the interpreter.
    ///
    /// # Errors
    /// When it does not describe itself as it should.
    pub fn offsets(&self, memory: &impl ReadMemory) -> Result<Offsets> {
        offsets(memory, self.hex_version, self.runtime)
    }

    /// The thread state of the main thread.
    ///
    /// # Errors
    /// When there is none.
    pub fn main_thread(&self) -> Result<RemoteAddr> {
        let main = self.threads.iter().find(|(name, _)| name == "MainThread");
        main.map(|(_, address)| RemoteAddr::new(*address)).context("no main thread")
    }

    /// The stack of the main thread.
    ///
    /// # Errors
    /// When it cannot be walked.
    pub fn main_stack(
        &self,
        memory: &impl ReadMemory,
        stacks: &impl ReadMemory,
        offsets: &Offsets,
    ) -> Result<RawStack> {
        let mut copy = vec![0; offsets.thread.size as usize];
        memory.read(self.main_thread()?, &mut copy)?;
        let mut stack = RawStack::default();
        let mut pages = PageCopy::with_page_bytes(STACK_PAGE_BYTES);
        stack.walk(stacks, &mut pages, &Callers::default(), offsets, &copy)?;
        Ok(stack)
    }
}

/// The offsets of a version, without looking for the runtime.
///
/// # Errors
/// When the version is unknown, or does not describe itself at `runtime` as it should.
pub fn offsets(memory: &impl ReadMemory, hex_version: u64, runtime: u64) -> Result<Offsets> {
    let version = Version::from_hex(hex_version);
    if version.minor < 13 {
        return Ok(offsets_for(version)?);
    }
    let mut bytes = [0; MAX_DEBUG_OFFSETS_BYTES];
    memory.read(RemoteAddr::new(runtime), &mut bytes)?;
    Ok(parse_debug_offsets(&bytes)?)
}

/// An account and the memory that it describes.
#[derive(Clone, Debug)]
pub struct StoredAccount<A> {
    /// The interpreter that ran the program: `3.6.15`, `3.11-debian`.
    pub id: String,
    /// The memory, as far as it is needed.
    pub memory: Snapshot,
    /// The account.
    pub account: A,
}

impl<A: Account> StoredAccount<A> {
    fn folder() -> PathBuf {
        StoredProcess::folder().join(A::TOPIC)
    }

    /// Those that are stored, as labels of test cases (`3.6`, `3.11-debian`) and ids.
    ///
    /// # Panics
    /// When there are none.
    pub fn ids() -> Vec<(String, StoredId)> {
        ids_in(&Self::folder())
    }

    /// Opens the one with this id.
    ///
    /// # Errors
    /// When it is damaged or missing.
    pub fn open(id: &StoredId) -> Result<Self> {
        let path = Self::folder().join(format!("{}.json", id.as_str()));
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let memory = fs::read(path.with_extension("pmem"))?;
        Ok(StoredAccount {
            id: id.as_str().to_owned(),
            memory: Snapshot::from_bytes(&memory)?,
            account: serde_json::from_str(&text).with_context(|| path.display().to_string())?,
        })
    }

    /// Stores it; returns how many bytes the larger of its files has.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn store(&self) -> Result<usize> {
        let folder = Self::folder();
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let memory = self.memory.to_bytes();
        let account = serde_json::to_string(&self.account)? + "\n";
        fs::write(folder.join(format!("{}.pmem", self.id)), &memory)?;
        fs::write(folder.join(format!("{}.json", self.id)), &account)?;
        Ok(memory.len().max(account.len()))
    }

    /// Compares the account with the stored memory.
    ///
    /// # Errors
    /// When anything differs.
    pub fn check(&self) -> Result<()> {
        let memory = self.memory.with_whole_pages();
        self.account.check(&memory, &memory)
    }
}

/// The newest minor version of CPython 3 that is supported.
const NEWEST_MINOR: u32 = 15;

/// Whether accounts of all minor versions from the first one on are stored.
///
/// # Errors
/// When one is not, or a label is no version.
pub fn every_version_is_stored<A: Account>(first: u32) -> Result<()> {
    let stored = minors::<A>()?;
    ensure!(stored == (first..=NEWEST_MINOR).collect::<Vec<_>>(), "stored are 3.x with x in {stored:?}");
    Ok(())
}

/// The minor versions of the stored accounts of a topic, from the labels of their cases.
fn minors<A: Account>() -> Result<Vec<u32>> {
    let minor = |(label, _): (String, StoredId)| {
        let number = label.split(['.', '-']).nth(1).unwrap_or_default();
        number.parse().with_context(|| format!("{label}: expected a version"))
    };
    let minors: Result<Vec<u32>> = StoredAccount::<A>::ids().into_iter().map(minor).collect();
    let mut minors = minors?;
    minors.sort_unstable();
    minors.dedup();
    ensure!(!minors.is_empty(), "no version");
    Ok(minors)
}
