//! Names that come from a target, made safe for the text they go into. A function may be called anything: a
//! line break would forge a line, an escape sequence would command the terminal.

use std::borrow::Cow;
use std::fmt::Write;

/// The name with everything that is no visible character written as its escape: `\n`, `\u{1b}`.
pub fn plain(name: &str) -> Cow<'_, str> {
    if !name.chars().any(is_unsafe) {
        return Cow::Borrowed(name);
    }
    let mut safe = String::with_capacity(name.len() + 8);
    for char in name.chars() {
        if is_unsafe(char) { safe.extend(char.escape_default()) } else { safe.push(char) }
    }
    Cow::Owned(safe)
}

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

/// Controls (the C1 ones too: U+009B starts an escape sequence), what breaks lines or turns the direction of
/// writing round, and what no XML file may hold.
fn is_unsafe(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_visible_stays() {
        for name in ["näme", "<module>", "日本", "a b", "f.<locals>.\"g\"", "🦀"] {
            assert_eq!(plain(name), name);
        }
    }

    #[test]
    fn what_commands_a_terminal_or_breaks_a_line_is_written_out() {
        let name = "a\nb\rc\td\u{1b}[2J\u{7f}\u{9b}2J\u{202e}\u{2028}\0";
        let escaped = r"a\nb\rc\td\u{1b}[2J\u{7f}\u{9b}2J\u{202e}\u{2028}\u{0}";
        assert_eq!(plain(name), escaped);
    }

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
