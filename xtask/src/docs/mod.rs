//! `cargo xtask check-docs`: links resolve, what a newcomer asks has a page, tables of losses and dependencies are complete,
//! texts keep to the style page, and dependencies may be used.
//!
//! One module a check. Each takes texts and returns what is wrong with them, one line each.

mod dependencies;
mod licences;
mod links;
mod losses;
mod page;
mod questions;
mod words;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::run;
use crate::source::files_below;
use page::Page;

/// Folders with pages below the checkout. Pages in the checkout's own folder are checked as well.
const FOLDERS: &[&str] = &["docs", "fixtures", "crates", "tests", "xtask"];

/// Pages that stay short, with their most lines.
const SHORT_PAGES: &[(&str, usize)] = &[("README.md", 150), ("docs/architecture.md", 150)];

/// Checks the checkout.
///
/// # Errors
/// When something is wrong, or cannot be read.
pub fn run() -> Result<()> {
    let root = run::workspace();
    let pages = read_pages(root)?;
    let mut wrong = links::wrong_links(&pages, &|path| root.join(path).exists());
    wrong.extend(questions::unanswered(&pages, questions::QUESTIONS));
    wrong.extend(losses::wrong_rows(&pages));
    wrong.extend(words::banned_in_pages(&pages));
    wrong.extend(words::banned_in_comments(&read_sources(root)?));
    wrong.extend(long_pages(&pages));
    wrong.extend(dependencies::wrong_dependencies(&pages)?);
    ensure!(wrong.is_empty(), "the documentation is wrong:\n  {}", wrong.join("\n  "));
    println!(
        "check-docs: links of {} pages resolve, {} questions are answered, losses and dependencies are listed, and their \
         licences are permitted",
        pages.len(),
        questions::QUESTIONS.len()
    );
    Ok(())
}

/// All pages of the checkout, by their path in it.
fn read_pages(root: &Path) -> Result<Vec<Page>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "md") {
            files.push(path);
        }
    }
    for folder in FOLDERS {
        files.extend(files_below(&root.join(folder), &["md"])?);
    }
    files.sort();
    files.iter().map(|file| Ok(Page::new(&inside(file, root), &read(file)?))).collect()
}

/// All Rust sources of the checkout, by their path in it.
fn read_sources(root: &Path) -> Result<Vec<(String, String)>> {
    let mut sources = Vec::new();
    for folder in ["crates", "tests", "xtask"] {
        for file in files_below(&root.join(folder), &["rs"])? {
            sources.push((inside(&file, root), read(&file)?));
        }
    }
    Ok(sources)
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

fn inside(file: &Path, root: &Path) -> String {
    file.strip_prefix(root).unwrap_or(file).to_string_lossy().into_owned()
}

/// The pages of [`SHORT_PAGES`] that are longer than they may be.
fn long_pages(pages: &[Page]) -> Vec<String> {
    let limits = SHORT_PAGES.iter().filter_map(|(path, most)| {
        let page = pages.iter().find(|page| page.path == *path)?;
        let lines = page.lines.len();
        (lines > *most).then(|| format!("{path}: {lines} lines, at most {most} are permitted"))
    });
    limits.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_readme_is_reported() {
        let pages =
            [Page::new("README.md", &"line\n".repeat(151)), Page::new("docs/a.md", &"line\n".repeat(999))];
        assert_eq!(long_pages(&pages), ["README.md: 151 lines, at most 150 are permitted"]);
        assert_eq!(long_pages(&[Page::new("README.md", &"line\n".repeat(150))]), [""; 0]);
    }
}
