//! `cargo xtask kernels`: has the in-kernel sampler tried on the kernels that people run, each in a virtual machine of its
//! own: whether it loads, shows true stacks, and what it does where something is forbidden or missing.
//!
//! The kernels are Debian's, from the mirror of this machine; the machines are emulated, so that no virtualisation is
//! needed, and take some three minutes each. What is tried lies in `guest`, what has to come out of it in `judge`. How
//! fast anything is cannot be told here.

mod judge;
mod machine;
mod packages;
mod root;

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::run;
use judge::Verdict;

/// The kernels that are tried unless others are named: the oldest that is to be had, and one of each that Debian has
/// released since, up to the newest.
const SERIES: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "7"];

/// Tries every kernel, prints a table, and fails if anything came out otherwise than it has to.
pub fn run(arguments: &[String]) -> Result<()> {
    let named: Vec<&str> = arguments.iter().map(String::as_str).collect();
    try_series(if named.is_empty() { &SERIES } else { &named }, |_| false)
}

/// Tries the kernels, oldest first, and begins with no other once the time is over. At least one is tried.
pub fn run_until(end: Instant) -> Result<()> {
    try_series(&SERIES, |tried| tried > 0 && Instant::now() >= end)
}

/// Tries kernels until `is_enough` says so of the number of those that were tried.
fn try_series(all: &[&str], is_enough: impl Fn(usize) -> bool) -> Result<()> {
    let folder = run::target_folder().join("kernels");
    run::build_profiler()?;
    let packages = packages::Packages::new(&folder)?;
    let root = root::build(&folder)?;
    let mut columns = Vec::new();
    for series in all {
        if is_enough(columns.len()) {
            break;
        }
        let kernel = packages.kernel(series)?;
        eprintln!("xtask: Linux {}", kernel.release);
        let checks = machine::try_all(&folder, &kernel, &root)?;
        columns.push((kernel.release, judge::judge_all(&checks)?));
    }
    print!("{}", table(&columns));
    let failures: usize = columns.iter().map(|(_, verdicts)| failures(verdicts)).sum();
    ensure!(failures == 0, "{failures} of these are not as they have to be");
    Ok(())
}

fn failures(verdicts: &[(String, Verdict)]) -> usize {
    verdicts.iter().filter(|(_, verdict)| verdict.is_err()).count()
}

/// A column a kernel, a row a check, and below what went wrong.
fn table(columns: &[(String, Vec<(String, Verdict)>)]) -> String {
    let Some((_, first)) = columns.first() else { return String::new() };
    let releases: Vec<&str> = columns.iter().map(|(release, _)| release.as_str()).collect();
    let mut text = format!("| | {} |\n|---|{}\n", releases.join(" | "), "---|".repeat(releases.len()));
    let mut troubles = String::new();
    for (check, _) in first {
        let cells =
            columns.iter().map(|(release, verdicts)| match verdicts.iter().find(|(name, _)| name == check) {
                Some((_, Ok(outcome))) => outcome.clone(),
                Some((_, Err(error))) => {
                    troubles += &format!("\n{release}, {check}: {error:#}\n");
                    "WRONG".to_owned()
                }
                None => "not tried".to_owned(),
            });
        let cells: Vec<String> = cells.collect();
        text += &format!("| {check} | {} |\n", cells.join(" | "));
    }
    text + &troubles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_below_the_table() {
        let verdicts = |second: Verdict| {
            vec![("bpf".to_owned(), Ok("takes it".to_owned())), ("kill".to_owned(), second)]
        };
        let columns = vec![
            ("5.10".to_owned(), verdicts(Ok("nothing stays".to_owned()))),
            ("6.1".to_owned(), verdicts(Err(anyhow::anyhow!("7 stays")))),
        ];
        let table = table(&columns);
        assert!(
            table.starts_with("| | 5.10 | 6.1 |\n|---|---|---|\n| bpf | takes it | takes it |\n"),
            "{table}"
        );
        assert!(table.contains("| kill | nothing stays | WRONG |\n\n6.1, kill: 7 stays\n"), "{table}");
        assert_eq!(columns.iter().map(|(_, verdicts)| failures(verdicts)).sum::<usize>(), 1);
    }
}
