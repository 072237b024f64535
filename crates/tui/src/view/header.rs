//! The lines that are always there: what is profiled, its figures, the tabs, and the ledger.

use std::collections::BTreeSet;

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
    subject(canvas, left);
    let style = if marks.iter().any(|(is_on, _)| *is_on) { HOT } else { DIM };
    put(canvas.buffer, line, right_x, &right, style);
}

/// The first process as it is now, after any `exec`, and how many others there are.
fn subject(canvas: &mut Canvas, line: Rect) {
    let processes = || canvas.state.profile().processes().map(|(_, process)| process);
    let Some(first) = processes().next() else {
        put(canvas.buffer, line, line.x, "profiler top", BOLD);
        return;
    };
    let process = processes().filter(|process| process.pid == first.pid).last().unwrap_or(first);
    let others: BTreeSet<_> = processes().map(|other| other.pid).filter(|pid| *pid != first.pid).collect();
    let mut x = put(canvas.buffer, line, line.x, &format!("{} ", process.pid), BOLD);
    if let Some(version) = &process.python_version {
        x = put(canvas.buffer, line, x, &format!("Python {} ", profiler_model::plain(version)), DIM);
    }
    x = match others.len() {
        0 => x,
        1 => put(canvas.buffer, line, x, "+1 process ", BOLD),
        more => put(canvas.buffer, line, x, &format!("+{more} processes "), BOLD),
    };
    let command = profiler_model::plain(&process.command_line);
    let room = usize::from(line.right().saturating_sub(x));
    put(canvas.buffer, line, x, telling_end(&command, room), Style::new());
}

/// A command without the folder of its program where there is no room for all of it: what is run tells more.
fn telling_end(command: &str, room: usize) -> &str {
    let program = command.split(' ').next().unwrap_or_default();
    match program.rfind('/') {
        Some(folder) if command.chars().count() > room => &command[folder + 1..],
        _ => command,
    }
}

/// GIL, CPU, memory and rate, with their history where there is room.
pub fn meters(canvas: &mut Canvas, line: Rect) {
    let state = canvas.state;
    let Some(last) = state.history().last().copied() else { return };
    let most_gil = state.history().map(|meter| meter.gil).fold(1.0, f64::max);
    let most_cpu = state.history().map(|meter| meter.cpu).fold(1.0, f64::max);
    let most_memory = state.history().filter_map(|meter| meter.memory).max().unwrap_or_default() as f64;
    let asked = state.ledger().interval.map_or(0.0, |gap| 1.0 / gap.as_secs_f64().max(1e-9));
    let most_rate = state.history().map(|meter| meter.rate).fold(asked, f64::max);
    let of_memory = |meter: &Meter| meter.memory.unwrap_or_default() as f64;
    type Figure<'a> = (&'a str, String, &'a dyn Fn(&Meter) -> f64, f64);
    let figures: [Figure; 4] = [
        ("GIL", format!("{:>4}%", percent(last.gil)), &|meter| meter.gil, most_gil),
        ("CPU", format!("{:>4}%", percent(last.cpu)), &|meter| meter.cpu, most_cpu),
        ("RSS", last.memory.map_or_else(|| "?".to_owned(), memory), &of_memory, most_memory),
        ("rate", format!("{:>3.0}/s", last.rate), &|meter| meter.rate, most_rate),
    ];
    let written: usize = figures.iter().map(|(name, value, ..)| name.len() + value.chars().count() + 3).sum();
    let room = usize::from(line.width);
    let curve = (room.saturating_sub(written) / figures.len()).min(WIDEST_CURVE);
    // The last figure has two blanks behind it. Where there is no room, units tell memory and rate from shares.
    let is_tight = written > room + 2;
    let mut x = line.x;
    for (name, value, of, most) in figures {
        let is_told_by_unit = is_tight && (name == "RSS" || name == "rate");
        x = if is_told_by_unit { x } else { put(canvas.buffer, line, x, name, DIM) + 1 };
        x = put(canvas.buffer, line, x, if is_tight { value.trim_start() } else { &value }, BOLD);
        if curve >= 2 {
            x = put(canvas.buffer, line, x + 1, &sparkline(state.history().map(of), most, curve - 1), CURVE);
        }
        x += 1;
    }
}

/// The tabs, and what is filtered: where that has no room beside them, only the present one is spelled out.
pub fn tabs(canvas: &mut Canvas, line: Rect) {
    let text = marks(canvas.state).join(" ");
    let marks_width = text.chars().count();
    let labels = |is_spelled: &dyn Fn(Tab) -> bool| -> Vec<(Tab, String)> {
        let label = |(number, tab): (usize, Tab)| match (is_spelled(tab), line.width) {
            (true, 70..) => format!(" {} {} ", number + 1, tab.name()),
            (true, _) => format!("{} {}", number + 1, tab.name()),
            (false, _) => format!("{}", number + 1),
        };
        Tab::ALL.into_iter().enumerate().map(|(number, tab)| (tab, label((number, tab)))).collect()
    };
    let is_present = |tab: Tab| tab == canvas.state.tab();
    let forms = [labels(&|_| true), labels(&is_present)];
    let width = |labels: &[(Tab, String)]| labels.iter().map(|(_, label)| label.len() + 1).sum::<usize>();
    let has_room = |labels: &&Vec<(Tab, String)>| width(labels) + marks_width <= usize::from(line.width);
    let labels = forms.iter().find(has_room).unwrap_or(&forms[1]);
    let mut x = line.x;
    for (tab, label) in labels {
        let style = if is_present(*tab) { CHOSEN } else { Style::new() };
        x = canvas.button(line, x, label, style, Action::Show(*tab)) + 1;
    }
    let room = line.right().saturating_sub(x);
    let from = line.right().saturating_sub((marks_width as u16).min(room));
    put(canvas.buffer, line, from, &text, ON);
}

