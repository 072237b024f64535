//! Rust source as the checks read it: which files are tests, and the code of a file without tests, comments and texts.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// All files below a folder with one of these endings, in order.
pub fn files_below(folder: &Path, endings: &[&str]) -> Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| endings.iter().any(|wanted| ending == *wanted)) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a file is a part of the tests: `tests.rs`, a file in a folder `tests`, or one that its parent module declares
/// for tests only. `folder` is where the search for files began.
pub fn is_test_file(file: &Path, folder: &Path) -> bool {
    let inside = file.strip_prefix(folder).unwrap_or(file);
    let is_named = inside.iter().any(|name| name == "tests" || name == "tests.rs");
    is_named || parents_of(file).iter().any(|parent| declares_tests(parent, file))
}

/// The files that may declare the module in `file`.
fn parents_of(file: &Path) -> Vec<PathBuf> {
    let Some(folder) = file.parent() else { return Vec::new() };
    let inside = ["mod.rs", "lib.rs", "main.rs"].map(|name| folder.join(name));
    inside.into_iter().chain([folder.with_extension("rs")]).filter(|parent| parent != file).collect()
}

fn declares_tests(parent: &Path, file: &Path) -> bool {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let declaration = format!("mod {name};");
    fs::read_to_string(parent).is_ok_and(|text| {
        let mut lines = text.lines().map(str::trim);
        while let Some(line) = lines.next() {
            if line == "#[cfg(test)]" && lines.next().is_some_and(|next| next.ends_with(&declaration)) {
                return true;
            }
        }
        false
    })
}

/// The text before the module of tests that ends a file, if it has one.
pub fn without_tests(text: &str) -> &str {
    let ends = |at: &usize| {
        let declared = text[*at..].lines().nth(1).unwrap_or_default();
        declared.contains("mod ") && declared.contains('{')
    };
    let end = text.match_indices("#[cfg(test)]\n").map(|(at, _)| at).find(ends);
    &text[..end.unwrap_or(text.len())]
}

/// The text with spaces in place of comments, string and character literals. Lines stay where they are.
pub fn only_code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = skipped(rest);
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.extend(rest[..length].chars().map(|char| if char == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        }
    }
    code
}

/// The length of the comment or literal with which this text begins; 0 if it begins with neither.
fn skipped(text: &str) -> usize {
    let end_after = |start: usize, end: &str| {
        text[start..].find(end).map_or(text.len(), |found| start + found + end.len())
    };
    let bytes = text.as_bytes();
    match bytes {
        [b'/', b'/', ..] => text.find('\n').unwrap_or(text.len()),
        [b'/', b'*', ..] => end_after(2, "*/"),
        [b'"', ..] => end_of_literal(bytes, b'"'),
        [b'r', b'"', ..] => end_after(2, "\""),
        [b'r', b'#', b'"', ..] => end_after(3, "\"#"),
        // A lifetime has no quote after its first character.
        [b'\'', b'\\', ..] => end_of_literal(bytes, b'\''),
        [b'\'', ..] => match text[1..].chars().next() {
            Some(char) if text[1 + char.len_utf8()..].starts_with('\'') => char.len_utf8() + 2,
            _ => 0,
        },
        _ => 0,
    }
}

fn end_of_literal(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// The content of the braces that open first in this text, and what follows them.
pub fn braces(text: &str) -> Option<(&str, &str)> {
    let (start, mut depth) = (text.find('{')? + 1, 0_usize);
    for (at, char) in text[start..].char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth == 0 => return Some((&text[start..start + at], &text[start + at + 1..])),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_module_of_tests_ends_the_code() {
        let code = "#[cfg(test)]\nmod tests;\n#[cfg(test)]\nfn help() {}\nfn code() {}\n";
        assert_eq!(without_tests(code), code);
        assert_eq!(without_tests(&format!("{code}#[cfg(test)]\nmod tests {{\n}}\n")), code);
        assert_eq!(without_tests(&format!("{code}#[cfg(test)]\npub mod tests {{\n}}\n")), code);
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        for (text, code) in [
            ("a // b {\nc", "a       \nc"),
            ("a /* b\n */ c", "a     \n    c"),
            ("a(\"b \\\" {\") c", "a(        ) c"),
            ("a('{', '\\'') c", "a(   ,     ) c"),
            ("a: &'a str, b: &'b str", "a: &'a str, b: &'b str"),
            ("r#\"a \" b\"# c", "           c"),
        ] {
            assert_eq!(only_code(text), code, "{text}");
        }
    }

    #[test]
    fn braces_end_where_they_close() {
        assert_eq!(braces("a { b { c } d } e"), Some((" b { c } d ", " e")));
        assert_eq!(braces("a { b"), None);
    }

    #[test]
    fn test_files_are_known_by_name_and_declaration() {
        let own = crate::run::workspace().join("crates");
        let is_test = |path: &str| is_test_file(&own.join(path), &own);
        assert!(is_test("python/src/frames/tests.rs") && is_test("python/src/hostile.rs"));
        assert!(!is_test("python/src/frames.rs") && !is_test("tui/src/state/mod.rs"));
    }
}
