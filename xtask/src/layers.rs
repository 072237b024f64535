//! `cargo xtask check-layers`: the crates depend on each other only as the design allows, those that are to be pure name
//! nothing of the outside world, no crate has a cycle of modules, no two public types have one name, and no file or struct
//! is too large.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use serde::Deserialize;

use crate::source::{files_below, is_test_file, without_tests};
use crate::{modules, run, sizes};

/// What every crate may depend on, from the top of the design's list to its bottom. Arrows only point down,
/// so there can be no cycle.
const ALLOWED: &[(&str, &[&str])] = &[
    (
        "cli",
        &[
            "daemon",
            "tui",
            "output",
            "recording",
            "dump",
            "sampler",
            "target",
            "account",
            "bpf",
            "os",
            "stack",
            "python",
            "native",
            "profile",
            "memory",
            "model",
        ],
    ),
    ("daemon", &["sampler", "target", "recording", "output", "profile", "model"]),
    ("tui", &["profile", "model"]),
    ("output", &["profile", "model"]),
    ("recording", &["profile", "model"]),
    ("dump", &["sampler", "target", "stack", "python", "native", "os", "profile", "memory", "model"]),
    (
        "sampler",
        &["target", "account", "stack", "os", "bpf", "profile", "python", "native", "memory", "model"],
    ),
    ("target", &["os", "python", "native", "memory", "model"]),
    ("account", &["profile", "model"]),
    ("bpf", &["model"]),
    ("os", &["memory", "model"]),
    ("stack", &["python", "native", "memory", "model"]),
    ("python", &["memory", "model"]),
    ("native", &["memory", "model"]),
    ("profile", &["model"]),
    ("memory", &["model"]),
    ("model", &[]),
];

/// The members of the workspace that stand outside the layers: they test and check the rest.
const OUTSIDE: &[&str] = &["profiler-tests", "xtask"];

/// The crates that do no I/O and take no clock, tests apart.
const PURE: &[&str] = &["model", "memory", "profile", "python", "native", "account", "stack"];

/// What a pure crate does not name.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "std::thread",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "Instant::now",
    "SystemTime",
    "println!",
    "print!(",
    "eprintln!",
    "libc::",
    "nix::",
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    path: Option<String>,
}

/// Checks the workspace.
pub fn run() -> Result<()> {
    let metadata = run::output(run::cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let mut wrong = wrong_arrows(&metadata)?;
    for name in PURE {
        wrong.extend(impure_lines(&run::workspace().join("crates").join(name).join("src"))?);
    }
    wrong.extend(modules::wrong_modules(&run::workspace().join("crates"))?);
    wrong.extend(sizes::wrong_sizes(&run::workspace().join("crates"))?);
    ensure!(wrong.is_empty(), "the layers are broken:\n  {}", wrong.join("\n  "));
    println!(
        "check-layers: every arrow points down, the pure crates are pure, no modules form a cycle, and no file or struct is \
         too large"
    );
    Ok(())
}

/// The dependencies between members of the workspace that the design does not have.
fn wrong_arrows(metadata: &str) -> Result<Vec<String>> {
    let metadata: Metadata = serde_json::from_str(metadata)?;
    let mut wrong = Vec::new();
    for package in metadata.packages.iter().filter(|package| !OUTSIDE.contains(&package.name.as_str())) {
        let name = package.name.strip_prefix("profiler-").unwrap_or(&package.name);
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
            wrong.push(format!("{name}: a crate that the design does not know"));
            continue;
        };
        for dependency in package
            .dependencies
            .iter()
            .filter(|dependency| dependency.path.is_some() && dependency.kind.as_deref() != Some("dev"))
        {
            let target = dependency.name.strip_prefix("profiler-").unwrap_or(&dependency.name);
            if !allowed.contains(&target) {
                wrong.push(format!("{name} -> {target}"));
            }
        }
    }
    Ok(wrong)
}

/// The lines of a pure crate that name the outside world, tests apart.
fn impure_lines(folder: &Path) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for path in files_below(folder, &["rs"])? {
        if !is_test_file(&path, folder) {
            let text = fs::read_to_string(&path)?;
            wrong
                .extend(impure_words(&text).map(|(line, word)| format!("{}:{line}: {word}", path.display())));
        }
    }
    Ok(wrong)
}

fn impure_words(text: &str) -> impl Iterator<Item = (usize, &'static str)> {
    let code = without_tests(text).lines().enumerate();
    let code = code.filter(|(_, line)| !line.trim_start().starts_with("//"));
    code.flat_map(|(index, line)| {
        IMPURE.iter().filter(move |word| line.contains(**word)).map(move |word| (index + 1, *word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(name: &str, dependency: &str, kind: Option<&str>) -> String {
        let dependency = serde_json::json!({"name": dependency, "kind": kind, "path": "/somewhere"});
        serde_json::json!({"packages": [{"name": name, "dependencies": [dependency]}]}).to_string()
    }

    #[test]
    fn an_arrow_that_points_up_is_found() {
        let arrow = metadata("profiler-python", "profiler-sampler", None);
        assert_eq!(wrong_arrows(&arrow).unwrap(), ["python -> sampler"]);
        let build = metadata("profiler-output", "profiler-os", Some("build"));
        assert_eq!(wrong_arrows(&build).unwrap(), ["output -> os"]);
    }

    #[test]
    fn arrows_of_the_design_and_of_tests_are_right() {
        for (name, dependency, kind) in [
            ("profiler-python", "profiler-memory", None),
            ("profiler-python", "profiler-os", Some("dev")),
            ("profiler-tests", "profiler-python", None),
        ] {
            assert_eq!(wrong_arrows(&metadata(name, dependency, kind)).unwrap(), [""; 0]);
        }
    }

    #[test]
    fn a_crate_nobody_knows_is_found() {
        assert_eq!(wrong_arrows(&metadata("profiler-utils", "profiler-model", None)).unwrap().len(), 1);
    }

    #[test]
    fn the_list_itself_only_points_down() {
        for (index, (name, allowed)) in ALLOWED.iter().enumerate() {
            for target in *allowed {
                let below = ALLOWED[index + 1..].iter().any(|(known, _)| known == target);
                assert!(below, "{name} -> {target}");
            }
        }
    }

    #[test]
    fn io_is_found_but_not_in_tests() {
        let text = "use std::fs;\n// std::net\nfn f() {}\n#[cfg(test)]\nmod tests { use std::process; }";
        assert_eq!(impure_words(text).collect::<Vec<_>>(), [(1, "std::fs")]);
    }
}
