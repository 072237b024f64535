//! `cargo xtask bpf`: builds the program of the in-kernel sampler from its source. The object is checked in, so
//! that a user needs no clang; `--check` proves that it is what clang makes of the source.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{prepare, run};

/// The compiler, and the package of Debian that has it: another version makes another object.
const CLANG: &str = "clang-19";

const SOURCE: &str = "python.bpf.c";
const OBJECT: &str = "python.bpf.o";

/// Builds the object, or with `--check` compares it.
pub fn run(arguments: &[String]) -> Result<()> {
    if let Err(error) = prepare::packages(&[CLANG]) {
        ensure!(!prepare::Options::parse(arguments).no_skip, "{CLANG} is missing: {error:#}");
        eprintln!("xtask: SKIPPED: building the program for the kernel needs {CLANG}: {error:#}");
        return Ok(());
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/bpf/src/program");
    if !arguments.iter().any(|word| word == "--check") {
        return build(&folder, Path::new(OBJECT));
    }
    let scratch = run::target_folder().join("bpf");
    fs::create_dir_all(&scratch)?;
    let fresh: PathBuf = scratch.canonicalize()?.join(OBJECT);
    build(&folder, &fresh)?;
    let checked_in = fs::read(folder.join(OBJECT)).context(OBJECT)?;
    ensure!(
        fs::read(&fresh)? == checked_in,
        "{OBJECT} is not what {CLANG} makes of {SOURCE}: run `cargo xtask bpf` and check it in"
    );
    println!("bpf: {OBJECT} is what {CLANG} makes of {SOURCE}");
    Ok(())
}

/// For the instruction set that every kernel with a ring buffer has; with BTF, which describes the maps; and with
/// nothing in it of where it was built.
fn build(folder: &Path, object: &Path) -> Result<()> {
    let mut clang = Command::new(CLANG);
    clang.current_dir(folder);
    clang.args(["-target", "bpf", "-mcpu=v2", "-O2", "-g", "-fdebug-compilation-dir=."]);
    clang.args(["-Wall", "-Wextra", "-Werror", "-c", SOURCE, "-o"]).arg(object);
    run::insist(&mut clang)
}
