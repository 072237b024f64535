//! Part of `cargo xtask check-layers`: no file of a crate is longer than one idea takes, and no struct is a bag of fields.
//!
//! Tests do not count, and neither do the structs of `mirrors!`, which have the fields that the kernel's side has.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::source::{braces, files_below, is_test_file, only_code, without_tests};

/// The most lines of a file.
const MAX_LINES: usize = 500;

/// The most fields of a struct.
const MAX_FIELDS: usize = 16;

/// What is too large and is being split: files by their path, structs by their crate. An entry that is not needed any more
/// is an error, so that the list becomes empty.
const EXCEPTIONS: &[&str] = &[];

/// Something that is too large.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excess {
    /// What [`EXCEPTIONS`] calls it.
    what: String,
    /// Where it is, and how large.
    message: String,
}

/// What is too large in the crates in this folder, and which exceptions are not needed any more.
///
/// # Errors
/// When a file cannot be read.
pub fn wrong_sizes(crates: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for file in files_below(crates, &["rs", "c", "h"])? {
        let path = file.strip_prefix(crates).unwrap_or(&file).to_string_lossy().into_owned();
        if !is_test_file(&file, crates) {
            found.extend(excesses(&path, &fs::read_to_string(&file)?));
        }
    }
    Ok(judged(&found, EXCEPTIONS))
}

/// What is too large and no exception, and the exceptions without anything that is too large.
fn judged(found: &[Excess], exceptions: &[&str]) -> Vec<String> {
    let known: BTreeSet<&str> = found.iter().map(|excess| excess.what.as_str()).collect();
    let wrong = found.iter().filter(|excess| !exceptions.contains(&excess.what.as_str()));
    let needless = exceptions.iter().filter(|exception| !known.contains(*exception));
    wrong
        .map(|excess| excess.message.clone())
        .chain(needless.map(|exception| {
            format!("{exception}: an exception in xtask/src/sizes.rs that is not needed any more")
        }))
        .collect()
}

/// What is too large in a file, whose path begins with the folder of its crate.
fn excesses(path: &str, text: &str) -> Vec<Excess> {
    let is_rust = path.ends_with(".rs");
    let code = if is_rust { without_tests(text) } else { text };
    let mut found = Vec::new();
    let lines = code.trim_end().lines().count();
    if lines > MAX_LINES {
        let message = format!("{path}: {lines} lines without tests, at most {MAX_LINES} are allowed");
        found.push(Excess { what: path.to_owned(), message });
    }
    if is_rust {
        let name_of_crate = path.split('/').next().unwrap_or_default();
        for (name, fields) in structs(&without_mirrors(&only_code(code))) {
            if fields > MAX_FIELDS {
                let what = format!("{name_of_crate}: struct {name}");
                let message =
                    format!("{path}: struct {name} has {fields} fields, at most {MAX_FIELDS} are allowed");
                found.push(Excess { what, message });
            }
        }
    }
    found
}

/// The code without what stands in `mirrors!`.
fn without_mirrors(code: &str) -> String {
    let (mut kept, mut rest) = (String::new(), code);
    while let Some((before, mirrors)) = rest.split_once("mirrors!") {
        kept.push_str(before);
        rest = braces(mirrors).map_or("", |(_, after)| after);
    }
    kept + rest
}

/// The structs with named fields, and how many each has.
fn structs(code: &str) -> Vec<(&str, usize)> {
    let mut found = Vec::new();
    for (at, keyword) in code.match_indices("struct ") {
        let is_word = !code[..at].ends_with(|char: char| char.is_alphanumeric() || char == '_');
        let declared = &code[at + keyword.len()..];
        let end = declared.find(|char: char| !(char.is_alphanumeric() || char == '_'));
        let (name, rest) = declared.split_at(end.unwrap_or(declared.len()));
        // A struct without named fields ends with a semicolon, or has a round bracket before its fields.
        let has_names = rest.find('{') < rest.find(';') || !rest.contains(';');
        let is_tuple = rest.trim_start().starts_with('(');
        if let (true, false, Some((fields, _))) = (is_word && has_names, is_tuple, braces(rest)) {
            found.push((name, field_count(fields)));
        }
    }
    found
}

/// The number of fields: of single colons that stand in no bracket.
fn field_count(fields: &str) -> usize {
    let (mut count, mut depth) = (0, 0_i32);
    let fields = fields.replace("->", "  ").replace("::", "  ");
    for char in fields.chars() {
        match char {
            '(' | '[' | '{' | '<' => depth += 1,
            ')' | ']' | '}' | '>' => depth -= 1,
            ':' if depth == 0 => count += 1,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &str, text: &str) -> Vec<String> {
        excesses(path, text).into_iter().map(|excess| excess.what).collect()
    }

    fn fields(count: usize) -> String {
        (0..count).map(|number| format!("    field_{number}: u8,\n")).collect()
    }

    #[test]
    fn files_count_up_to_their_tests() {
        let code = "fn f() {}\n".repeat(MAX_LINES);
        let tests = "\n#[cfg(test)]\nmod tests {\n    fn t() {}\n}\n";
        assert_eq!(names("a/src/b.rs", &(code.clone() + tests)), [""; 0]);
        let longer = format!("#[cfg(test)]\nmod tests;\n{code}");
        assert_eq!(names("a/src/b.rs", &(longer + tests)), ["a/src/b.rs"]);
        assert_eq!(names("a/src/b.h", &(code + tests)), ["a/src/b.h"]);
    }

    #[test]
    fn fields_are_counted_outside_of_brackets() {
        let code = "
            /// A struct Comment { a: u8 }
            pub struct A<T: Clone> where T: Copy { a: Vec<(u8, T)>, #[x(y = \"z: {\")] pub b: [std::fmt::A; 2] }
            struct B;
            struct C(u8, D);
            struct D<'a, F> { call: Box<dyn Fn(u8) -> F>, 'a: &'a str, c: fn(a: u8) -> u8, }
            fn f() { g(E { a: 1 }) }";
        assert_eq!(structs(&only_code(code)), [("A", 2), ("D", 3)]);
    }

    #[test]
    fn structs_with_too_many_fields_are_found() {
        let large = format!("struct A {{\n{}}}\n", fields(MAX_FIELDS + 1));
        assert_eq!(names("a/src/b.rs", &large), ["a: struct A"]);
        assert_eq!(names("a/src/b.rs", &format!("struct A {{\n{}}}\n", fields(MAX_FIELDS))), [""; 0]);
        let test = format!("#[cfg(test)]\nmod tests {{\n{large}}}\n");
        assert_eq!(names("a/src/b.rs", &test), [""; 0]);
    }

    #[test]
    fn mirrors_have_as_many_fields_as_they_need() {
        let large = |name: &str| format!("struct {name} {{\n{}}}\n", fields(MAX_FIELDS + 1));
        let text = format!("mirrors! {{\n{}}}\n{}", large("A"), large("B"));
        assert_eq!(names("a/src/b.rs", &text), ["a: struct B"]);
    }

    #[test]
    fn exceptions_are_allowed_only_while_needed() {
        let excess = |what: &str| Excess { what: what.to_owned(), message: format!("{what} is too large") };
        let (one, two) = (excess("one"), excess("two"));
        assert_eq!(judged(&[one.clone(), two], &["one"]), ["two is too large"]);
        let needless = judged(&[one], &["one", "three"]);
        assert!(needless.len() == 1 && needless[0].starts_with("three: an exception"), "{needless:?}");
    }
}
