//! The help: side by side where everything fits, else one below the other, to be scrolled.

use ratatui::layout::Rect;
use ratatui::style::Style;

use super::Canvas;
use super::palette::{BOLD, CHOSEN};
use super::text::put;
use crate::state::{Action, HelpEntry};

/// The column where texts begin; it is narrower than the text only in very narrow terminals.
const INDENT: u16 = 14;
/// A column with room for every text.
const FULL: u16 = 54;

/// Draws it, with the entry of the cursor in sight; `first` is the first line that is shown.
pub fn draw(canvas: &mut Canvas, area: Rect, cursor: usize, first: &mut usize) {
    let entries = canvas.state.help();
    let height = usize::from(area.height);
    let per_column = entries.len().div_ceil(2);
    if entries.len() > height && per_column <= height && area.width >= 2 * FULL {
        let width = area.width / 2;
        let (left, right) = entries.split_at(per_column);
        scrolled(canvas, Rect { width, ..area }, left, None, &mut 0);
        scrolled(canvas, Rect { x: area.x + width, width, ..area }, right, None, &mut 0);
    } else {
        let cursor = (entries.len() > height || area.width < FULL).then_some(cursor);
        scrolled(canvas, area, &entries, cursor, first);
    }
}

fn scrolled(
    canvas: &mut Canvas,
    area: Rect,
    entries: &[HelpEntry],
    cursor: Option<usize>,
    first: &mut usize,
) {
    let lines: Vec<Line> =
        entries.iter().enumerate().flat_map(|(n, entry)| wrapped(n, entry, area)).collect();
    let height = usize::from(area.height).max(1);
    let is_chosen = |line: &Line| Some(line.entry) == cursor;
    if let Some(last) = lines.iter().rposition(is_chosen) {
        let start = lines.iter().position(is_chosen).unwrap_or(last);
        *first = (*first).max((last + 1).saturating_sub(height)).min(start);
    }
    *first = (*first).min(lines.len().saturating_sub(height));
    for (row, line) in lines.iter().skip(*first).take(usize::from(area.height)).enumerate() {
        let place = Rect { y: area.y + row as u16, height: 1, ..area };
        put(canvas.buffer, place, place.x, line.word, BOLD);
        put(canvas.buffer, place, place.x + line.indent, &line.text, Style::new());
        if is_chosen(line) {
            canvas.buffer.set_style(place, CHOSEN);
        }
        if cursor.is_some() {
            canvas.clickable.push((place, Action::Point(line.entry)));
        }
    }
}

/// A line of the screen.
struct Line<'a> {
    entry: usize,
    word: &'a str,
    indent: u16,
    text: String,
}

/// The lines of an entry: no word of it is left out, however narrow the terminal is.
fn wrapped(number: usize, entry: &HelpEntry, area: Rect) -> Vec<Line<'_>> {
    let indent = INDENT.max(entry.word.chars().count() as u16 + 1);
    let room = usize::from(area.width.saturating_sub(indent)).max(1);
    let mut texts = vec![String::new()];
    for word in entry.text.split(' ') {
        let length = texts.last().map_or(0, |text| text.chars().count());
        match texts.last_mut() {
            Some(text) if length == 0 => *text = word.to_owned(),
            Some(text) if length + 1 + word.chars().count() <= room => *text += &format!(" {word}"),
            _ => texts.push(word.to_owned()),
        }
    }
    let line =
        |(row, text)| Line { entry: number, word: if row == 0 { &entry.word } else { "" }, indent, text };
    texts.into_iter().enumerate().map(line).collect()
}
