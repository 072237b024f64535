//! A page of documentation as the checks read it: its lines, which of them are code, and its headings.

use std::collections::BTreeMap;

/// A line of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The text.
    pub text: String,
    /// Whether it belongs to a block of code.
    pub is_code: bool,
}

/// A heading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heading {
    /// The text, without marks.
    pub text: String,
    /// What a link to it names, as GitHub forms it.
    pub anchor: String,
    /// 1 for `#`, 2 for `##` and so on.
    pub level: usize,
    /// Its index among the lines.
    pub line: usize,
}

/// A page.
#[derive(Clone, Debug)]
pub struct Page {
    /// The path in the checkout.
    pub path: String,
    /// All lines.
    pub lines: Vec<Line>,
    /// All headings, in order.
    pub headings: Vec<Heading>,
}

impl Page {
    /// Reads a text.
    pub fn new(path: &str, text: &str) -> Self {
        let lines = lines(text);
        let headings = headings(&lines);
        Page { path: path.to_owned(), lines, headings }
    }

    /// The lines that are no code, with their number from 1.
    pub fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.lines.iter().enumerate().filter(|(_, line)| !line.is_code);
        numbered.map(|(index, line)| (index + 1, line.text.as_str()))
    }

    /// Whether a link can name this heading.
    pub fn has_anchor(&self, anchor: &str) -> bool {
        self.headings.iter().any(|heading| heading.anchor == anchor)
    }

    /// The text from this heading to the next one of its level or above.
    pub fn section(&self, heading: &str) -> Option<String> {
        let index = self.headings.iter().position(|one| one.text == heading)?;
        let start = &self.headings[index];
        let next = self.headings[index + 1..].iter().find(|one| one.level <= start.level);
        let end = next.map_or(self.lines.len(), |next| next.line);
        let texts: Vec<&str> = self.lines[start.line..end].iter().map(|line| line.text.as_str()).collect();
        Some(texts.join("\n"))
    }

    /// The cells of all rows of tables in the text, without the rows of dashes.
    pub fn rows(&self) -> impl Iterator<Item = Vec<&str>> {
        let rows = self.prose().filter_map(|(_, text)| text.strip_prefix('|')?.strip_suffix('|'));
        let rows = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
        rows.filter(|cells| !cells.iter().all(|cell| cell.chars().all(|char| matches!(char, '-' | ':'))))
    }
}

/// The lines of a page. Code is what stands between fences, or indented behind an empty line.
fn lines(text: &str) -> Vec<Line> {
    let (mut lines, mut is_fenced) = (Vec::<Line>::new(), false);
    for text in text.lines() {
        let is_fence = text.trim_start().starts_with("```");
        let follows = lines.last().is_none_or(|before| before.text.trim().is_empty() || before.is_code);
        let is_indented = text.starts_with("    ") && follows;
        let is_code = is_fenced || is_fence || is_indented;
        is_fenced ^= is_fence;
        lines.push(Line { text: text.to_owned(), is_code });
    }
    lines
}

fn headings(lines: &[Line]) -> Vec<Heading> {
    let mut used = BTreeMap::<String, usize>::new();
    let mut headings = Vec::new();
    for (line, text) in lines.iter().enumerate().filter(|(_, line)| !line.is_code) {
        let level = text.text.chars().take_while(|char| *char == '#').count();
        let Some(title) = text.text[level..].strip_prefix(' ').filter(|_| level > 0) else { continue };
        let title = title.trim().replace(['`', '*'], "");
        let anchor = anchor_of(&title);
        let times = used.entry(anchor.clone()).or_default();
        let anchor = if *times == 0 { anchor } else { format!("{anchor}-{times}") };
        *times += 1;
        headings.push(Heading { text: title, anchor, level, line });
    }
    headings
}

/// The anchor of a heading: small letters, without punctuation, hyphens for spaces.
fn anchor_of(title: &str) -> String {
    let kept = title.chars().filter(|char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_'));
    kept.map(|char| if char == ' ' { '-' } else { char }).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_have_the_anchors_of_github() {
        let page = Page::new(
            "a.md",
            "# `dump --json`\ntext\n## What, and why?\n## What, and why?\n```\n# code\n```\n",
        );
        let anchors: Vec<&str> = page.headings.iter().map(|heading| heading.anchor.as_str()).collect();
        assert_eq!(anchors, ["dump---json", "what-and-why", "what-and-why-1"]);
        assert_eq!(page.headings[0].text, "dump --json");
    }

    #[test]
    fn section_ends_at_the_next_heading_of_its_level() {
        let page = Page::new("a.md", "# A\n## B\nb\n### C\nc\n## D\nd\n");
        assert_eq!(page.section("B").unwrap(), "## B\nb\n### C\nc");
        assert_eq!(page.section("D").unwrap(), "## D\nd");
        assert_eq!(page.section("E"), None);
    }

    #[test]
    fn indented_and_fenced_lines_are_code() {
        let page = Page::new("a.md", "text\n    continued\n\n    code\n    more\n\n```\nfenced\n```\ntext\n");
        let prose: Vec<usize> = page.prose().map(|(line, _)| line).collect();
        assert_eq!(prose, [1, 2, 3, 6, 10]);
    }

    #[test]
    fn rows_of_tables_come_without_dashes() {
        let page = Page::new("a.md", "| a | b |\n|---|:-:|\n| 1 | 2 |\ntext\n");
        assert_eq!(page.rows().collect::<Vec<_>>(), [["a", "b"], ["1", "2"]]);
    }
}
