//! What a test needs of the machine and may not find there: an interpreter, a right. In CI that is a
//! failure; elsewhere a skip, which is printed and counted.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;

/// Whether what is missing fails the test instead of skipping it.
fn skipping_is_forbidden() -> bool {
    let set = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    set("CI", "true") || set("PROFILER_TESTS_NO_SKIP", "1")
}

/// Says that a test, or a part of it, cannot run here because of `what`.
///
/// # Panics
/// When skipping is forbidden.
pub fn missing(what: &str) {
    assert!(!skipping_is_forbidden(), "missing, and nothing may be skipped here: {what}");
    // Not `eprintln!`: the test runner would swallow it, and a skip that nobody sees is a lie.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
    if let Some(path) = env::var_os("PROFILER_TESTS_SKIPPED")
        && let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path)
    {
        let _ = writeln!(file, "{what}");
    }
}

/// Whether the tests run as root. Changing the root folder and becoming somebody else needs it.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
