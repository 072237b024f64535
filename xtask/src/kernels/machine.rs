//! A virtual machine that boots a kernel, has everything tried, and turns itself off. It has two CPUs, one GiB, no disk and
//! no network; its second serial line brings out what was found.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::packages::Kernel;
use crate::run;

/// After so many seconds a machine hangs: it takes three to four minutes on one that is busy.
const MOST_SECONDS: &str = "900";

/// What the guest tells of one check.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Check {
    /// Which.
    pub check: String,
    /// The exit status of the profiler; below 0 the signal that ended it.
    pub exit: i32,
    /// What it said.
    pub said: String,
    /// What it wrote: collapsed stacks.
    pub raw: String,
    /// The programs that the kernel still had some seconds later.
    pub left: Vec<u32>,
    /// How many programs it held before it was killed.
    pub held: u32,
}

/// Boots a kernel with this file system, and returns what was told.
pub fn try_all(folder: &Path, kernel: &Kernel, root: &Path) -> Result<Vec<Check>> {
    let place = folder.join(&kernel.release);
    let (console, results) = (place.join("console.txt"), place.join("results.jsonl"));
    let mut machine = Command::new("timeout");
    machine.args([MOST_SECONDS, "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max"]);
    machine.args(["-smp", "2", "-m", "1024", "-display", "none", "-nodefaults", "-no-reboot"]);
    for file in [&console, &results] {
        machine.arg("-serial").arg(format!("file:{}", file.display()));
    }
    machine.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(root);
    // The emulated counter of cycles is not the same on both CPUs: kernels that trust it may hang.
    machine.args(["-append", "console=ttyS0 panic=-1 tsc=unstable"]);
    run::insist(&mut machine).with_context(|| format!("see {}", console.display()))?;
    let text = fs::read_to_string(&results)?;
    told(&text).with_context(|| format!("see {}", console.display()))
}

/// The lines of the guest, up to the one that says it came to its end.
fn told(text: &str) -> Result<Vec<Check>> {
    let checks: Result<Vec<Check>, _> = text.lines().map(serde_json::from_str).collect();
    let mut checks = checks.context("what came out of the machine is no JSON")?;
    match checks.pop() {
        Some(last) if last.check == "end" && last.said.is_empty() => Ok(checks),
        Some(last) => bail!("it came no further than {:?}: {}", last.check, last.said),
        None => bail!("nothing came out of the machine"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_is_not_taken_for_all() {
        let line = r#"{"check": "bpf", "exit": -9, "said": "", "left": [7]}"#;
        let checks = told(&format!("{line}\n{}\n", r#"{"check": "end"}"#)).unwrap();
        assert_eq!((checks.len(), checks[0].exit, checks[0].left.as_slice()), (1, -9, [7].as_slice()));
        assert!(told(line).is_err() && told("").is_err());
        assert!(told(&format!("{line}\n{}\n", r#"{"check": "end", "said": "Traceback"}"#)).is_err());
    }
}
