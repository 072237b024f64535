//! The help: every key, in two columns where there is room.

use ratatui::layout::Rect;
use ratatui::style::Style;

use super::Canvas;
use super::palette::BOLD;
use super::text::put;

/// Each key and what it does, the most needed first: a small terminal shows the first ones.
const KEYS: &[(&str, &str)] = &[
    ("q Ctrl-C", "quit"),
    ("1-5 Tab", "functions, lines, threads, calls, flame"),
    ("↑ ↓ PgUp PgDn", "move"),
    ("← →", "sort by column; close and open calls"),
    ("Enter", "only this thread; open; zoom"),
    ("Esc", "clear filters, zoom out"),
    ("/", "show what contains a text"),
    ("t", "only the next thread, then all"),
    ("w", "write what is seen to a file"),
    ("s", "last interval or since the start"),
    ("m", "CPU time or wall time"),
    ("i", "include threads that wait"),
    ("g", "only samples with the GIL"),
    ("o < >", "other order, sort by column"),
    ("f Space", "freeze the view, go on"),
    (". n", "step one interval"),
    ("p", "pause: take nothing in"),
    ("r", "reset: forget what was seen"),
    ("+ -", "open the hottest path, close below"),
    ("Ctrl-Z", "suspend; fg comes back"),
    ("mouse", "tabs, columns, rows, boxes, wheel"),
    ("own% OWN%", "in the last interval, since the start"),
];

/// Draws it.
pub fn draw(canvas: &mut Canvas, area: Rect) {
    let columns = if usize::from(area.height) < KEYS.len() { 2 } else { 1 };
    let per_column = KEYS.len().div_ceil(columns);
    for (number, (key, what)) in KEYS.iter().enumerate() {
        let (column, row) = ((number / per_column) as u16, (number % per_column) as u16);
        if row >= area.height {
            continue;
        }
        let width = area.width / columns as u16;
        let line =
            Rect { x: area.x + column * width, y: area.y + row, width: width.saturating_sub(1), height: 1 };
        put(canvas.buffer, line, line.x, key, BOLD);
        put(canvas.buffer, line, line.x + 14, what, Style::new());
    }
}
