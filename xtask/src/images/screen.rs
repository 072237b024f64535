//! The screen of a terminal as an SVG drawing: rectangles for backgrounds, and a text for each run of cells that look alike.

use std::fmt::Write;

use vt100::{Cell, Color, Screen};

/// The pixels of a cell, and of the margin around all of them.
const CELL_WIDTH: f64 = 8.0;
const CELL_HEIGHT: u32 = 18;
const MARGIN: u32 = 10;

/// How far below the upper edge of a cell its letters stand.
const BASELINE: u32 = 14;

/// What a terminal draws where a program names no colour.
const FOREGROUND: &str = "#d4d4d4";
const BACKGROUND: &str = "#1e1e1e";

/// The sixteen colours with numbers of their own.
const PALETTE: [&str; 16] = [
    "#1e1e1e", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#d4d4d4", "#7f848e",
    "#ff7a85", "#b5e890", "#ffd68a", "#82c7ff", "#e29bf5", "#7fe0ec", "#ffffff",
];

/// How a cell looks.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Look {
    foreground: String,
    background: String,
    is_bold: bool,
    is_dim: bool,
}

impl Look {
    fn of(cell: &Cell) -> Self {
        let colours = (colour(cell.fgcolor(), FOREGROUND), colour(cell.bgcolor(), BACKGROUND));
        let (foreground, background) = if cell.inverse() { (colours.1, colours.0) } else { colours };
        Look { foreground, background, is_bold: cell.bold(), is_dim: cell.dim() }
    }
}

/// Draws a screen.
pub fn svg(screen: &Screen) -> String {
    let (rows, columns) = size(screen);
    let width = f64::from(columns) * CELL_WIDTH + 2.0 * f64::from(MARGIN);
    let height = u32::from(rows) * CELL_HEIGHT + 2 * MARGIN;
    let mut drawing = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"DejaVu Sans Mono, Menlo, Consolas, monospace\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"{BACKGROUND}\"/>\n"
    );
    for row in 0..rows {
        for run in runs(screen, row) {
            draw(&run, row, &mut drawing);
        }
    }
    drawing.push_str("</svg>\n");
    drawing
}

/// Rows and columns.
fn size(screen: &Screen) -> (u16, u16) {
    let (rows, columns) = screen.size();
    (rows.get(), columns.get())
}

/// Neighbouring cells that look alike.
struct Run {
    column: u16,
    text: String,
    look: Look,
}

fn runs(screen: &Screen, row: u16) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for column in 0..size(screen).1 {
        let Some(cell) = screen.cell(row, column) else { continue };
        let text = if cell.has_contents() { cell.contents() } else { " " };
        let look = Look::of(cell);
        match runs.last_mut() {
            Some(run) if run.look == look => run.text.push_str(text),
            _ => runs.push(Run { column, text: text.to_owned(), look }),
        }
    }
    runs
}

fn draw(run: &Run, row: u16, drawing: &mut String) {
    let x = f64::from(MARGIN) + f64::from(run.column) * CELL_WIDTH;
    let y = MARGIN + u32::from(row) * CELL_HEIGHT;
    let Look { foreground, background, is_bold, is_dim } = &run.look;
    if background != BACKGROUND {
        let width = run.text.chars().count() as f64 * CELL_WIDTH;
        // Writing to a text does not fail.
        let _ = writeln!(
            drawing,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{CELL_HEIGHT}\" fill=\"{background}\"/>"
        );
    }
    for (start, word) in words(&run.text) {
        let x = x + start as f64 * CELL_WIDTH;
        let length = word.chars().count() as f64 * CELL_WIDTH;
        let weight = if *is_bold { " font-weight=\"bold\"" } else { "" };
        let opacity = if *is_dim { " opacity=\"0.6\"" } else { "" };
        let _ = writeln!(
            drawing,
            "<text x=\"{x}\" y=\"{}\" textLength=\"{length}\" fill=\"{foreground}\"{weight}{opacity}>{}</text>",
            y + BASELINE,
            escaped(word)
        );
    }
}

/// The words of a text, each with the column at which it begins. Viewers treat spaces differently, so none are drawn.
fn words(text: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let (mut column, mut rest) = (0, text);
    while let Some(start) = rest.find(|char| char != ' ') {
        column += start;
        let word = rest[start..].split(' ').next().unwrap_or_default();
        words.push((column, word));
        column += word.chars().count();
        rest = &rest[start + word.len()..];
    }
    words
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A colour of a terminal as a drawing names it.
fn colour(colour: Color, default: &str) -> String {
    match colour {
        Color::Default => default.to_owned(),
        Color::Idx(index) => indexed(index),
        Color::Rgb(red, green, blue) => format!("#{red:02x}{green:02x}{blue:02x}"),
    }
}

/// The 256 colours of a terminal: sixteen with names, a cube with six steps an edge, and 24 greys.
fn indexed(index: u8) -> String {
    let step = |level: u8| if level == 0 { 0 } else { 55 + 40 * level };
    match index {
        0..16 => PALETTE[usize::from(index)].to_owned(),
        16..232 => {
            let place = index - 16;
            let [red, green, blue] = [place / 36, place / 6 % 6, place % 6].map(step);
            format!("#{red:02x}{green:02x}{blue:02x}")
        }
        232.. => {
            let grey = 8 + 10 * (index - 232);
            format!("#{grey:02x}{grey:02x}{grey:02x}")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;

    use super::*;

    #[test]
    fn screen_is_drawn_with_colours_and_escaped_names() {
        let mut parser = vt100::Parser::new(NonZero::new(2).unwrap(), NonZero::new(20).unwrap(), 0);
        parser.process(b"\x1b[31m<module>\x1b[0m  a\r\n\x1b[7mtab\x1b[0m");
        let drawing = svg(parser.screen());
        assert!(drawing.contains("fill=\"#e06c75\">&lt;module&gt;</text>"), "{drawing}");
        assert!(
            drawing.contains("x=\"90\" y=\"24\" textLength=\"8\" fill=\"#d4d4d4\">a</text>"),
            "{drawing}"
        );
        assert!(
            drawing.contains("<rect x=\"10\" y=\"28\" width=\"24\" height=\"18\" fill=\"#d4d4d4\"/>"),
            "{drawing}"
        );
    }

    #[test]
    fn words_begin_at_their_columns() {
        assert_eq!(words("  ab c▆ "), [(2, "ab"), (5, "c▆")]);
        assert_eq!(words("   "), []);
    }

    #[test]
    fn indexed_colours_are_those_of_terminals() {
        assert_eq!((indexed(16), indexed(231)), ("#000000".to_owned(), "#ffffff".to_owned()));
        assert_eq!((indexed(196), indexed(255)), ("#ff0000".to_owned(), "#eeeeee".to_owned()));
    }
}
