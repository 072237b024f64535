//! Markdown files with tables between marks: `<!-- bench NAME -->` to `<!-- end NAME -->`. The tables of the
//! cases that were run replace those between the marks; the text around them stays.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::table::Table;

/// Puts the tables of a case into a file, which is created if it does not exist. In a folder, that is the file
/// with the marks of the case, or else `NAME.md`.
///
/// # Errors
/// When the file or the folder cannot be read or written.
pub fn update(path: &Path, name: &str, tables: &[Table]) -> Result<()> {
    let path = match path.is_dir() {
        true => file_of(path, name).with_context(|| path.display().to_string())?,
        false => path.to_owned(),
    };
    let text = match path.exists() {
        true => fs::read_to_string(&path).with_context(|| path.display().to_string())?,
        false => String::new(),
    };
    let tables: String = tables.iter().map(Table::markdown).collect();
    fs::write(&path, with_section(&text, name, &tables)).with_context(|| path.display().to_string())
}

/// The file of a folder that has the marks of a case, or else the one that is named after the case.
fn file_of(folder: &Path, name: &str) -> Result<PathBuf> {
    let begin = begin_mark(name);
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_markdown = path.extension().is_some_and(|extension| extension == "md");
        if is_markdown && fs::read_to_string(&path)?.contains(&begin) {
            return Ok(path);
        }
    }
    Ok(folder.join(name).with_extension("md"))
}

/// The text with a section's content replaced, or added at the end.
fn with_section(text: &str, name: &str, content: &str) -> String {
    let (begin, end) = (begin_mark(name), format!("<!-- end {name} -->\n"));
    let section = format!("{begin}\n{content}{end}");
    let found = text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    match found {
        Some((before, after)) => format!("{before}{section}{after}"),
        None => format!("{text}{section}"),
    }
}

fn begin_mark(name: &str) -> String {
    format!("<!-- bench {name} -->\n")
}

#[cfg(test)]
mod tests {
    use super::super::cases::Case;
    use super::*;

    #[test]
    fn only_the_content_of_the_section_changes() {
        let text =
            "# Figures\n<!-- bench a -->\nold\n<!-- end a -->\nWhy.\n<!-- bench b -->\n<!-- end b -->\n";
        let new =
            "# Figures\n<!-- bench a -->\n\nnew\n<!-- end a -->\nWhy.\n<!-- bench b -->\n<!-- end b -->\n";
        assert_eq!(with_section(text, "a", "new\n"), new);
        assert_eq!(with_section("", "c", "new\n"), "<!-- bench c -->\n\nnew\n<!-- end c -->\n");
    }

    #[test]
    fn every_case_has_its_place_in_the_documentation() {
        let results = crate::run::workspace().join("docs/benchmarks/results");
        for name in Case::ALL.map(Case::name).into_iter().chain(["circumstances"]) {
            let path = file_of(&results, name).unwrap();
            assert!(path.exists(), "no page in {} has the marks of {name}", results.display());
        }
    }

    #[test]
    fn case_without_marks_gets_a_page_of_its_own() {
        let results = crate::run::workspace().join("docs/benchmarks/results");
        assert_eq!(file_of(&results, "no_such_case").unwrap(), results.join("no_such_case.md"));
    }
}
