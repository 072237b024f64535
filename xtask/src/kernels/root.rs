//! The file system of the virtual machines, which lies in their memory: the profiler, this machine's own Python with its
//! standard library, the fixtures, and the few tools that `guest` asks for.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use profiler_tests::profiler_path;

use crate::{prepare, run};

/// The interpreter that is profiled there.
const PYTHON: &str = "/usr/bin/python3";

/// Tools that are not busybox's or say more.
const TOOLS: [&str; 4] = ["/usr/bin/setpriv", "/usr/bin/prlimit", "/usr/bin/unshare", "/usr/bin/nsenter"];

const FIXTURES: [&str; 2] = ["labyrinth", "waiting"];

/// Each program that is needed here, with the package that has it.
const NEEDED: [(&str, &str); 4] = [
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("strip", "binutils"),
    ("qemu-system-x86_64", "qemu-system-x86"),
];

/// Parts of the standard library that nothing there imports.
const LEFT_OUT: [&str; 7] =
    ["__pycache__", "test", "dist-packages", "idlelib", "tkinter", "ensurepip", "config-*"];

/// Folders that are there before anything is put into them.
const FOLDERS: [&str; 8] = ["bin", "usr/bin", "etc", "proc", "sys", "dev", "tmp", "fixtures"];

const ACCOUNTS: &str = "root:x:0:0::/tmp:/bin/sh\nnobody:x:65534:65534::/tmp:/bin/sh\n";

/// Builds it anew; returns the archive that a kernel unpacks.
pub fn build(folder: &Path) -> Result<PathBuf> {
    let is_there =
        |program: &str| run::succeeds(Command::new("sh").args(["-c", &format!("command -v {program}")]));
    let lacking: Vec<&str> =
        NEEDED.iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| *package).collect();
    if !lacking.is_empty() {
        prepare::install(&lacking)?;
    }
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for inner in FOLDERS {
        fs::create_dir_all(root.join(inner))?;
    }
    fs::write(root.join("etc/passwd"), ACCOUNTS)?;
    put_programs(&root)?;
    put_python(&root)?;
    put_guest(&root)?;
    archive(&root, &folder.join("root.cpio.gz"))
}

fn put_programs(root: &Path) -> Result<()> {
    run::insist(Command::new("strip").arg("-o").arg(root.join("bin/profiler")).arg(profiler_path()))?;
    let busybox = run::output(Command::new("sh").args(["-c", "command -v busybox"]))?;
    fs::copy(busybox.trim(), root.join("bin/busybox"))?;
    symlink("busybox", root.join("bin/sh"))?;
    for tool in TOOLS {
        fs::copy(tool, root.join(tool.trim_start_matches('/')))?;
    }
    put_libraries(root, &TOOLS.map(PathBuf::from))?;
    put_libraries(root, &[profiler_path()])
}

fn put_python(root: &Path) -> Result<()> {
    const PLACES: &str = "import os, sys, sysconfig\n\
                          print(os.path.realpath(sys.executable))\n\
                          print(sysconfig.get_paths()['stdlib'])";
    let places = run::output(Command::new(PYTHON).args(["-I", "-c", PLACES]))?;
    let (executable, library) = places.trim().split_once('\n').context("Python does not say where it is")?;
    let inside = |path: &str| root.join(path.trim_start_matches('/'));
    fs::copy(executable, inside(executable))?;
    symlink(executable, inside(PYTHON))?;
    let above = Path::new(library).parent().context("no folder")?;
    let target = inside(&above.display().to_string());
    fs::create_dir_all(&target)?;
    let mut copy = Command::new("tar");
    copy.arg("--create").args(LEFT_OUT.map(|name| format!("--exclude={name}")));
    copy.arg("--directory").arg(above).arg(Path::new(library).file_name().context("no name")?);
    let mut unpack = Command::new("tar");
    unpack.args(["--extract", "--directory"]).arg(&target);
    pipe(&mut copy, &mut unpack)?;
    let modules = fs::read_dir(Path::new(library).join("lib-dynload"))?.flatten().map(|entry| entry.path());
    let mut all: Vec<PathBuf> = modules.collect();
    all.push(executable.into());
    put_libraries(root, &all)
}

/// The shared libraries that these files ask for, where the loader looks for them.
fn put_libraries(root: &Path, files: &[PathBuf]) -> Result<()> {
    let mut found = BTreeSet::new();
    for file in files {
        let text = run::output(Command::new("ldd").arg(file))?;
        found.extend(libraries(&text).map(str::to_owned));
    }
    for library in found {
        let inside = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(inside.parent().context("no folder")?)?;
        fs::copy(&library, &inside).with_context(|| library.clone())?;
    }
    Ok(())
}

/// The paths that `ldd` tells.
fn libraries(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

fn put_guest(root: &Path) -> Result<()> {
    for fixture in FIXTURES {
        let from = run::workspace().join("fixtures").join(fixture);
        run::insist(Command::new("cp").arg("-r").arg(from).arg(root.join("fixtures")))?;
    }
    fs::write(root.join("init"), include_str!("guest/init"))?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    Ok(fs::write(root.join("checks.py"), include_str!("guest/checks.py"))?)
}

/// Packs the folder as a kernel wants it.
fn archive(root: &Path, file: &Path) -> Result<PathBuf> {
    let script = "find . | cpio --create --format=newc --quiet | gzip -1";
    let packed =
        Command::new("sh").args(["-c", script]).current_dir(root).stdout(fs::File::create(file)?).status()?;
    ensure!(packed.success(), "{script}: {packed}");
    Ok(file.to_owned())
}

/// Runs two programs, the second on what the first writes.
fn pipe(first: &mut Command, second: &mut Command) -> Result<()> {
    let mut writer = first.stdout(Stdio::piped()).spawn()?;
    let reading = second.stdin(writer.stdout.take().context("no output")?).status()?;
    let written = writer.wait()?;
    ensure!(written.success() && reading.success(), "copying: {written}, {reading}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_with_and_without_a_name_of_their_own() {
        let text =
            "\tlinux-vdso.so.1 (0x7f)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x7e)\n\t/lib64/ld.so.2 (0x7d)\n";
        assert_eq!(libraries(text).collect::<Vec<_>>(), ["/lib/x/libc.so.6", "/lib64/ld.so.2"]);
    }
}
