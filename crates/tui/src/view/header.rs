//! The lines that are always there: what is profiled, its figures, the tabs, and the ledger.

use profiler_profile::Ledger;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::Canvas;
use super::palette::{BOLD, CHOSEN, CURVE, DIM, HOT, ON};
use super::text::{duration, memory, percent, put, sparkline};
use crate::state::{Action, Measure, Meter, Span, State, Tab};

/// The columns of a sparkline at most.
const WIDEST_CURVE: usize = 20;

/// What is profiled, for how long, and what the view is doing.
pub fn title(canvas: &mut Canvas, line: Rect) {
    let state = canvas.state;
    let mut right = String::new();
    let marks =
        [(state.end().is_some(), "ENDED"), (state.is_paused(), "PAUSED"), (state.is_frozen(), "FROZEN")];
    for (_, mark) in marks.iter().filter(|(is_on, _)| *is_on) {
        right += &format!(" {mark}");
    }
    right += &format!(" {}", duration(state.ledger().duration()));
    let right_x = line.right().saturating_sub(right.chars().count() as u16);
    let left = Rect { width: right_x.saturating_sub(line.x), ..line };
    let mut processes = state.profile().processes().map(|(_, process)| process);
    let Some(process) = processes.next() else {
        put(canvas.buffer, line, line.x, "profiler top", BOLD);
        return;
    };
    let more = processes.len();
    let x = put(canvas.buffer, left, line.x, &format!("{} ", process.pid), BOLD);
    let version = process.python_version.as_deref().unwrap_or_default();
    let x = put(canvas.buffer, left, x, &format!("Python {} ", profiler_model::plain(version)), DIM);
    let x = match more {
        0 => x,
        more => put(canvas.buffer, left, x, &format!("+{more} processes "), BOLD),
    };
    put(canvas.buffer, left, x, &profiler_model::plain(&process.command_line), Style::new());
    let style = if marks.iter().any(|(is_on, _)| *is_on) { HOT } else { DIM };
    put(canvas.buffer, line, right_x, &right, style);
}

/// GIL, CPU, memory and rate, with their history where there is room.
pub fn meters(canvas: &mut Canvas, line: Rect) {
    let state = canvas.state;
    let Some(last) = state.history().last().copied() else { return };
    let most_cpu = state.history().map(|meter| meter.cpu).fold(1.0, f64::max);
    let most_memory = state.history().filter_map(|meter| meter.memory).max().unwrap_or_default() as f64;
    let asked = state.ledger().interval.map_or(0.0, |gap| 1.0 / gap.as_secs_f64().max(1e-9));
    let most_rate = state.history().map(|meter| meter.rate).fold(asked, f64::max);
    let of_memory = |meter: &Meter| meter.memory.unwrap_or_default() as f64;
    type Figure<'a> = (&'a str, String, &'a dyn Fn(&Meter) -> f64, f64);
    let figures: [Figure; 4] = [
        ("GIL", format!("{:>4}%", percent(last.gil)), &|meter| meter.gil, 1.0),
        ("CPU", format!("{:>4}%", percent(last.cpu)), &|meter| meter.cpu, most_cpu),
        ("RSS", last.memory.map_or_else(|| "?".to_owned(), memory), &of_memory, most_memory),
        ("rate", format!("{:>3.0}/s", last.rate), &|meter| meter.rate, most_rate),
    ];
    let written: usize = figures.iter().map(|(name, value, ..)| name.len() + value.chars().count() + 3).sum();
    let curve = (usize::from(line.width).saturating_sub(written) / figures.len()).min(WIDEST_CURVE);
    let mut x = line.x;
    for (name, value, of, most) in figures {
        x = put(canvas.buffer, line, x, name, DIM);
        x = put(canvas.buffer, line, x + 1, &value, BOLD);
        if curve >= 2 {
            x = put(canvas.buffer, line, x + 1, &sparkline(state.history().map(of), most, curve - 1), CURVE);
        }
        x += 1;
    }
}

