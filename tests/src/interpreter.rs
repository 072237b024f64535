//! The interpreters of the matrix: those of pyenv, the system's own, and those in root folders that
//! `cargo xtask test` has prepared. Each is asked for its version; nothing is known beforehand.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::cache::{self, STAMP};
use crate::{fixture_folder, is_root, missing};

/// A program of some work, so that there is something to see: so much CPU time from here on, however fast the interpreter is.
pub const WORK: &str = "\
import time
def work():
    end = time.process_time() + 0.2
    while time.process_time() < end: pass
work()
";

/// The minor versions of CPython 3 that the matrix must have.
const MINOR_VERSIONS: std::ops::RangeInclusive<u32> = 6..=15;

/// Where the fixtures lie inside a root folder, which cannot see the checkout. Each checkout has its own folder there, as they
/// share the root.
fn fixtures_in_root() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    fixture_folder().hash(&mut hasher);
    Path::new("opt").join(format!("profiler-fixtures-{:016x}", hasher.finish()))
}

/// An interpreter that fixtures run on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Interpreter {
    /// What failures call it: `3.6.15`, `3.11-debian`, `3.14-sid`.
    pub id: String,
    /// The minor version: 6 to 15.
    pub minor: u32,
    /// Whether it was built without a GIL.
    pub free_threaded: bool,
    path: PathBuf,
    root: Option<PathBuf>,
}

impl Interpreter {
    /// The words of a command line that runs the interpreter.
    pub fn words(&self) -> Vec<OsString> {
        match &self.root {
            None => vec![self.path.clone().into()],
            Some(root) => vec!["chroot".into(), root.clone().into(), self.path.clone().into()],
        }
    }

    /// The version in the name of a test case: `3.6`, `3.11-debian`.
    pub fn label(&self) -> String {
        match self.id.split_once('-') {
            Some((_, place)) => format!("{}-{place}", self.short_version()),
            None => self.short_version(),
        }
    }

    fn short_version(&self) -> String {
        format!("3.{}{}", self.minor, if self.free_threaded { "t" } else { "" })
    }

    /// Whether it is the distribution's own, which a second interpreter of the same version may stand beside.
    pub fn is_of_system(&self) -> bool {
        self.path.starts_with("/usr") && self.root.is_none()
    }

    /// The root folder that it lives in, where that is not the machine's own.
    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// The words that run a program of `fixtures/` with these arguments.
    pub fn fixture_words(&self, program: &str, arguments: &[&str]) -> Vec<OsString> {
        let folder = match &self.root {
            None => fixture_folder(),
            Some(_) => Path::new("/").join(fixtures_in_root()),
        };
        let mut words = self.words();
        words.push(folder.join(program).into());
        words.extend(arguments.iter().map(Into::into));
        words
    }

    /// The words that run a program given as text.
    pub fn inline_words(&self, source: &str) -> Vec<OsString> {
        let mut words = self.words();
        words.extend(["-c".into(), source.into()]);
        words
    }

    /// An interpreter at this place, after asking it for its version.
    pub(crate) fn at(path: &Path, root: Option<&Path>, label: Option<&str>) -> Result<Self> {
        let mut interpreter = Interpreter {
            id: String::new(),
            minor: 0,
            free_threaded: false,
            path: path.to_owned(),
            root: root.map(Path::to_owned),
        };
        let question = "import sys; v = sys.version_info; \
                        print(v[0], v[1], v[2], int('free-threading' in sys.version))";
        let words = interpreter.inline_words(question);
        let output = Command::new(&words[0]).args(&words[1..]).output()?;
        ensure!(output.status.success(), "{} does not run", path.display());
        let answer = String::from_utf8(output.stdout)?;
        let numbers: Vec<u32> = answer.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [major, minor, micro, free_threaded] = numbers[..] else { anyhow::bail!("answer {answer:?}") };
        ensure!(major == 3, "Python {major}");
        interpreter.minor = minor;
        interpreter.free_threaded = free_threaded == 1;
        let suffix = if interpreter.free_threaded { "t" } else { "" };
        interpreter.id = match label {
            None => format!("3.{minor}.{micro}{suffix}"),
            Some(label) => format!("3.{minor}{suffix}-{label}"),
        };
        Ok(interpreter)
    }
}

/// The root folder of pyenv, if there is one.
fn pyenv_root() -> Option<PathBuf> {
    if let Some(root) = std::env::var_os("PYENV_ROOT") {
        return Some(root.into());
    }
    if let Ok(output) = Command::new("pyenv").arg("root").output()
        && output.status.success()
    {
        return Some(String::from_utf8_lossy(&output.stdout).trim().into());
    }
    let home = std::env::var_os("HOME")?;
    Some(Path::new(&home).join(".pyenv")).filter(|root| root.is_dir())
}

/// pyenv's interpreters.
fn of_pyenv(found: &mut Vec<Interpreter>) {
    let Some(folder) = pyenv_root().map(|root| root.join("versions")) else { return };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let path = entry.path().join("bin/python");
        // Other implementations and virtual environments have other names.
        if name.to_string_lossy().starts_with("3.")
            && let Ok(interpreter) = Interpreter::at(&path, None, None)
        {
            found.push(interpreter);
        }
    }
}

