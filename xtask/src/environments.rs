//! The virtual environments in which the scientific fixtures run, under `target/venvs/`: one with the packages that
//! `fixtures/requirements.txt` pins, and the compiled modules of `fixtures/bindings/compiled`; and one with the last
//! NumPy 1, which no other package has to run with. Made once by pip and the compilers; made again when it was interrupted or when what it is made of has changed. It knows nothing
//! of what the fixtures do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::offsets::{pyenv_root, subfolders};
use crate::prepare::{STAMP, package};
use crate::run;

/// The CPython of the environment: the book's, and one that all packages have binary wheels for.
const PYTHON: &str = "3.12";

/// The packages, pinned.
const REQUIREMENTS: &str = "fixtures/requirements.txt";

/// The only package of the other environment, pinned.
const NUMPY_1: &str = "fixtures/requirements-numpy-1.txt";

/// The sources of the compiled modules, and the program that builds them.
const BINDINGS: &str = "fixtures/bindings/compiled";

/// How long pip waits for an answer, and how often it asks: without a network it must give up soon.
const PIP_PATIENCE: [&str; 4] = ["--timeout", "20", "--retries", "2"];

/// Makes the environments, the first one with its compiled modules, unless they are there, whole, and made of the
/// same.
pub fn scientific() -> Result<()> {
    let folder = run::target_folder().join("venvs");
    packages(&folder.join(PYTHON), REQUIREMENTS)?;
    compiled_modules(&folder.join(PYTHON))?;
    packages(&folder.join(format!("{PYTHON}-numpy-1")), NUMPY_1)
}

/// An environment with the packages that a file names.
fn packages(folder: &Path, requirements: &str) -> Result<()> {
    let requirements = run::workspace().join(requirements);
    let python = interpreter()?;
    let made_of = format!("{}\n{}", python.display(), fs::read_to_string(&requirements)?);
    once(folder, &made_of, || {
        run::insist(Command::new(&python).args(["-m", "venv"]).arg(folder))?;
        let mut pip = Command::new(folder.join("bin/python"));
        pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check"]).args(PIP_PATIENCE);
        pip.args(["install", "--no-deps", "--no-compile", "--only-binary", ":all:", "--requirement"])
            .arg(&requirements);
        run::insist(&mut pip)
    })
}

/// The modules that are compiled here, in a folder of the environment.
fn compiled_modules(environment: &Path) -> Result<()> {
    let sources = run::workspace().join(BINDINGS);
    let folder = environment.join("bindings");
    once(&folder, &contents(&sources)?, || {
        package("gcc")?;
        package("gfortran")?;
        let mut build = Command::new(environment.join("bin/python"));
        run::insist(build.arg(sources.join("build.py")).arg(&folder))
    })
}

/// Makes a folder, unless its stamp says that it is whole and made of the same. What was interrupted, or is
/// made of something else, is thrown away first.
fn once(folder: &Path, made_of: &str, make: impl FnOnce() -> Result<()>) -> Result<()> {
    let stamp = folder.join(STAMP);
    if fs::read_to_string(&stamp).is_ok_and(|found| found == made_of) {
        return Ok(());
    }
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    make()?;
    fs::write(&stamp, made_of).with_context(|| stamp.display().to_string())
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
        all.push_str(&format!("{}\n{text}\n", file.display()));
    }
    Ok(all)
}
