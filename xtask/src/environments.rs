//! The virtual environments in which the scientific fixtures run, in the cache: one with the packages that
//! `fixtures/requirements.txt` pins and the compiled modules of `fixtures/bindings/compiled`, and one with the last NumPy 1,
//! which no other package has to run with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use profiler_tests::cache;

use crate::offsets::{pyenv_root, subfolders};
use crate::prepare::{Options, once};
use crate::run;

/// The CPython of the environment: the book's, and one that all packages have binary wheels for.
const PYTHON: &str = "3.12";

/// The packages, pinned.
const REQUIREMENTS: &str = "fixtures/requirements.txt";

/// The only package of the other environment, pinned.
const NUMPY_1: &str = "fixtures/requirements-numpy-1.txt";

/// Web servers, pinned.
const SERVERS: &str = "fixtures/requirements-servers.txt";

/// The sources of the compiled modules, and the program that builds them.
const BINDINGS: &str = "fixtures/bindings/compiled";

/// How long pip waits for an answer, and how often it asks: without a network it must give up soon.
const PIP_PATIENCE: [&str; 4] = ["--timeout", "20", "--retries", "2"];

/// Makes the environments and the compiled modules, unless they are there, whole, and made of the same.
pub fn scientific(options: &Options) -> Result<()> {
    let folder = cache::folder().join("venvs");
    let environment = folder.join(PYTHON);
    packages(&environment, REQUIREMENTS, options)?;
    compiled_modules(&environment, options)?;
    packages(&folder.join(format!("{PYTHON}-numpy-1")), NUMPY_1, options)
}

/// Makes the environment with the web servers, unless it is there; returns its folder.
pub fn servers(options: &Options) -> Result<PathBuf> {
    let folder = cache::folder().join("venvs").join(format!("{PYTHON}-servers"));
    packages(&folder, SERVERS, options)?;
    Ok(folder)
}

/// An environment with the packages that a file names.
fn packages(folder: &Path, requirements: &str, options: &Options) -> Result<()> {
    let requirements = run::workspace().join(requirements);
    let python = interpreter()?;
    let made_of = format!("{}\n{}", python.display(), fs::read_to_string(&requirements)?);
    once(folder, &made_of, options, || {
        run::insist(Command::new(&python).args(["-m", "venv"]).arg(folder))?;
        let mut pip = Command::new(folder.join("bin/python"));
        pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check"]).args(PIP_PATIENCE);
        pip.args(["install", "--no-deps", "--no-compile", "--only-binary", ":all:", "--requirement"])
            .arg(&requirements);
        run::insist(&mut pip)
    })
}

/// The modules that are compiled here, by the environment's interpreter.
fn compiled_modules(environment: &Path, options: &Options) -> Result<()> {
    let folder = environment.join("bindings");
    let sources = run::workspace().join(BINDINGS);
    once(&folder, &contents(&sources)?, options, || {
        let mut build = Command::new(environment.join("bin/python"));
        run::insist(build.arg(sources.join("build.py")).arg(&folder))
    })
}

/// The newest interpreter of pyenv that the environment can be made of.
fn interpreter() -> Result<PathBuf> {
    let versions = pyenv_root().map(|root| subfolders(&root.join("versions"))).unwrap_or_default();
    let of_this = |folder: &PathBuf| {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.strip_prefix(PYTHON).is_some_and(|rest| rest.starts_with('.'))
    };
    let found = versions.into_iter().rfind(of_this).map(|folder| folder.join("bin/python"));
    found.with_context(|| format!("no CPython {PYTHON} among pyenv's: `pyenv install {PYTHON}`"))
}

/// The text of all sources in a folder, with their names: what its stamp holds.
fn contents(folder: &Path) -> Result<String> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?.flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    ensure!(!files.is_empty(), "nothing in {}", folder.display());
    let mut all = String::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let name = file.file_name().unwrap_or_default().display();
        all.push_str(&format!("{name}\n{text}\n"));
    }
    Ok(all)
}