/// By what samples are weighed, of which time, and which they are.
fn marks(state: &State) -> Vec<String> {
    let mut marks = vec![match state.measure() {
        Measure::Cpu => "cpu".to_owned(),
        Measure::Wall => "wall".to_owned(),
    }];
    marks.push(match state.span() {
        Span::Interval => format!("last {}", duration(state.interval_length())),
        Span::Start => "since start".to_owned(),
    });
    marks.extend(selection(state));
    marks
}

/// Which samples are shown, where it is not all that run.
fn selection(state: &State) -> Vec<String> {
    let mut marks = Vec::new();
    if state.selection().include_idle {
        marks.push("+idle".to_owned());
    }
    if state.selection().gil_only {
        marks.push("gil".to_owned());
    }
    if let Some(thread) = state.selection().thread {
        marks.push(format!("thread {}", state.profile().thread_of(thread).key.tid));
    }
    if !state.filter().is_empty() {
        marks.push(format!("/{}", profiler_model::plain(state.filter())));
    }
    marks
}

/// A part of the line of the ledger.
struct Entry {
    text: String,
    /// What is written where the whole line has no room; empty for what can be missed then.
    short: String,
    style: Style,
}

impl Entry {
    fn new(text: String, short: String, is_bad: bool) -> Self {
        Entry { text, short, style: if is_bad { HOT } else { DIM } }
    }
}

/// What became of every attempt and what it cost. The help tells all of it; a narrow line tells at least that
/// something was lost, and not for which reasons.
pub fn ledger(canvas: &mut Canvas, line: Rect) {
    let ledger = canvas.state.ledger();
    let entries = [
        Entry::new(format!("{} samples", ledger.shown()), format!("{} samples", ledger.shown()), false),
        losses(ledger),
        unseen(ledger),
        tree(canvas.state.is_tree_full()),
        stops(ledger),
        own_cost(ledger),
        left_out(ledger),
    ];
    let forms: [fn(&Entry) -> &str; 2] = [|entry| &entry.text, |entry| &entry.short];
    let width = |form: &fn(&Entry) -> &str| -> usize {
        entries.iter().map(form).filter(|text| !text.is_empty()).map(|text| text.chars().count() + 2).sum()
    };
    let form = forms.iter().find(|form| width(form) <= usize::from(line.width) + 2).unwrap_or(&forms[1]);
    let mut x = line.x;
    for entry in entries.iter().filter(|entry| !form(entry).is_empty()) {
        let separator = if x == line.x { "" } else { ", " };
        let text = format!("{separator}{}", form(entry));
        // A number that is cut is another number.
        if x + text.chars().count() as u16 > line.right() && x > line.x {
            break;
        }
        x = put(canvas.buffer, line, x, &text, entry.style);
    }
}

/// The call tree has a limit.
fn tree(is_full: bool) -> Entry {
    let text = |text: &str| if is_full { text.to_owned() } else { String::new() };
    Entry::new(text("call tree full: new paths are cut"), text("tree full"), true)
}

/// `12 lost (0.1%: sampler late 9, thread ended 3)`
fn losses(ledger: &Ledger) -> Entry {
    if ledger.lost() == 0 {
        return Entry::new("none lost".to_owned(), "none lost".to_owned(), false);
    }
    let lost = ledger.lost();
    let share = percent(lost as f64 / ledger.attempts() as f64);
    let reasons: Vec<String> =
        ledger.losses().iter().map(|(reason, times)| format!("{reason} {times}")).collect();
    let text = format!("{lost} lost ({share}%: {})", reasons.join(", "));
    Entry::new(text, format!("{lost} lost ({share}%)"), true)
}

/// Processes that were not looked into.
fn unseen(ledger: &Ledger) -> Entry {
    let unseen = ledger.processes.map_or(0, |counts| counts.missed + counts.not_permitted);
    let text = |text: &str| if unseen > 0 { format!("{unseen} {text}") } else { String::new() };
    Entry::new(text("processes not seen"), text("unseen"), true)
}

fn stops(ledger: &Ledger) -> Entry {
    if ledger.stops() == 0 {
        let interrupted = match ledger.interruptions() {
            0 => String::new(),
            _ => format!(", interrupted {:.2}%", 100.0 * share(ledger.interrupted_total(), ledger)),
        };
        return Entry::new(format!("never stopped{interrupted}"), "no stop".to_owned(), false);
    }
    let short = format!("stopped {:.2}%", 100.0 * share(ledger.stopped_total(), ledger));
    Entry::new(format!("{short} max {}", duration(ledger.stopped_longest())), short, false)
}

fn own_cost(ledger: &Ledger) -> Entry {
    let used = percent(share(ledger.own_cpu, ledger));
    Entry::new(format!("profiler {used}%"), format!("self {used}%"), false)
}

fn left_out(ledger: &Ledger) -> Entry {
    match ledger.not_asked_for() {
        0 => Entry::new(String::new(), String::new(), false),
        times => Entry::new(format!("{times} left out"), String::new(), false),
    }
}

fn share(part: profiler_model::Nanos, ledger: &Ledger) -> f64 {
    let whole = ledger.duration().as_secs_f64();
    if whole > 0.0 { part.as_secs_f64() / whole } else { 0.0 }
}
