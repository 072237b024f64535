//! Where the things lie that the tests need and that take long to make: root folders with interpreters, virtual
//! environments. They outlive the checkout, so that the next one need not make them again. `cargo xtask prepare` makes
//! them; nothing here does.

use std::path::{Path, PathBuf};

/// The file in a folder that says that the folder is whole, and what it is made of.
pub const STAMP: &str = ".complete";

/// The folder: `PROFILER_TESTS_CACHE`, or one in the user's cache, or `target/` where there is no home.
pub fn folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("PROFILER_TESTS_CACHE") {
        return folder.into();
    }
    let of_home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(of_home);
    cache.unwrap_or_else(target_folder).join("profiler-tests")
}

/// The folder that cargo builds in.
pub fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from)
}
