//! Draws the state. Nothing here changes it; what the view needs for itself (how far a table is scrolled, what
//! lies where on the screen) it keeps beside it.

mod flame;
mod header;
mod help;
mod palette;
mod table;
mod text;
mod tree;

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;

use self::palette::{BOLD, CHOSEN, DIM, ON};
use self::text::put;
use crate::state::{Action, Rows, State, Tab, ViewMode};

/// The view's own memory.
#[derive(Debug, Default)]
pub struct View {
    /// The first row that is shown, by tab.
    first_rows: [usize; Tab::ALL.len()],
    /// The first line of the help that is shown.
    first_help: usize,
    /// What a click does where.
    clickable: Vec<(Rect, Action)>,
    /// How many rows the body has.
    page: usize,
}

/// What a part of the view draws on.
struct Canvas<'a> {
    state: &'a State,
    buffer: &'a mut Buffer,
    clickable: &'a mut Vec<(Rect, Action)>,
}

impl Canvas<'_> {
    /// Writes text that does something when it is clicked; returns the column after it.
    fn button(&mut self, line: Rect, x: u16, text: &str, style: Style, action: Action) -> u16 {
        let end = put(self.buffer, line, x, text, style);
        self.clickable.push((Rect { x, width: end.saturating_sub(x), ..line }, action));
        end
    }
}

impl View {
    /// Draws everything.
    pub fn draw(&mut self, state: &State, buffer: &mut Buffer) {
        self.clickable.clear();
        let area = buffer.area;
        let line = |y: u16| Rect { y, height: u16::from(y < area.bottom()), ..area };
        let mut canvas = Canvas { state, buffer, clickable: &mut self.clickable };
        header::title(&mut canvas, line(0));
        header::meters(&mut canvas, line(1));
        header::tabs(&mut canvas, line(2));
        let bottom = area.height.saturating_sub(2);
        let body = Rect { y: 3, height: bottom.saturating_sub(3), ..area };
        self.page = usize::from(body.height.saturating_sub(1)).max(1);
        let first = &mut self.first_rows[state.tab() as usize];
        match state.mode() {
            ViewMode::Help(entry) => help::draw(&mut canvas, body, *entry, &mut self.first_help),
            _ => draw_body(&mut canvas, body, first),
        }
        if area.height >= 5 {
            header::ledger(&mut canvas, line(bottom));
        }
        footer(&mut canvas, line(area.height.saturating_sub(1)));
    }

    /// What a click at a place does.
    pub fn clicked(&self, column: u16, row: u16) -> Option<Action> {
        let place = Position::new(column, row);
        self.clickable.iter().rev().find(|(area, _)| area.contains(place)).map(|(_, action)| *action)
    }

    /// How many rows a page has.
    pub fn page(&self) -> isize {
        self.page.try_into().unwrap_or(isize::MAX)
    }
}

fn draw_body(canvas: &mut Canvas, body: Rect, first: &mut usize) {
    let cursor = canvas.state.cursor();
    let page = usize::from(body.height.saturating_sub(1)).max(1);
    // The row of the cursor stays in sight.
    *first = (*first).clamp((cursor + 1).saturating_sub(page), cursor);
    let last_first = canvas.state.rows().len().saturating_sub(page);
    *first = (*first).min(last_first.max(cursor.saturating_sub(page - 1)));
    match (canvas.state.tab(), canvas.state.rows()) {
        (Tab::Flame, _) => flame::draw(canvas, body),
        (Tab::Calls, Rows::Calls(rows)) => tree::draw(canvas, body, rows, *first),
        (_, Rows::Threads(rows)) => table::threads(canvas, body, rows, *first),
        (_, Rows::Places(rows)) => table::places(canvas, body, rows, *first),
        _ => {}
    }
    if canvas.state.rows().is_empty() && canvas.state.tab() != Tab::Flame {
        nothing(canvas, body);
    }
}

/// Says why there is nothing to see.
fn nothing(canvas: &mut Canvas, body: Rect) {
    let state = canvas.state;
    let text = if !state.filter().is_empty() || state.selection().thread.is_some() {
        "nothing passes the filters; Esc clears them"
    } else if state.end().is_some() && state.ledger().attempts() == 0 {
        "it ended before the first sample; record with a higher --rate may see it"
    } else if state.history().len() == 0 || state.ledger().attempts() == 0 {
        "waiting for the first samples"
    } else if state.selection().gil_only {
        "no thread held the GIL when it was looked at; g shows all threads"
    } else if !state.selection().include_idle {
        "no thread ran when it was looked at; i includes those that wait"
    } else {
        "no samples"
    };
    let line = Rect { y: body.y + 1, height: u16::from(body.height > 1), ..body };
    put(canvas.buffer, line, line.x + 1, text, DIM);
}

/// What is being typed, what was said, or the keys.
fn footer(canvas: &mut Canvas, line: Rect) {
    let state = canvas.state;
    let typing = match state.mode() {
        ViewMode::TypeFilter => Some(("show functions and files with: ", state.filter())),
        ViewMode::TypeFile(file) => Some(("write to (.svg .txt .json .trace): ", file.as_str())),
        _ => None,
    };
    if let Some((question, typed)) = typing {
        let x = put(canvas.buffer, line, line.x, question, BOLD);
        let room = usize::from(line.right().saturating_sub(x + 1));
        let x = put(canvas.buffer, line, x, &text::tail(&profiler_model::plain(typed), room), Style::new());
        put(canvas.buffer, line, x, " ", CHOSEN);
        return;
    }
    if let Some(message) = state.message() {
        put(canvas.buffer, line, line.x, &profiler_model::plain(message), ON);
        return;
    }
    let keys = [
        ("?", "help", Action::Help),
        ("q", "quit", Action::Quit),
        ("/", "filter", Action::AskFilter),
        ("w", "write", Action::AskFile),
        ("f", "freeze", Action::SwitchFreeze),
        ("p", "pause", Action::SwitchPause),
        ("r", "reset", Action::Reset),
        ("m", "cpu/wall", Action::SwitchMeasure),
        ("s", "span", Action::SwitchSpan),
        ("i", "idle", Action::SwitchIdle),
        ("g", "gil", Action::SwitchGil),
        ("t", "thread", Action::NextThread),
        ("<>", "sort", Action::SortNext(1)),
    ];
    let mut x = line.x;
    for (key, what, action) in keys {
        let width = (key.len() + what.len() + 2) as u16;
        if x + width > line.right() {
            break;
        }
        let start = x;
        x = put(canvas.buffer, line, x, key, BOLD);
        x = put(canvas.buffer, line, x + 1, what, DIM) + 2;
        canvas.clickable.push((Rect { x: start, width, ..line }, action));
    }
}

#[cfg(test)]
mod tests;
