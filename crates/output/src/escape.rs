//! Names that come from a target, made safe for the text they go into, beyond what `profiler_model::plain`
//! does for all texts.

use std::borrow::Cow;
use std::fmt::Write;
use std::io;

use profiler_model::is_unsafe;
pub use profiler_model::plain;
use serde_json::ser::Formatter;

/// The name as a frame of a collapsed stack: `plain`, with the `;` that would end the frame written out as well,
/// and spaces around it, which readers strip from some frames of a line and not from others. Stacks with the
/// same frames become one, so different names stay different: a backslash that reads like an escape is doubled.
pub(crate) fn frame(name: &str) -> String {
    if name.is_empty() {
        return "<unnamed>".to_owned();
    }
    let inner = name.trim();
    let start = name.len() - name.trim_start().len();
    let is_around = |at: usize| at < start || at >= start + inner.len();
    let mut safe = String::with_capacity(name.len());
    for (at, char) in name.char_indices() {
        let rest = &name[at + char.len_utf8()..];
        match char {
            ';' => safe.extend(char.escape_unicode()),
            _ if is_unsafe(char) => safe.extend(char.escape_default()),
            _ if is_around(at) => safe.extend(char.escape_unicode()),
            '\\' if reads_like_an_escape(rest) => safe.push_str("\\\\"),
            _ => safe.push(char),
        }
    }
    safe
}

/// Whether a backslash before this would be taken for the start of an escape.
fn reads_like_an_escape(rest: &str) -> bool {
    let is_escaped = |char: char| char == ';' || is_unsafe(char);
    rest.starts_with("u{") || rest.starts_with(['n', 'r', 't', '\\']) || rest.starts_with(is_escaped)
}

/// JSON text with the controls that JSON allows but terminals obey written as escapes. They occur in no other
/// place than inside of strings.
pub fn json(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|char| is_unsafe(char) && char != '\n') {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        if is_unsafe(char) && char != '\n' {
            for unit in char.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(char);
        }
    }
    Cow::Owned(safe)
}

/// Writes JSON as it is serialised, its strings as [`json`] writes them: for files too large to be held as text.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SafeStrings;

impl Formatter for SafeStrings {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        writer.write_all(json(fragment).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde_json::Serializer;

    use super::*;

    #[test]
    fn a_frame_cannot_become_two() {
        assert_eq!(frame(" a;b\n"), r"\u{20}a\u{3b}b\n");
        assert_eq!((frame(""), frame(" ")), ("<unnamed>".to_owned(), r"\u{20}".to_owned()));
    }

    #[test]
    fn two_names_stay_two() {
        let names = [
            "a\nb",
            "a\\nb",
            "a\\\nb",
            "a\\\\nb",
            "a\\b",
            "a\\\\b",
            "a;b",
            "a:b",
            r"a\u{3b}b",
            r"a\\u{3b}b",
            "a\\;b",
            "a",
            "a ",
            " a",
            "",
            " ",
            "  ",
            r"\u{20}",
            "a\\",
            "a\\ ",
            "a\u{a0}",
            "\u{200b}a",
            r"\udc80",
        ];
        let frames: std::collections::HashSet<String> = names.iter().map(|name| frame(name)).collect();
        assert_eq!(frames.len(), names.len(), "{frames:?}");
        assert_eq!(frame(r"C:\path\dir"), r"C:\path\dir");
        assert_eq!(frame(r"\udc80"), r"\udc80");
    }

    #[test]
    fn escaped_json_still_means_the_same() {
        let name = "a\nb\u{9b}2J\u{7f}\u{202e}é\u{1b}";
        let text = serde_json::to_string_pretty(&[name]).expect("strings serialise");
        let safe = json(&text);
        assert!(safe.chars().all(|char| char == '\n' || !is_unsafe(char)), "{safe}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&safe).expect("still JSON"), [name]);
        let mut streamed = Vec::new();
        [name].serialize(&mut Serializer::with_formatter(&mut streamed, SafeStrings)).expect("no error");
        let compact = serde_json::to_string(&[name]).expect("strings serialise");
        assert_eq!(String::from_utf8(streamed).expect("UTF-8"), json(&compact));
    }
}
