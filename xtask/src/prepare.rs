//! `cargo xtask prepare`: sets up what the tests need and the machine may not have. The newest CPythons come
//! with Debian's unstable suite, as a root folder of its own under `target/`. Everything is done once; what
//! was interrupted is done again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{environments, mirror, run};

/// The interpreters that the root folder must have.
const PYTHONS: &[&str] = &["python3.14", "python3.15"];

/// The file in a root folder that says it is whole.
pub const STAMP: &str = ".complete";

/// apt's word for taking an archive whose release file is past its date, as that of a frozen mirror is.
const PAST_ITS_DATE: &str = "Acquire::Check-Valid-Until=false";

/// Prepares everything.
pub fn run(arguments: &[String]) -> Result<()> {
    prepare(forbids_skipping(arguments))
}

/// Whether what cannot be had is a failure: asked for, or in CI.
pub fn forbids_skipping(arguments: &[String]) -> bool {
    let set = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    arguments.iter().any(|word| word == "--no-skip")
        || set("CI", "true")
        || set("PROFILER_TESTS_NO_SKIP", "1")
}

/// Prepares everything; what cannot be had without root is named and left out, unless that is forbidden.
pub fn prepare(no_skip: bool) -> Result<()> {
    // It makes core files of processes that run on.
    if let Err(error) = package("gdb") {
        if no_skip {
            return Err(error);
        }
        eprintln!("xtask: SKIPPED: core files by gdb: {error:#}");
    }
    // Another Python, which has to be told from CPython.
    if let Err(error) = package("pypy3") {
        if no_skip {
            return Err(error);
        }
        eprintln!("xtask: SKIPPED: refusing PyPy: {error:#}");
    }
    let root = run::target_folder().join("roots/sid");
    if let Err(error) = root_folder(&root) {
        if no_skip {
            return Err(error);
        }
        eprintln!("xtask: SKIPPED: {}: {error:#}", PYTHONS.join(" and "));
    }
    if let Err(error) = environments::scientific() {
        if no_skip {
            return Err(error);
        }
        eprintln!("xtask: SKIPPED: the environment of the scientific fixtures: {error:#}");
    }
    Ok(())
}

fn is_root() -> bool {
    run::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// Makes the root folder, unless it is there and whole.
fn root_folder(root: &Path) -> Result<()> {
    if root.join(STAMP).exists() {
        return Ok(());
    }
    ensure!(is_root(), "a root folder can only be made and entered by root: try `sudo -E cargo xtask test`");
    if !is_whole(root) {
        let mirror = mirror::configured()?;
        remove(root)?;
        package("debootstrap")?;
        bootstrap(root, &mirror)?;
        headers(root)?;
        ensure!(is_whole(root), "{} was made, but its interpreters do not run", root.display());
    }
    fs::write(root.join(STAMP), "").with_context(|| root.display().to_string())
}

/// Whether the interpreters in a root folder run and have their headers.
fn is_whole(root: &Path) -> bool {
    PYTHONS.iter().all(|python| {
        let headers = root.join("usr/include").join(python).join("internal");
        headers.is_dir()
            && run::succeeds(Command::new("chroot").arg(root).args([
                python,
                "-c",
                "import ctypes, threading",
            ]))
    })
}

/// Installs a package of the machine's own distribution, unless its command is there.
pub(crate) fn package(name: &str) -> Result<()> {
    if run::succeeds(Command::new("sh").args(["-c", &format!("command -v {name}")])) {
        return Ok(());
    }
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", PAST_ITS_DATE]);
        command
    };
    run::insist(apt().arg("update"))?;
    run::insist(apt().args(["install", "-y", "--no-install-recommends", name]))
}

/// The minimal system with the interpreters.
fn bootstrap(root: &Path, mirror: &str) -> Result<()> {
    if let Some(parent) = root.parent() {
        fs::create_dir_all(parent)?;
    }
    let include = format!("--include={}", PYTHONS.join(","));
    let mut command = Command::new("debootstrap");
    run::insist(command.args(["--variant=minbase", &include, "sid"]).arg(root).arg(mirror))
}

/// The interpreters' own headers, from which the offsets are recomputed.
fn headers(root: &Path) -> Result<()> {
    let apt = || {
        let mut command = Command::new("chroot");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg(root).args(["apt-get", "-o", PAST_ITS_DATE]);
        command
    };
    run::insist(apt().arg("update"))?;
    let packages = PYTHONS.iter().map(|python| format!("lib{python}-dev"));
    run::insist(apt().args(["install", "-y", "--no-install-recommends"]).args(packages))
}

/// Removes what an interrupted attempt has left, but never through a file system that is mounted in it.
fn remove(root: &Path) -> Result<()> {
    if !root.exists() {
        return Ok(());
    }
    for mount in mounts_below(&root.canonicalize()?)? {
        run::insist(Command::new("umount").arg(&mount))?;
    }
    if let Some(mount) = mounts_below(&root.canonicalize()?)?.first() {
        bail!("{} is still mounted; umount it and try again", mount.display());
    }
    fs::remove_dir_all(root).with_context(|| root.display().to_string())
}

/// The mount points below a folder, innermost first.
fn mounts_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(folder)).collect();
    below.reverse();
    Ok(below)
}