/// The system's own interpreter: built by a distribution, so stripped, often static.
fn of_system(found: &mut Vec<Interpreter>) {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let distribution = release.lines().find_map(|line| line.strip_prefix("ID=")).unwrap_or("system");
    if let Ok(path) = fs::canonicalize("/usr/bin/python3")
        && let Ok(interpreter) = Interpreter::at(&path, None, Some(distribution.trim_matches('"')))
    {
        found.push(interpreter);
    }
}

/// The folder that holds prepared root folders.
fn roots_folder() -> PathBuf {
    cache::folder().join("roots")
}

/// The interpreters in prepared root folders.
fn of_roots(found: &mut Vec<Interpreter>) {
    for entry in fs::read_dir(roots_folder()).into_iter().flatten().flatten() {
        let root = entry.path();
        // The stamp of `cargo xtask prepare`: without it the folder is half made.
        if !root.join(STAMP).exists() {
            continue;
        }
        if !is_root() {
            missing(&format!("the interpreters in {}: chroot needs root", root.display()));
            continue;
        }
        if let Err(error) = copy_fixtures(&root) {
            missing(&format!("the interpreters in {}: {error:#}", root.display()));
            continue;
        }
        let label = entry.file_name();
        for minor in MINOR_VERSIONS {
            let path = PathBuf::from(format!("/usr/bin/python3.{minor}"));
            if root.join(format!("usr/bin/python3.{minor}")).exists()
                && let Ok(interpreter) = Interpreter::at(&path, Some(&root), label.to_str())
            {
                found.push(interpreter);
            }
        }
    }
}

/// Brings the fixtures into a root folder.
fn copy_fixtures(root: &Path) -> Result<()> {
    for topic in fs::read_dir(fixture_folder())?.flatten().filter(|entry| entry.path().is_dir()) {
        let folder = root.join(fixtures_in_root()).join(topic.file_name());
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        for file in fs::read_dir(topic.path())?.flatten().filter(|entry| entry.path().is_file()) {
            // By way of another name: a test that runs at the same time must not see half a file.
            let half = folder.join(format!(".{}.{}", file.file_name().display(), std::process::id()));
            fs::copy(file.path(), &half)?;
            fs::rename(&half, folder.join(file.file_name()))?;
        }
    }
    Ok(())
}

fn discover() -> Vec<Interpreter> {
    let mut found = Vec::new();
    of_pyenv(&mut found);
    of_system(&mut found);
    of_roots(&mut found);
    found.retain(|interpreter| MINOR_VERSIONS.contains(&interpreter.minor));
    found.sort_by(|a, b| (a.minor, &a.id).cmp(&(b.minor, &b.id)));
    let minors: BTreeSet<u32> = found.iter().map(|interpreter| interpreter.minor).collect();
    for minor in MINOR_VERSIONS.filter(|minor| !minors.contains(minor)) {
        missing(&format!("an interpreter of CPython 3.{minor}"));
    }
    if let Ok(only) = std::env::var("PROFILER_TESTS_ONLY") {
        missing(&format!("all interpreters but {only}, as PROFILER_TESTS_ONLY asks"));
        found.retain(|interpreter| only.split(',').any(|id| id == interpreter.id));
    }
    found
}

/// The variable that names a file with the interpreters, as [`write_list`] writes it. With cargo-nextest each test case is a
/// process of its own, and to ask all interpreters for their versions takes longer than most cases.
pub const LIST_VARIABLE: &str = "PROFILER_TESTS_INTERPRETERS";

/// Finds all interpreters and writes their list to a file.
///
/// # Errors
/// When the file cannot be written.
///
/// # Panics
/// When one of the matrix is missing and skipping is forbidden.
pub fn write_list(file: &Path) -> Result<()> {
    let list = serde_json::to_string_pretty(&discover())?;
    fs::write(file, list).with_context(|| file.display().to_string())
}

fn listed_or_found() -> Vec<Interpreter> {
    let listed = std::env::var_os(LIST_VARIABLE).and_then(|path| fs::read(path).ok());
    listed.and_then(|list| serde_json::from_slice(&list).ok()).unwrap_or_else(discover)
}

/// All interpreters of this machine, oldest first.
///
/// # Panics
/// When one of the matrix is missing and skipping is forbidden.
pub fn interpreters() -> &'static [Interpreter] {
    static FOUND: OnceLock<Vec<Interpreter>> = OnceLock::new();
    FOUND.get_or_init(listed_or_found)
}

/// One interpreter, for tests whose outcome does not depend on its version.
///
/// # Panics
/// When there is none at all.
pub fn one_interpreter() -> &'static Interpreter {
    let all = interpreters();
    let usual = all.iter().filter(|interpreter| interpreter.root.is_none()).max_by_key(|found| found.minor);
    usual.or(all.first()).expect("no interpreter found")
}
