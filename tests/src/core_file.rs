//! Core files of processes under test: by gdb, which lets the process run on, or by the kernel.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::{Fixture, missing};

/// Whether gdb is there.
pub fn has_gdb() -> bool {
    let version = Command::new("gdb").arg("--version").stdout(Stdio::null()).status();
    let found = version.is_ok_and(|status| status.success());
    if !found {
        missing("gdb, which makes core files: `cargo xtask prepare` installs it");
    }
    found
}

/// Makes a core file of a running process. Where the C library marks the guard pages of stacks with `madvise`
/// (glibc 2.42), gdb stops at them and leaves the stacks of all threads but the first as zeros.
pub fn make_core(fixture: &Fixture, file: &Path) -> Result<()> {
    let mut command = Command::new("gdb");
    // Symbols are not needed, and reading them takes most of the time.
    command.args(["-nx", "--batch", "--readnever", "-iex", "set auto-solib-add off", "-iex"]);
    command.args(["set debuginfod enabled off", "-p", &fixture.pid().to_string(), "-ex"]);
    let output = command.arg(format!("generate-core-file {}", file.display())).output().context("gdb")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(file.exists(), "gdb wrote no core file: {said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Whether the kernel writes the core file of a process that crashes into the folder that it runs in.
pub fn kernel_writes_cores() -> bool {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let in_folder = !pattern.trim().is_empty() && !pattern.starts_with('|') && !pattern.contains('/');
    if !in_folder {
        missing("core files by the kernel: kernel.core_pattern is no plain name");
    }
    in_folder
}

/// The words of a command that leaves a core file when it crashes: in the folder that it has open as number 3,
/// whatever its root folder is. A Python goes there by `os.fchdir(3)`.
pub fn words_of_dumpable(words: &[OsString], folder: &Path) -> Vec<OsString> {
    let shell = format!("ulimit -c unlimited; exec \"$0\" \"$@\" 3<'{}'", folder.display());
    let shell: [OsString; 3] = ["sh".into(), "-c".into(), shell.into()];
    shell.into_iter().chain(words.iter().cloned()).collect()
}

/// Crashes a fixture that was started so, and moves the core file that the kernel leaves in `folder` to `file`.
pub fn crash(mut fixture: Fixture, folder: &Path, file: &Path) -> Result<()> {
    let status = fixture.end_by(Signal::SIGABRT)?;
    ensure!(status.core_dumped(), "{status:?}, without a core file");
    let mut written = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let core = written.find(|path| path.is_file() && starts_like_a_core(path).unwrap_or(false));
    Ok(fs::rename(core.context("the kernel wrote no core file")?, file)?)
}

fn starts_like_a_core(path: &Path) -> Result<bool> {
    let mut start = [0; 17];
    fs::File::open(path)?.read_exact(&mut start)?;
    Ok(start.starts_with(b"\x7fELF") && start[16] == 4)
}
