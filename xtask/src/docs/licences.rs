//! Which licences a dependency may have. An expression in SPDX's words is permitted if one choice of it is.

/// Licences that any dependency may have.
const PERMITTED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Further licences of single crates, each with its reason in `docs/development/dependencies.md`.
const EXCEPTIONS: &[(&str, &str)] = &[("inferno", "CDDL-1.0"), ("libfuzzer-sys", "NCSA")];

/// Whether a crate may be used under this expression.
pub fn is_permitted(name: &str, expression: &str) -> bool {
    let words = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = words.split_whitespace().collect();
    let mut rest = words.as_slice();
    let is_permitted = any_of(name, &mut rest);
    is_permitted && rest.is_empty()
}

/// `A OR B`.
fn any_of(name: &str, rest: &mut &[&str]) -> bool {
    let mut is_permitted = all_of(name, rest);
    while take(rest, "OR") {
        is_permitted |= all_of(name, rest);
    }
    is_permitted
}

/// `A AND B`, which binds more tightly.
fn all_of(name: &str, rest: &mut &[&str]) -> bool {
    let mut is_permitted = one(name, rest);
    while take(rest, "AND") {
        is_permitted &= one(name, rest);
    }
    is_permitted
}

/// A licence, with an exception or not, or an expression in parentheses.
fn one(name: &str, rest: &mut &[&str]) -> bool {
    if take(rest, "(") {
        let is_permitted = any_of(name, rest);
        return take(rest, ")") && is_permitted;
    }
    let Some((licence, after)) = rest.split_first() else { return false };
    *rest = after;
    // An exception permits more than the licence does.
    if take(rest, "WITH") {
        *rest = rest.get(1..).unwrap_or_default();
    }
    PERMITTED.contains(licence) || EXCEPTIONS.contains(&(name, licence))
}

fn take(rest: &mut &[&str], word: &str) -> bool {
    let is_next = rest.first() == Some(&word);
    if is_next {
        *rest = &rest[1..];
    }
    is_next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permitted_choice_of_an_expression_suffices() {
        for expression in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "Apache-2.0 WITH LLVM-exception OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "GPL-3.0 AND MIT OR Zlib",
        ] {
            assert!(is_permitted("a", expression), "{expression}");
        }
    }

    #[test]
    fn other_licences_and_broken_expressions_are_refused() {
        for expression in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT OR Zlib) AND GPL-3.0",
            "(MIT",
            "MIT)",
            "MIT AND",
            "MIT Zlib",
        ] {
            assert!(!is_permitted("a", expression), "{expression}");
        }
    }

    #[test]
    fn exception_holds_for_its_crate_alone() {
        assert!(is_permitted("inferno", "CDDL-1.0"));
        assert!(!is_permitted("other", "CDDL-1.0"));
    }
}
