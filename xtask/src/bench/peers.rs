//! Sets up what we are compared with: py-spy, from PyPI into a virtual environment under `target/`, and a
//! `/proc` for CPython's own sampler, which lives in a root folder.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use profiler_tests::is_root;

use crate::run;

/// The releases of py-spy that we compare ourselves with.
const PY_SPY: &str = "py-spy>=0.4,<0.5";

/// Set in the environment once the root folder has its `/proc`.
const HAS_PROC: &str = "PROFILER_BENCH_HAS_PROC";

/// Where py-spy lies, after installing it if need be.
pub fn py_spy() -> Result<PathBuf> {
    let environment = run::target_folder().join("bench/py-spy");
    let program = environment.join("bin/py-spy");
    if !run::succeeds(Command::new(&program).arg("--version")) {
        run::insist(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
        let pip = environment.join("bin/pip");
        run::insist(Command::new(pip).args(["install", "--quiet", "--disable-pip-version-check", PY_SPY]))?;
    }
    Ok(program)
}

/// What a program says to `--version`.
pub fn version(program: &Path) -> Result<String> {
    Ok(run::output(Command::new(program).arg("--version"))?.trim().to_owned())
}

/// Whether programs in the root folder see processes.
pub fn root_has_proc() -> bool {
    std::env::var_os(HAS_PROC).is_some()
}

/// Starts this program anew, in a mount namespace of its own where the root folder has a `/proc`: CPython's
/// sampler finds its target there and needs the same root folder as it. The namespace goes with the program,
/// however that ends, and nothing stays mounted. Returns where that cannot be, or is done already.
pub fn enter_namespace() -> Result<()> {
    let root = crate::prepare::roots_folder().join("sid");
    if root_has_proc() || !is_root() || !root.join(profiler_tests::cache::STAMP).exists() {
        return Ok(());
    }
    if !run::succeeds(Command::new("unshare").args(["--mount", "true"])) {
        return Ok(());
    }
    let script = "mount -t proc proc \"$1/proc\" && shift && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(&root).arg(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).env(HAS_PROC, "1");
    Err(command.exec()).context("unshare")
}
