//! Text of a bounded length, and characters as Python writes them.

/// A text that stops growing at its limit.
pub(super) struct Text {
    text: String,
    /// The number of characters that it may grow by.
    pub left: usize,
    /// Whether something was left out.
    pub is_cut: bool,
}

impl Text {
    /// An empty text that may have this many characters.
    pub fn with_limit(characters: usize) -> Self {
        Text { text: String::new(), left: characters, is_cut: false }
    }

    /// The text; three points at its end say that something was left out.
    pub fn finish(mut self) -> String {
        if self.is_cut {
            self.text.push_str("...");
        }
        self.text
    }

    /// Adds a part, as far as there is room for it.
    pub fn push(&mut self, part: &str) {
        for char in part.chars() {
            if self.left == 0 {
                self.is_cut = true;
                return;
            }
            self.left -= 1;
            self.text.push(char);
        }
    }
}

/// A character in a string as Python writes it.
pub(super) fn escaped(char: char, quote: char) -> String {
    match char {
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        '\\' => "\\\\".to_owned(),
        _ if char == quote => format!("\\{char}"),
        _ if (char as u32) < 0x20 || (0x7F..=0xA0).contains(&(char as u32)) => {
            format!("\\x{:02x}", char as u32)
        }
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => {
            format!("\\u{:04x}", char as u32)
        }
        _ => char.to_string(),
    }
}
