//! Names that come from a target, made safe for the text they go into, beyond what `profiler_model::plain`
//! does for all texts.

use std::borrow::Cow;
use std::fmt::Write;

use profiler_model::is_unsafe;
pub use profiler_model::plain;

/// The name as a frame of a collapsed stack: `plain`, with `:` for the `;` that would end the frame, and
/// without spaces around it, which readers strip from some frames of a line and not from others.
pub(crate) fn frame(name: &str) -> String {
    let safe = plain(name).replace(';', ":");
    match safe.trim() {
        "" => "<unnamed>".to_owned(),
        trimmed => trimmed.to_owned(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_cannot_become_two() {
        assert_eq!(frame(" a;b\n "), r"a:b\n");
        assert_eq!(frame("  "), "<unnamed>");
    }

    #[test]
    fn escaped_json_still_means_the_same() {
        let name = "a\nb\u{9b}2J\u{7f}\u{202e}é\u{1b}";
        let text = serde_json::to_string_pretty(&[name]).expect("strings serialise");
        let safe = json(&text);
        assert!(safe.chars().all(|char| char == '\n' || !is_unsafe(char)), "{safe}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&safe).expect("still JSON"), [name]);
    }
}
