//! The tables: functions, lines, threads.

use profiler_model::plain;
use profiler_profile::ThreadId;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::Canvas;
use super::palette::{BOLD, CHOSEN, DIM, heat};
use super::text::{duration, percent, put, tail};
use crate::state::{Action, Column, Measure, Place, Span, State, Tab, ThreadRow, time};

/// From this width on, a table shows the last interval and all since the start side by side.
const WIDE: u16 = 84;
/// From this width on, it shows CPU time and wall time side by side.
const WIDER: u16 = 116;
/// The narrowest table in which a function's file has a column of its own.
const WITH_FILE: u16 = 50;

/// A column as it is drawn.
#[derive(Clone, Copy)]
pub(super) struct Drawn {
    pub column: Column,
    title: &'static str,
    pub x: u16,
    pub width: u16,
    is_right: bool,
}

/// Places columns of these widths from the left; one of width 0 takes what is left.
pub(super) fn placed(area: Rect, columns: &[(Column, &'static str, u16)]) -> Vec<Drawn> {
    let fixed: u16 = columns.iter().map(|(_, _, width)| width + 1).sum();
    let open = columns.iter().filter(|(_, _, width)| *width == 0).count() as u16;
    let rest = area.width.saturating_sub(fixed) / open.max(1);
    let mut x = area.x;
    let mut drawn = Vec::new();
    for (column, title, width) in columns {
        let width = if *width == 0 { rest } else { *width };
        drawn.push(Drawn { column: *column, title, x, width, is_right: !column.is_text() });
        x += width + 1;
    }
    drawn
}

/// The columns of costs that fit.
pub(super) fn cost_columns(state: &State, width: u16, total_first: bool) -> Vec<(Column, &'static str, u16)> {
    let mut columns = Vec::new();
    let recent = [(Column::OwnRecent, "own%", 5), (Column::TotalRecent, "tot%", 5)];
    let start = [(Column::OwnStart, "OWN%", 5), (Column::TotalStart, "TOT%", 5)];
    if width >= WIDE || state.span() == Span::Interval {
        columns.extend(recent);
    }
    if width >= WIDE || state.span() == Span::Start {
        columns.extend(start);
    }
    if total_first {
        columns.chunks_mut(2).for_each(<[_]>::reverse);
    }
    if width >= WIDER || state.measure() == Measure::Cpu {
        columns.extend([(Column::OwnCpu, "OWN cpu", 8), (Column::TotalCpu, "TOT cpu", 8)]);
    }
    if width >= WIDER || state.measure() == Measure::Wall {
        columns.extend([(Column::OwnWall, "OWN wall", 9), (Column::TotalWall, "TOT wall", 9)]);
    }
    columns
}

pub(super) fn titles(canvas: &mut Canvas, area: Rect, columns: &[Drawn]) {
    let sort = canvas.state.sort();
    let line = Rect { height: 1.min(area.height), ..area };
    canvas.buffer.set_style(line, BOLD);
    for column in columns {
        let arrow = match (sort.column == column.column, sort.descending) {
            (false, _) => "",
            (true, true) => "▾",
            (true, false) => "▴",
        };
        let title = format!("{}{arrow}", column.title);
        cell(canvas, line, column, &title, BOLD);
        canvas
            .clickable
            .push((Rect { x: column.x, width: column.width, ..line }, Action::SortBy(column.column)));
    }
}

/// Writes text into a column of a line.
pub(super) fn cell(canvas: &mut Canvas, line: Rect, column: &Drawn, text: &str, style: Style) {
    let length = text.chars().count() as u16;
    let within = Rect { x: column.x, width: column.width.min(line.right().saturating_sub(column.x)), ..line };
    let x = if column.is_right { column.x + column.width.saturating_sub(length) } else { column.x };
    put(canvas.buffer, within, x, text, style);
}

/// The lines of the body with the rows that they show.
pub(super) fn lines<'a, T>(
    area: Rect,
    rows: &'a [T],
    first: usize,
) -> impl Iterator<Item = (Rect, usize, &'a T)> + use<'a, T> {
    let visible = usize::from(area.height.saturating_sub(1));
    rows.iter().enumerate().skip(first).take(visible).enumerate().map(move |(number, (row, item))| {
        (Rect { y: area.y + 1 + number as u16, height: 1, ..area }, row, item)
    })
}

/// Marks the row of the cursor and makes the row clickable.
pub(super) fn finish(canvas: &mut Canvas, line: Rect, row: usize) {
    if row == canvas.state.cursor() {
        canvas.buffer.set_style(line, CHOSEN);
    }
    canvas.clickable.push((line, Action::Point(row)));
}

/// Functions or lines.
pub fn places(canvas: &mut Canvas, area: Rect, rows: &[u32], first: usize) {
    let state = canvas.state;
    let mut columns = cost_columns(state, area.width, false);
    columns.push((Column::Name, if state.tab() == Tab::Lines { "line" } else { "function" }, 0));
    if area.width >= WITH_FILE {
        columns.push((Column::File, "file", 0));
    }
    let columns = placed(area, &columns);
    titles(canvas, area, &columns);
    for (line, row, place) in lines(area, rows, first) {
        for column in &columns {
            let (text, style) = place_cell(state, *place, column);
            cell(canvas, line, column, &text, style);
        }
        finish(canvas, line, row);
    }
}

fn place_cell(state: &State, number: u32, drawn: &Drawn) -> (String, Style) {
    let place = &state.places()[number as usize];
    match drawn.column {
        Column::Name => (place.name.to_string(), Style::new()),
        Column::File => (tail(&location(state, place), usize::from(drawn.width)), DIM),
        column => cost_cell(state, column, |span| state.cost(number, span)),
    }
}

/// A cell of a column of costs.
pub(super) fn cost_cell(
    state: &State,
    column: Column,
    cost: impl Fn(Span) -> crate::state::Cost,
) -> (String, Style) {
    let share = |weights, span| {
        let share = state.share(weights, span);
        (percent(share), heat(share))
    };
    let start = || cost(Span::Start);
    match column {
        Column::OwnRecent => share(cost(Span::Interval).own, Span::Interval),
        Column::TotalRecent => share(cost(Span::Interval).total, Span::Interval),
        Column::OwnStart => share(start().own, Span::Start),
        Column::TotalStart => share(start().total, Span::Start),
        Column::OwnCpu => (duration(time(Measure::Cpu, start().own)), Style::new()),
        Column::TotalCpu => (duration(time(Measure::Cpu, start().total)), Style::new()),
        Column::OwnWall => (duration(time(Measure::Wall, start().own)), Style::new()),
        Column::TotalWall => (duration(time(Measure::Wall, start().total)), Style::new()),
        _ => Default::default(),
    }
}

/// `file.py:12`, as far as it is known and asked for.
pub(super) fn location(state: &State, place: &Place) -> String {
    match place.line.filter(|_| state.shows_line_numbers()) {
        Some(line) if !place.file.is_empty() => format!("{}:{line}", place.file),
        _ => place.file.to_string(),
    }
}

/// Threads.
pub fn threads(canvas: &mut Canvas, area: Rect, rows: &[ThreadId], first: usize) {
    let several = canvas.state.profile().processes().len() > 1;
    let mut columns = vec![(Column::Thread, "thread", if several { 15 } else { 7 })];
    columns.push((Column::ThreadName, "name", if area.width >= WIDE { 16 } else { 10 }));
    columns.extend([(Column::State, "state", 9), (Column::Gil, "GIL%", 5), (Column::Cpu, "CPU%", 5)]);
    if area.width >= WIDE {
        columns.push((Column::CpuTime, "CPU", 7));
    }
    if area.width >= WITH_FILE {
        columns.push((Column::WaitsFor, "waits for", if area.width >= WIDE { 13 } else { 10 }));
    }
    columns.push((Column::Current, "function", 0));
    let columns = placed(area, &columns);
    titles(canvas, area, &columns);
    for (line, row, thread) in lines(area, rows, first) {
        for column in &columns {
            let (text, style) = thread_cell(canvas.state, *thread, column.column, several);
            cell(canvas, line, column, &text, style);
        }
        finish(canvas, line, row);
    }
}

fn thread_cell(state: &State, thread: ThreadId, column: Column, several: bool) -> (String, Style) {
    let info = state.profile().thread_of(thread);
    let row = state.thread_row(thread);
    let is_seen = row.recent.samples > 0 && state.end().is_none();
    let style = if is_seen { Style::new() } else { DIM };
    match column {
        Column::Thread if several => (format!("{}/{}", info.key.pid, info.key.tid), style),
        Column::Thread => {
            let mark = if state.selection().thread == Some(thread) { "*" } else { "" };
            (format!("{}{mark}", info.key.tid), style)
        }
        Column::ThreadName => (plain(info.name.as_deref().unwrap_or_default()).into_owned(), style),
        // Nobody does anything any more, whatever was seen last.
        Column::State if state.end().is_some() => ("ended".to_owned(), style),
        Column::WaitsFor if state.end().is_some() => (String::new(), style),
        Column::State => (doing(row, is_seen).to_owned(), style),
        Column::Gil => (percent(row.recent.gil_share()), heat(row.recent.gil_share())),
        Column::Cpu => (percent(row.recent.cpu_share()), heat(row.recent.cpu_share())),
        Column::CpuTime => (duration(row.start.cpu), style),
        Column::WaitsFor => (waits_for(row, is_seen), style),
        _ => (current(state, thread), style),
    }
}

fn doing(row: &ThreadRow, is_seen: bool) -> &'static str {
    use profiler_model::{ThreadState::*, WaitReason};
    match row.last.filter(|_| is_seen).map(|last| (last.state, last.holds_gil)) {
        None => "not seen",
        Some((Running, true)) => "runs+GIL",
        Some((Running, false)) => "runs",
        // Nothing keeps it but that others have the CPUs.
        Some((Waiting(WaitReason::Cpu), true)) => "ready+GIL",
        Some((Waiting(WaitReason::Cpu), false)) => "ready",
        // The disk's, or for a page of its memory: it keeps all others.
        Some((Waiting(_), true)) => "waits+GIL",
        Some((WaitingForGil | Waiting(_), _)) => "waits",
    }
}

fn waits_for(row: &ThreadRow, is_seen: bool) -> String {
    use profiler_model::{ThreadState::*, WaitReason};
    match row.last.filter(|_| is_seen).map(|last| last.state) {
        Some(WaitingForGil) => "GIL".to_owned(),
        Some(Waiting(WaitReason::Unknown)) => "?".to_owned(),
        Some(Waiting(reason)) => reason.to_string(),
        Some(Running) | None => String::new(),
    }
}

fn current(state: &State, thread: ThreadId) -> String {
    let Some(function) = state.current_function(thread) else { return String::new() };
    let stack = state.thread_row(thread).last.and_then(|last| last.stack);
    let place = state.function(function);
    let line = stack.and_then(|stack| {
        let frame = state.profile().frame_of(state.profile().leaf_of(stack));
        frame.position.line
    });
    format!("{} ({})", place.name, location(state, &Place { line, ..place.clone() }))
}