/// The tabs, and what is filtered.
pub fn tabs(canvas: &mut Canvas, line: Rect) {
    let state = canvas.state;
    let mut x = line.x;
    for (number, tab) in Tab::ALL.into_iter().enumerate() {
        let style = if tab == state.tab() { CHOSEN } else { Style::new() };
        let label = match line.width {
            ..70 => format!("{} {}", number + 1, tab.name()),
            _ => format!(" {} {} ", number + 1, tab.name()),
        };
        x = canvas.button(line, x, &label, style, Action::Show(tab)) + 1;
    }
    let mut marks = vec![match state.measure() {
        Measure::Cpu => "cpu".to_owned(),
        Measure::Wall => "wall".to_owned(),
    }];
    marks.push(match state.span() {
        Span::Interval => format!("last {}", duration(state.settings().interval)),
        Span::Start => "since start".to_owned(),
    });
    marks.extend(selection(state));
    let text = marks.join(" ");
    let room = line.right().saturating_sub(x);
    let from = line.right().saturating_sub((text.chars().count() as u16).min(room));
    put(canvas.buffer, line, from, &text, ON);
}

/// Which samples are shown, where it is not all that run.
fn selection(state: &State) -> Vec<String> {
    let mut marks = Vec::new();
    if state.settings().include_idle {
        marks.push("+idle".to_owned());
    }
    if state.settings().gil_only {
        marks.push("gil".to_owned());
    }
    if let Some(thread) = state.only_thread() {
        marks.push(format!("thread {}", state.profile().thread_of(thread).key.tid));
    }
    if !state.filter().is_empty() {
        marks.push(format!("/{}", profiler_model::plain(state.filter())));
    }
    marks
}

/// What became of every attempt and what it cost, the most important first.
pub fn ledger(canvas: &mut Canvas, line: Rect) {
    let ledger = canvas.state.ledger();
    let mut x = put(canvas.buffer, line, line.x, &format!("{} samples", ledger.shown()), DIM);
    let style = if ledger.lost() > 0 { HOT } else { DIM };
    x = put(canvas.buffer, line, x, &losses(ledger), style);
    let used = share(ledger.own_cpu, ledger);
    let stopped = match ledger.stops() {
        0 => ", never stopped".to_owned(),
        _ => format!(
            ", stopped {:.2}% max {}",
            100.0 * share(ledger.stopped_total(), ledger),
            duration(ledger.stopped_longest())
        ),
    };
    x = put(canvas.buffer, line, x, &stopped, DIM);
    x = put(canvas.buffer, line, x, &format!(", profiler {}%", percent(used)), DIM);
    if let Some(unseen) =
        ledger.processes.map(|counts| counts.missed + counts.not_permitted).filter(|n| *n > 0)
    {
        x = put(canvas.buffer, line, x, &format!(", {unseen} processes not seen"), HOT);
    }
    if ledger.not_asked_for() > 0 {
        x = put(canvas.buffer, line, x, &format!(", {} left out", ledger.not_asked_for()), DIM);
    }
    if canvas.state.is_tree_full() {
        put(canvas.buffer, line, x, ", call tree full: new paths are cut", HOT);
    }
}

/// `, 12 lost (0.1%: sampler late 9, thread ended 3)`
fn losses(ledger: &Ledger) -> String {
    if ledger.lost() == 0 {
        return ", none lost".to_owned();
    }
    let share = ledger.lost() as f64 / ledger.attempts() as f64;
    let reasons: Vec<String> =
        ledger.losses().iter().map(|(reason, times)| format!("{reason} {times}")).collect();
    format!(", {} lost ({}%: {})", ledger.lost(), percent(share), reasons.join(", "))
}

fn share(part: profiler_model::Nanos, ledger: &Ledger) -> f64 {
    let whole = ledger.duration().as_secs_f64();
    if whole > 0.0 { part.as_secs_f64() / whole } else { 0.0 }
}
