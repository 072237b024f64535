//! The environment of the scientific fixtures: a CPython with the packages of `fixtures/requirements.txt` and
//! the compiled modules, which `cargo xtask prepare` makes in the [`cache`].

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::Deserialize;

use crate::cache::{self, STAMP};
use crate::{Interpreter, missing};

/// The folder of the environment.
const FOLDER: &str = "venvs/3.12";

/// The folder of the one that has NumPy 1 and nothing else.
const NUMPY_1_FOLDER: &str = "venvs/3.12-numpy-1";

/// What of the environment a fixture needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    /// The packages.
    Packages,
    /// The packages and the compiled modules.
    Bindings,
    /// The last NumPy 1 and nothing else.
    Numpy1,
}

impl Environment {
    /// The interpreter that has it; none where it was not made.
    ///
    /// # Panics
    /// When it is missing and skipping is forbidden.
    pub fn interpreter(self) -> Option<&'static Interpreter> {
        let found = match self {
            Environment::Packages => packages(),
            Environment::Bindings => packages().filter(|_| is_whole(&folder(FOLDER).join("bindings"))),
            Environment::Numpy1 => numpy_1(),
        };
        if found.is_none() {
            missing(&format!("{self:?} of the scientific environment: `cargo xtask prepare` makes it"));
        }
        found
    }
}

fn folder(name: &str) -> PathBuf {
    cache::folder().join(name)
}

fn is_whole(folder: &Path) -> bool {
    folder.join(STAMP).exists()
}

fn packages() -> Option<&'static Interpreter> {
    static FOUND: OnceLock<Option<Interpreter>> = OnceLock::new();
    FOUND.get_or_init(|| interpreter_in(FOLDER, "scientific")).as_ref()
}

fn numpy_1() -> Option<&'static Interpreter> {
    static FOUND: OnceLock<Option<Interpreter>> = OnceLock::new();
    FOUND.get_or_init(|| interpreter_in(NUMPY_1_FOLDER, "numpy-1")).as_ref()
}

/// The interpreter of the environment in a folder, if that is whole.
fn interpreter_in(name: &str, suffix: &str) -> Option<Interpreter> {
    let folder = folder(name);
    Interpreter::at(&folder.join("bin/python"), None, Some(suffix)).ok().filter(|_| is_whole(&folder))
}
