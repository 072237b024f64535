//! What is said to the user beside the result: on stderr, and never a reason to fail.

use std::fmt::Display;
use std::io::{self, Write};

use profiler_output::escaped_text;

/// Prints a line to stderr. A stderr that is closed or full is no reason to lose a recording. What messages quote
/// may be the choice of others: nothing in it commands the terminal.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "{}", safe(&line.to_string()));
}

/// The text with all but its own line breaks made safe to be shown.
fn safe(text: &str) -> String {
    text.split('\n').map(escaped_text).collect::<Vec<_>>().join("\n")
}

/// Prints an error, with what it is about and what to try next.
pub fn report(error: &anyhow::Error) {
    say(format_args!("error: {error:#}"));
}

/// A count as people read it: `1,234,567`.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with its noun: `1 sample`, `2 samples`.
pub fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_messages_quote_commands_nothing() {
        assert_eq!(safe("no \x1b]0;x\x07\n  try: é"), "no \\u{1b}]0;x\\u{7}\n  try: é");
    }

    #[test]
    fn counts_are_grouped_by_three() {
        let cases = [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345, "12,345"), (1_234_567, "1,234,567")];
        for (count, text) in cases {
            assert_eq!(grouped(count), text);
        }
        assert_eq!((counted(1, "sample"), counted(2, "sample")), ("1 sample".into(), "2 samples".into()));
    }
}
