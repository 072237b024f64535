//! Whole screens, drawn on a terminal of memory.

use profiler_model::{LossReason, ThreadState, WaitReason};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::View;
use crate::state::tests::{Source, settings};
use crate::state::{Action, State, Tab};

const RUNS: ThreadState = ThreadState::Running;

/// A program that mostly computes, with a thread that sleeps.
fn state() -> State {
    let (mut source, mut state) = (Source::new(), State::new(settings()));
    for number in 0..13 {
        let stack = if number % 4 == 0 { "main:3 load:12" } else { "main:4 compute:20 inner:31" };
        let idle = ThreadState::Waiting(WaitReason::Sleep);
        source.instant(&[(4711, stack, RUNS), (4712, "main:1 wait:44", idle)]);
        if number == 2 {
            state.fold(source.update());
        }
    }
    source.lose(LossReason::Moved);
    state.fold(source.update());
    state
}

fn drawn(state: &State, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let mut view = View::default();
    terminal.draw(|frame| view.draw(state, frame.buffer_mut())).unwrap();
    let text = terminal.backend().to_string();
    text.lines().map(|line| line.trim_matches('"').trim_end()).collect::<Vec<_>>().join("\n")
}

fn on_tab(tab: Tab) -> State {
    let mut state = state();
    state.act(Action::Show(tab));
    state
}

#[test]
fn functions_in_a_usual_terminal() {
    insta::assert_snapshot!(drawn(&state(), 100, 16));
}

#[test]
fn functions_in_a_wide_terminal_by_cpu_and_wall() {
    insta::assert_snapshot!(drawn(&state(), 140, 12));
}

#[test]
fn lines_in_a_small_terminal() {
    insta::assert_snapshot!(drawn(&on_tab(Tab::Lines), 60, 12));
}

#[test]
fn threads() {
    insta::assert_snapshot!(drawn(&on_tab(Tab::Threads), 100, 12));
}

#[test]
fn calls() {
    insta::assert_snapshot!(drawn(&on_tab(Tab::Calls), 100, 12));
}

#[test]
fn flame() {
    let mut state = on_tab(Tab::Flame);
    state.act(Action::Move(1));
    state.act(Action::Move(1));
    insta::assert_snapshot!(drawn(&state, 60, 12));
}

#[test]
fn help_in_a_small_terminal() {
    let mut state = state();
    state.act(Action::Help);
    insta::assert_snapshot!(drawn(&state, 60, 12));
}

#[test]
fn filters_pauses_and_questions_are_told() {
    let mut state = state();
    state.act(Action::SwitchPause);
    state.act(Action::AskFilter);
    "inn".chars().for_each(|char| drop(state.act(Action::Type(char))));
    insta::assert_snapshot!(drawn(&state, 100, 12));
}

#[test]
fn no_size_is_too_small() {
    for tab in Tab::ALL {
        let mut state = on_tab(tab);
        for (width, height) in [(1, 1), (2, 3), (10, 2), (20, 5), (60, 4), (300, 100)] {
            drawn(&state, width, height);
        }
        state.act(Action::Help);
        drawn(&state, 1, 1);
    }
}

#[test]
fn names_never_command_the_terminal() {
    let (mut source, mut state) = (Source::new(), State::new(settings()));
    for _ in 0..3 {
        source.instant(&[(1, "e\u{1b}[2J\n\u{9b}31m\u{202e}vil:1", RUNS)]);
    }
    source.name_thread(1, "thr\u{1b}]0;title\u{7}ead");
    state.fold(source.update());
    for tab in Tab::ALL {
        state.act(Action::Show(tab));
        let screen = drawn(&state, 140, 12);
        assert!(!screen.chars().any(|char| profiler_model::is_unsafe(char) && char != '\n'), "{screen:?}");
        let shown = if tab == Tab::Threads { r"thr\u{1b}]0;titl" } else { r"e\u{1b}[2J\n\u{9b}31m" };
        assert!(screen.contains(shown), "{screen}");
    }
}

#[test]
fn what_is_drawn_can_be_clicked() {
    let state = state();
    let mut terminal = Terminal::new(TestBackend::new(100, 16)).unwrap();
    let mut view = View::default();
    terminal.draw(|frame| view.draw(&state, frame.buffer_mut())).unwrap();
    assert_eq!(view.clicked(20, 2), Some(Action::Show(Tab::Lines)));
    assert_eq!(view.clicked(2, 3), Some(Action::SortBy(crate::Column::OwnRecent)));
    assert_eq!(view.clicked(50, 5), Some(Action::Point(1)));
    assert_eq!(view.clicked(0, 15), Some(Action::Help));
    assert_eq!(view.clicked(50, 12), None);
}

#[test]
fn the_cursor_stays_in_sight() {
    let (mut source, mut state) = (Source::new(), State::new(settings()));
    for number in 0..40 {
        source.instant(&[(1, &format!("f{number}:1"), RUNS)]);
    }
    state.fold(source.update());
    state.act(Action::Last);
    let mut view = View::default();
    let mut buffer = ratatui::buffer::Buffer::empty(ratatui::layout::Rect::new(0, 0, 60, 12));
    view.draw(&state, &mut buffer);
    assert_eq!(view.first_rows[0], 34);
    state.act(Action::First);
    view.draw(&state, &mut buffer);
    assert_eq!(view.first_rows[0], 0);
}
