//! Phrases of a private dialect that no page and no documentation comment uses. Few, and none with a good use here, so that
//! the check never blocks correct text. `docs/development/style.md` says what to write instead.

use super::page::Page;

/// The phrases, in small letters, with what to write instead.
const BANNED: &[(&str, &str)] = &[
    ("backend", "sampler"),
    ("so many a second", "a rate in Hz"),
    ("is none of", "does not belong to"),
    ("are none of", "do not belong to"),
    ("is no matter of", "does not depend on"),
    ("lacks a cpu", "waits for a CPU"),
    ("lack a cpu", "wait for a CPU"),
    ("lacks its cpu", "waits for a CPU"),
    ("put aside", "preempted"),
    ("has it be", "a verb for what is done"),
    ("have it be", "a verb for what is done"),
    ("what is told of", "what is reported about"),
];

/// Pages that show such phrases as bad examples.
const EXAMPLES: &[&str] = &["docs/development/style.md"];

/// The banned phrases in pages.
pub fn banned_in_pages(pages: &[Page]) -> Vec<String> {
    let mut wrong = Vec::new();
    for page in pages.iter().filter(|page| !EXAMPLES.contains(&page.path.as_str())) {
        wrong.extend(banned(&page.path, page.prose()));
    }
    wrong
}

/// The banned phrases in the documentation comments of Rust sources, by path and text.
pub fn banned_in_comments(sources: &[(String, String)]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, text) in sources {
        let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim_start()));
        let comments = lines.filter(|(_, line)| line.starts_with("//!") || line.starts_with("///"));
        wrong.extend(banned(path, comments));
    }
    wrong
}

fn banned<'a>(path: &str, lines: impl Iterator<Item = (usize, &'a str)>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, line) in lines {
        let small = line.to_lowercase();
        for (phrase, instead) in BANNED.iter().filter(|(phrase, _)| has_words(&small, phrase)) {
            wrong.push(format!("{path}:{number}: \"{phrase}\": write {instead}"));
        }
    }
    wrong
}

/// Whether these words stand in the text, not as parts of others.
fn has_words(text: &str, words: &str) -> bool {
    let is_letter = |char: char| char.is_alphanumeric() || char == '_';
    text.match_indices(words).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + words.len()..].chars().next();
        !before.is_some_and(is_letter) && !after.is_some_and(is_letter)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn banned_phrases_are_reported_in_prose() {
        let text = "A Backend.\n\n    backend in code\n\nbackends, is none offered\n";
        assert_eq!(banned_in_pages(&[Page::new("a.md", text)]), ["a.md:1: \"backend\": write sampler"]);
        assert_eq!(banned_in_pages(&[Page::new(EXAMPLES[0], text)]), [""; 0]);
    }

    #[test]
    fn banned_phrases_are_reported_in_documentation_comments() {
        let text = "//! so many a second\n// backend\nfn backend() {}\n    /// lacks a CPU\n".to_owned();
        let found = banned_in_comments(&[("a.rs".to_owned(), text)]);
        assert_eq!(
            found,
            [
                "a.rs:1: \"so many a second\": write a rate in Hz",
                "a.rs:4: \"lacks a cpu\": write waits for a CPU"
            ]
        );
    }

    #[test]
    fn banned_phrases_are_in_small_letters() {
        assert!(BANNED.iter().all(|(phrase, _)| *phrase == phrase.to_lowercase()));
    }
}
