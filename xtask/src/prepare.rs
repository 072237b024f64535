//! `cargo xtask prepare`: sets up what the tests need and the machine may not have: packages of the machine's own
//! distribution, the newest CPythons (from Debian's unstable suite, in a root folder of their own), and virtual
//! environments. Root folder and environments lie in a cache outside the checkout, each with a stamp that says what it is
//! made of: made once, made again when that changes, when it was interrupted, or with `--from-nothing`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, thread};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use profiler_tests::cache::{self, STAMP};

use crate::{environments, mirror, run};

/// The interpreters that the root folder must have.
const PYTHONS: &[&str] = &["python3.14", "python3.15"];

/// apt's word for taking an archive whose release file is past its date, as that of a frozen mirror is.
const PAST_ITS_DATE: &str = "Acquire::Check-Valid-Until=false";

/// Packages of the distribution, each with the command that shows that it is there, and what it is for.
const PACKAGES: &[(&str, &str)] = &[
    ("gdb", "core files of processes that run on"),
    ("pypy3", "refusing another Python"),
    ("debootstrap", "the newest CPythons"),
    ("gcc", "compiled modules"),
    ("gfortran", "compiled modules"),
    ("clang-19", "the program in the kernel"),
];

/// How to prepare.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What cannot be had is a failure.
    pub no_skip: bool,
    /// Whatever is in the cache is made anew.
    pub from_nothing: bool,
}

impl Options {
    /// Reads the options among the words of a command line. In CI nothing may be skipped.
    pub fn parse(arguments: &[String]) -> Self {
        let set = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
        let has = |flag: &str| arguments.iter().any(|word| word == flag);
        Options {
            no_skip: has("--no-skip") || set("CI", "true") || set("PROFILER_TESTS_NO_SKIP", "1"),
            from_nothing: has("--from-nothing"),
        }
    }

    /// Passes over a failure, after naming what is skipped, unless that is forbidden.
    fn allow(&self, what: &str, result: Result<()>) -> Result<()> {
        match result {
            Err(error) if !self.no_skip => {
                eprintln!("xtask: SKIPPED: {what}: {error:#}");
                Ok(())
            }
            result => result.with_context(|| what.to_owned()),
        }
    }
}

/// Prepares everything.
pub fn run(arguments: &[String]) -> Result<()> {
    prepare(&Options::parse(arguments))
}

/// Prepares everything; what cannot be had is reported and left out, unless that is forbidden.
pub fn prepare(options: &Options) -> Result<()> {
    let needs: Vec<&str> = PACKAGES.iter().map(|(package, _)| *package).collect();
    if let Err(error) = packages(&needs) {
        for (package, purpose) in PACKAGES.iter().filter(|(package, _)| !is_command(package)) {
            options.allow(&format!("{package}, for {purpose}"), Err(anyhow::anyhow!("{error:#}")))?;
        }
    }
    // Each waits for the network in its own way.
    thread::scope(|scope| {
        let root = scope.spawn(|| options.allow(&PYTHONS.join(" and "), root_folder(options)));
        let environments = environments::scientific(options);
        let environments = options.allow("the environment of the scientific fixtures", environments);
        root.join().unwrap_or_else(|_| bail!("preparing the root folder panicked")).and(environments)
    })
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Makes a folder of the cache, unless its stamp says that it is whole and made of the same. What was interrupted, or is
/// made of something else, is removed first. Other checkouts wait meanwhile.
pub fn once(
    folder: &Path,
    made_of: &str,
    options: &Options,
    make: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let parent = folder.parent().context("a folder without a parent")?;
    fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
    let lock =
        fs::File::create(parent.join(format!(".{}.lock", folder.file_name().unwrap_or_default().display())))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    let stamp = folder.join(STAMP);
    if !options.from_nothing && fs::read_to_string(&stamp).is_ok_and(|found| found == made_of) {
        return Ok(());
    }
    remove(folder)?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    make()?;
    fs::write(&stamp, made_of).with_context(|| stamp.display().to_string())
}

/// Makes the root folder with the newest interpreters.
fn root_folder(options: &Options) -> Result<()> {
    let root = roots_folder().join("sid");
    once(&root, &PYTHONS.join("\n"), options, || {
        ensure!(
            is_root(),
            "a root folder can only be made and entered by root: try `sudo -E cargo xtask test`"
        );
        bootstrap(&root, &mirror::configured()?)?;
        headers(&root)?;
        ensure!(is_whole(&root), "{} was made, but its interpreters do not run", root.display());
        Ok(())
    })
}

/// The folder that holds root folders.
pub fn roots_folder() -> PathBuf {
    cache::folder().join("roots")
}

/// Whether the interpreters in a root folder run and have their headers.
fn is_whole(root: &Path) -> bool {
    PYTHONS.iter().all(|python| {
        let headers = root.join("usr/include").join(python).join("internal");
        let imports = [python, "-c", "import ctypes, threading"];
        headers.is_dir() && run::succeeds(Command::new("chroot").arg(root).args(imports))
    })
}

fn is_command(name: &str) -> bool {
    run::succeeds(Command::new("sh").args(["-c", &format!("command -v {name}")]))
}

/// Installs packages of the machine's own distribution, those whose commands are not there, all at once.
pub(crate) fn packages(names: &[&str]) -> Result<()> {
    let lacking: Vec<&str> = names.iter().copied().filter(|name| !is_command(name)).collect();
    if lacking.is_empty() { Ok(()) } else { install(&lacking) }
}

/// Installs packages of the machine's own distribution.
pub(crate) fn install(names: &[&str]) -> Result<()> {
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-o", PAST_ITS_DATE]);
        command
    };
    run::insist(apt().arg("update"))?;
    run::insist(apt().args(["install", "-y", "--no-install-recommends"]).args(names))
}

/// The minimal system with the interpreters.
fn bootstrap(root: &Path, mirror: &str) -> Result<()> {
    let include = format!("--include={}", PYTHONS.join(","));
    let mut command = Command::new("debootstrap");
    run::insist(command.args(["--variant=minbase", &include, "sid"]).arg(root).arg(mirror))
}

/// The interpreters' own headers, from which the offsets are recomputed.
fn headers(root: &Path) -> Result<()> {
    let apt = || {
        let mut command = Command::new("chroot");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg(root).args([
            "apt-get",
            "-q",
            "-o",
            PAST_ITS_DATE,
        ]);
        command
    };
    run::insist(apt().arg("update"))?;
    let packages = PYTHONS.iter().map(|python| format!("lib{python}-dev"));
    run::insist(apt().args(["install", "-y", "--no-install-recommends"]).args(packages))
}

/// Removes a folder, but never through a file system that is mounted in it.
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
