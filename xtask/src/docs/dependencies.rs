//! Dependencies as `cargo metadata` lists them: their licences are permitted, each direct one has a row in the page on
//! dependencies, and none needs a newer Rust than the workspace names.

use std::collections::BTreeSet;

use anyhow::Result;
use serde::Deserialize;

use super::licences::is_permitted;
use super::page::Page;
use crate::run;

/// The page with a row for each direct dependency.
const PAGE: &str = "docs/development/dependencies.md";

/// The platform that the profiler runs on. Dependencies of others are never built.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    /// None for members of the workspace.
    source: Option<String>,
    license: Option<String>,
    rust_version: Option<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// None for members of the workspace.
    source: Option<String>,
}

impl Package {
    fn title(&self) -> String {
        format!("{} {}", self.name, self.version)
    }
}

/// What is wrong with the dependencies of the workspace and of the fuzz targets.
///
/// # Errors
/// When cargo fails.
pub fn wrong_dependencies(pages: &[Page]) -> Result<Vec<String>> {
    let all = ["metadata", "--locked", "--format-version", "1", "--filter-platform", PLATFORM];
    let workspace = parsed(&run::output(run::cargo().args(all))?)?;
    // What the fuzz targets need is not downloaded for this: their direct dependencies are in their manifest.
    let direct = ["metadata", "--no-deps", "--format-version", "1", "--manifest-path", "fuzz/Cargo.toml"];
    let fuzz = parsed(&run::output(run::cargo().args(direct))?)?;

    let mut wrong = refused_licences(&workspace);
    wrong.extend(too_new(&workspace));
    wrong.extend(wrong_rows(pages, &[&workspace, &fuzz]));
    Ok(wrong)
}

fn parsed(metadata: &str) -> Result<Metadata> {
    Ok(serde_json::from_str(metadata)?)
}

/// The dependencies whose licences are not permitted.
fn refused_licences(metadata: &Metadata) -> Vec<String> {
    let foreign = metadata.packages.iter().filter(|package| package.source.is_some());
    let refused = foreign.filter_map(|package| match &package.license {
        None => Some(format!("{}: no licence is named", package.title())),
        Some(licence) if is_permitted(&package.name, licence) => None,
        Some(licence) => Some(format!("{}: licence {licence} is not permitted", package.title())),
    });
    refused.collect()
}

/// The dependencies that need a newer Rust than the workspace names.
fn too_new(metadata: &Metadata) -> Vec<String> {
    let is_own = |package: &&Package| package.source.is_none();
    let own = metadata.packages.iter().filter(is_own).map(|package| version(package.rust_version.as_deref()));
    let Some(own) = own.min() else { return vec!["no member of the workspace".to_owned()] };
    let newer = metadata.packages.iter().filter(|package| version(package.rust_version.as_deref()) > own);
    newer
        .map(|package| {
            let needed = package.rust_version.as_deref().unwrap_or_default();
            format!("{}: needs Rust {needed}, newer than `rust-version` of the workspace", package.title())
        })
        .collect()
}

/// The numbers of a version of Rust: `1.88` is 1.88.0.
fn version(text: Option<&str>) -> [u64; 3] {
    let mut numbers = [0; 3];
    let parts = text.unwrap_or_default().split('.');
    for (number, part) in numbers.iter_mut().zip(parts) {
        *number = part.parse().unwrap_or(0);
    }
    numbers
}

/// The direct dependencies without a row, and the rows without a direct dependency.
fn wrong_rows(pages: &[Page], manifests: &[&Metadata]) -> Vec<String> {
    let own =
        manifests.iter().flat_map(|metadata| &metadata.packages).filter(|package| package.source.is_none());
    let dependencies = own.flat_map(|package| &package.dependencies);
    let used: BTreeSet<&str> = dependencies
        .filter(|dependency| dependency.source.is_some())
        .map(|dependency| dependency.name.as_str())
        .collect();
    let Some(page) = pages.iter().find(|page| page.path == PAGE) else {
        return vec![format!("{PAGE}: missing")];
    };
    let listed: BTreeSet<&str> =
        page.rows().skip(1).flat_map(|row| row[0].split(", ").collect::<Vec<_>>()).collect();
    let missing = used.difference(&listed).map(|name| format!("{PAGE}: no row for the crate {name}"));
    let stale = listed.difference(&used).map(|name| format!("{PAGE}: no manifest uses the crate {name}"));
    missing.chain(stale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The metadata of a member that needs Rust 1.88 and has one dependency, which is like this.
    fn metadata(licence: Option<&str>, rust: Option<&str>) -> Metadata {
        let dependency = serde_json::json!({"name": "dep", "source": "registry"});
        let member = serde_json::json!({
            "name": "member", "version": "0.1.0", "source": null, "license": "MIT", "rust_version": "1.88",
            "dependencies": [dependency],
        });
        let foreign = serde_json::json!({
            "name": "dep", "version": "1.2.3", "source": "registry", "license": licence, "rust_version": rust,
            "dependencies": [],
        });
        serde_json::from_value(serde_json::json!({"packages": [member, foreign]})).unwrap()
    }

    #[test]
    fn refused_and_missing_licences_are_reported() {
        assert_eq!(refused_licences(&metadata(Some("MIT"), None)), [""; 0]);
        let refused = refused_licences(&metadata(Some("GPL-3.0"), None));
        assert_eq!(refused, ["dep 1.2.3: licence GPL-3.0 is not permitted"]);
        assert_eq!(refused_licences(&metadata(None, None)), ["dep 1.2.3: no licence is named"]);
    }

    #[test]
    fn dependency_that_needs_newer_rust_is_reported() {
        for rust in [None, Some("1.9"), Some("1.88.0")] {
            assert_eq!(too_new(&metadata(None, rust)), [""; 0], "{rust:?}");
        }
        for rust in ["1.88.1", "1.100", "2.0"] {
            assert_eq!(too_new(&metadata(None, Some(rust))).len(), 1, "{rust}");
        }
    }

    #[test]
    fn dependencies_without_rows_and_stale_rows_are_reported() {
        let metadata = metadata(None, None);
        let page =
            |name: &str| Page::new(PAGE, &format!("| crate | why |\n|---|---|\n| {name} | because |\n"));
        assert_eq!(wrong_rows(&[page("dep")], &[&metadata]), [""; 0]);
        let stale = format!("{PAGE}: no manifest uses the crate gone");
        assert_eq!(wrong_rows(&[page("dep, gone")], &[&metadata]), [stale.as_str()]);
        let missing = format!("{PAGE}: no row for the crate dep");
        assert_eq!(wrong_rows(&[page("gone")], &[&metadata]), [missing, stale]);
    }
}
