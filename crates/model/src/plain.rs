//! Names that come from a target, made safe to be shown. A function may be called anything: a line break would
//! forge a line, an escape sequence would command the terminal. What a format needs beyond that is its own
//! business.

use std::borrow::Cow;

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

/// Controls (the C1 ones too: U+009B starts an escape sequence), what breaks lines, turns the direction of
/// writing round or cannot be seen at all, and what no XML file may hold.
pub fn is_unsafe(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{ad}' | '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}'
            | '\u{e0000}'..='\u{e007f}')
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
}
