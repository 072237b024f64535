//! Links between pages lead to files and headings that exist, and so do paths of the checkout in code spans.

use std::path::{Component, Path};

use super::page::Page;

/// The folders at the top of the checkout. A code span that begins with one is a path.
const TOP_FOLDERS: &[&str] = &["crates/", "docs/", "fixtures/", "fuzz/", "tests/", "xtask/", ".ci/"];

/// Pages that describe what was there at their time: their paths in code spans may be gone.
const HISTORY: &[&str] = &["docs/decisions/", "docs/benchmarks/"];

/// The relative links of these pages that lead nowhere, and the paths in them that do not exist.
pub fn wrong_links(pages: &[Page], exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for page in pages {
        for (line, text) in page.prose() {
            let broken = links(text).filter(|link| !resolves(page, link, pages, exists));
            wrong.extend(broken.map(|link| format!("{}:{line}: no such page or heading: {link}", page.path)));
            if HISTORY.iter().any(|folder| page.path.starts_with(folder)) {
                continue;
            }
            let missing = paths(text).filter(|path| !exists(path.trim_end_matches('/')));
            wrong.extend(missing.map(|path| format!("{}:{line}: no such file: {path}", page.path)));
        }
    }
    wrong
}

/// The targets of the links in a line, outside code spans.
fn links(text: &str) -> impl Iterator<Item = String> {
    let prose: String = text.split('`').step_by(2).collect::<Vec<_>>().join("");
    let mut targets = Vec::new();
    let mut rest = prose.as_str();
    while let Some(start) = rest.find("](") {
        rest = &rest[start + 2..];
        let Some(end) = rest.find(')') else { break };
        targets.push(rest[..end].trim().to_owned());
    }
    targets.into_iter()
}

/// The code spans of a line that are paths of the checkout.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    let is_path_char = |char: char| char.is_ascii_alphanumeric() || "/._-".contains(char);
    let spans = text.split('`').skip(1).step_by(2);
    spans.filter(move |span| {
        TOP_FOLDERS.iter().any(|folder| span.starts_with(folder)) && span.chars().all(is_path_char)
    })
}

fn resolves(page: &Page, link: &str, pages: &[Page], exists: &dyn Fn(&str) -> bool) -> bool {
    if link.contains("://") || link.starts_with("mailto:") {
        return true;
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let path = match path {
        "" => page.path.clone(),
        path => match resolved(&page.path, path) {
            Some(path) => path,
            None => return false,
        },
    };
    let target = pages.iter().find(|page| page.path == path);
    match (target, anchor) {
        (Some(_), "") => true,
        (Some(target), anchor) => target.has_anchor(anchor),
        (None, "") => exists(&path),
        (None, _) => false,
    }
}

/// A path relative to a page, as a path in the checkout; `None` if it leaves the checkout.
fn resolved(page: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for component in Path::new(link).components() {
        match component {
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::Normal(name) => parts.push(name.to_str()?),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> Vec<String> {
        let pages = [Page::new("docs/guide/a.md", text), Page::new("docs/b.md", "# One `two`\n")];
        wrong_links(&pages, &|path| path == "LICENSE" || path == "docs/images" || path == "crates/os")
    }

    #[test]
    fn links_that_resolve_are_accepted() {
        for link in [
            "[b](../b.md)",
            "[b](../b.md#one-two)",
            "[licence](../../LICENSE)",
            "![picture](../images)",
            "[away](https://example.org/x#y)",
            "`[no](link.md)`",
            "[b](../b.md), `crates/os` and `crates/os/`",
        ] {
            assert_eq!(wrong(link), [""; 0], "{link}");
        }
        assert_eq!(wrong("# Here\n[up](#here)"), [""; 0]);
    }

    #[test]
    fn broken_links_are_reported_with_their_line() {
        for link in ["gone.md", "../b.md#three", "#nowhere", "../../../etc", "/etc/passwd", "../../LICENSE#a"]
        {
            let found = wrong(&format!("text\n[a]({link})"));
            assert_eq!(found, [format!("docs/guide/a.md:2: no such page or heading: {link}")]);
        }
    }

    #[test]
    fn paths_of_missing_files_are_reported() {
        assert_eq!(wrong("see `crates/gone.rs`"), ["docs/guide/a.md:1: no such file: crates/gone.rs"]);
        let decision = [Page::new("docs/decisions/1.md", "see `crates/gone.rs`")];
        assert_eq!(wrong_links(&decision, &|_| false), [""; 0]);
    }
}
