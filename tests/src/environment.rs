//! The environment of the scientific fixtures: a CPython with the packages of `fixtures/requirements.txt` and
//! the compiled modules, which `cargo xtask prepare` makes under `target/venvs/`.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::Deserialize;

use crate::{Interpreter, missing};

/// The folder of the environment.
const FOLDER: &str = "venvs/3.12";

/// The file that says that a folder is whole.
const STAMP: &str = ".complete";

/// What of the environment a fixture needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    /// The packages.
    Packages,
    /// The packages and the compiled modules.
    Bindings,
}

impl Environment {
    /// The interpreter that has it; none where it was not made.
    ///
    /// # Panics
    /// When it is missing and skipping is forbidden.
    pub fn interpreter(self) -> Option<&'static Interpreter> {
        let found =
            packages().filter(|_| self == Environment::Packages || is_whole(&folder().join("bindings")));
        if found.is_none() {
            missing(&format!("{self:?} of the scientific environment: `cargo xtask prepare` makes it"));
        }
        found
    }
}

fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    target.join(FOLDER)
}

fn is_whole(folder: &Path) -> bool {
    folder.join(STAMP).exists()
}

fn packages() -> Option<&'static Interpreter> {
    static FOUND: OnceLock<Option<Interpreter>> = OnceLock::new();
    let python = folder().join("bin/python");
    let find = || Interpreter::at(&python, None, Some("scientific")).ok().filter(|_| is_whole(&folder()));
    FOUND.get_or_init(find).as_ref()
}
