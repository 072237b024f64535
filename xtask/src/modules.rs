//! Part of `cargo xtask check-layers`: within a crate the modules depend on each other without cycles, and a public type has its
//! name to itself in the whole workspace.
//!
//! A folder of modules is one node beside its siblings, and its own modules are checked among themselves: that they use
//! what their folder's module has is what folders are for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::source::{files_below, is_test_file, without_tests};

/// A source file of a crate: the names of its module from the crate's root on, and its code without tests and comments.
struct Module {
    path: Vec<String>,
    code: String,
}

/// What is wrong with the crates in this folder.
pub fn wrong_modules(crates: &Path) -> Result<Vec<String>> {
    let (mut wrong, mut types) = (Vec::new(), BTreeMap::<String, BTreeSet<String>>::new());
    for entry in fs::read_dir(crates)? {
        let folder = entry?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let modules = modules_of(&folder.join("src"))?;
        wrong.extend(cycles(&modules).into_iter().map(|cycle| format!("{name}: cycle of modules: {cycle}")));
        for module in &modules {
            for declared in public_types(&module.code) {
                let place = format!("{name}::{}", module.path.join("::"));
                types.entry(declared.to_owned()).or_default().insert(place);
            }
        }
    }
    for (declared, places) in types.into_iter().filter(|(_, places)| places.len() > 1) {
        let places: Vec<String> = places.into_iter().collect();
        wrong.push(format!("{declared}: a public type of {}", places.join(" and of ")));
    }
    Ok(wrong)
}

fn modules_of(source: &Path) -> Result<Vec<Module>> {
    let mut modules = Vec::new();
    for path in files_below(source, &["rs"])? {
        if !is_test_file(&path, source) {
            let code = code_of(&fs::read_to_string(&path)?);
            modules.push(Module { path: module_path(&path, source), code });
        }
    }
    modules.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(modules)
}

fn module_path(file: &Path, source: &Path) -> Vec<String> {
    let relative: PathBuf = file.strip_prefix(source).unwrap_or(file).with_extension("");
    let names = relative.iter().map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| !matches!(name.as_str(), "mod" | "lib" | "main")).collect()
}

/// The code of a file without tests and comments.
fn code_of(text: &str) -> String {
    let code = without_tests(text).lines().filter(|line| !line.trim_start().starts_with("//"));
    code.collect::<Vec<_>>().join("\n")
}

/// The cycles of a crate: among the modules of its root, and among those of each folder.
fn cycles(modules: &[Module]) -> Vec<String> {
    let folders: BTreeSet<&[String]> =
        modules.iter().filter_map(|module| module.path.split_last()).map(|(_, folder)| folder).collect();
    let arrows_in = |folder: &[String]| arrows(modules, folder);
    folders.into_iter().filter_map(|folder| cycle_of(&arrows_in(folder))).collect()
}

/// Which module of a folder uses which other one, with all that lies below each.
fn arrows(modules: &[Module], folder: &[String]) -> BTreeMap<String, BTreeSet<String>> {
    let inside = |module: &&Module| module.path.len() > folder.len() && module.path.starts_with(folder);
    let names: BTreeSet<&String> =
        modules.iter().filter(inside).map(|module| &module.path[folder.len()]).collect();
    let mut arrows = BTreeMap::<String, BTreeSet<String>>::new();
    for module in modules.iter().filter(inside) {
        let own = &module.path[folder.len()];
        let used = used_paths(module)
            .into_iter()
            .filter(|used| used.len() > folder.len() && used.starts_with(folder));
        let others =
            used.map(|used| used[folder.len()].clone()).filter(|name| name != own && names.contains(name));
        arrows.entry(own.clone()).or_default().extend(others);
    }
    arrows
}

/// The paths that a module names, from the crate's root on.
fn used_paths(module: &Module) -> Vec<Vec<String>> {
    let (mut paths, parent) = (Vec::new(), &module.path[..module.path.len().saturating_sub(1)]);
    for (start, base) in [("crate::", &[][..]), ("super::", parent)] {
        for (at, _) in module.code.match_indices(start) {
            let rest = &module.code[at + start.len()..];
            if let Some(group) = rest.strip_prefix('{') {
                let names = group.split('}').next().unwrap_or_default().split(',');
                paths.extend(names.map(|name| joined(base, name.trim())));
            } else {
                paths.push(joined(base, rest));
            }
        }
    }
    paths
}

/// The names at the beginning of `text`, apart by `::`, below `base`.
fn joined(base: &[String], text: &str) -> Vec<String> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    let names = text[..end].split("::").filter(|name| !name.is_empty()).map(str::to_owned);
    base.iter().cloned().chain(names).collect()
}

/// A cycle of these arrows, if there is one.
fn cycle_of(arrows: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let mut left = arrows.clone();
    // Whatever uses nothing that is left is in no cycle.
    while let Some(leaf) = left.iter().find(|(_, used)| !used.iter().any(|name| left.contains_key(name))) {
        let leaf = leaf.0.clone();
        left.remove(&leaf);
    }
    let mut way = vec![left.keys().next()?.clone()];
    loop {
        let next = left[way.last()?].iter().find(|name| left.contains_key(*name))?;
        if let Some(start) = way.iter().position(|name| name == next) {
            return Some([&way[start..], std::slice::from_ref(next)].concat().join(" -> "));
        }
        way.push(next.clone());
    }
}

fn public_types(code: &str) -> impl Iterator<Item = &str> {
    code.lines().filter_map(|line| {
        let declared = line.trim_start().strip_prefix("pub ")?;
        let kinds = ["struct ", "enum ", "trait ", "union ", "type "];
        let name = kinds.iter().find_map(|kind| declared.strip_prefix(kind))?;
        // What a macro declares has its name from elsewhere.
        name.split(|c: char| !c.is_ascii_alphanumeric()).next().filter(|name| !name.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(path: &str, code: &str) -> Module {
        let path = path.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Module { path, code: code_of(code) }
    }

    #[test]
    fn cycle_of_modules_is_found_through_folders() {
        let mut modules = vec![
            module("one", "use crate::two::Thing;"),
            module("two", "mod inner;"),
            module("two::inner", "use crate::{three, four};"),
            module("three", "use crate::one;"),
            module("four", "use std::fmt;"),
        ];
        assert_eq!(cycles(&modules), ["one -> two -> three -> one"]);
        modules[3].code = "#[cfg(test)]\nmod tests { use crate::one; }".to_owned();
        modules[3].code = code_of(&modules[3].code);
        assert_eq!(cycles(&modules), [""; 0]);
    }

    #[test]
    fn module_may_use_its_folder_and_siblings_in_one_direction() {
        let mut modules = vec![
            module("folder", "mod one; mod two; use one::A;"),
            module("folder::one", "use super::Shared; use super::two::B;"),
            module("folder::two", "use super::Shared;"),
        ];
        assert_eq!(cycles(&modules), [""; 0]);
        modules[2].code += "use super::one::A;";
        assert_eq!(cycles(&modules), ["one -> two -> one"]);
    }

    #[test]
    fn public_types_are_those_that_are_declared_public() {
        let code =
            "pub struct A<T>(T);\n    pub enum B {\nstruct C;\npub(crate) struct D;\npub trait E: F {}";
        assert_eq!(public_types(code).collect::<Vec<_>>(), ["A", "B", "E"]);
    }
}
