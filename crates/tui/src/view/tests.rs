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
fn who_holds_the_gil_and_only_lacks_a_cpu_is_ready() {
    let (mut source, mut state) = (Source::new(), State::new(settings()));
    let [queued, idle] = [WaitReason::Cpu, WaitReason::Sleep].map(ThreadState::Waiting);
    for _ in 0..12 {
        source.instant(&[(4711, "main:3 load:12", queued), (4712, "main:1 wait:44", idle)]);
    }
    state.fold(source.update());
    state.act(Action::Show(Tab::Threads));
    for width in [60, 100] {
        let threads = drawn(&state, width, 12);
        let rows = threads.lines().map(|line| line.split_whitespace().collect::<Vec<&str>>());
        let mut rows: Vec<_> = rows.filter(|row| row.len() > 1 && row[1].starts_with("worker")).collect();
        rows.sort();
        let [first, second] = &rows[..] else { panic!("{threads}") };
        assert_eq!(first[2..4], ["ready+GIL", "100"], "{threads}");
        assert!(first.contains(&"CPU"), "{threads}");
        assert_eq!(second[2..4], ["waits", "0.0"], "{threads}");
    }
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

/// Everything that the help shows on a terminal of this size, line by line, when it is scrolled to its end.
fn help_read_to_its_end(width: u16, height: u16) -> String {
    let mut state = state();
    state.act(Action::Help);
    let mut view = View::default();
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let mut read = String::new();
    for _ in 0..state.help().len() {
        terminal.draw(|frame| view.draw(&state, frame.buffer_mut())).unwrap();
        read += &terminal.backend().to_string();
        state.act(Action::Move(1));
    }
    assert!(matches!(state.mode(), crate::ViewMode::Help(_)));
    read
}

#[test]
fn the_help_can_be_read_whole_on_every_terminal() {
    for (width, height) in [(40, 8), (60, 12), (100, 16), (120, 40)] {
        let read = help_read_to_its_end(width, height);
        for entry in state().help() {
            assert!(read.contains(entry.word.trim()), "{} at {width}x{height}", entry.word);
            for word in entry.text.split(' ') {
                assert!(read.contains(word), "{word} of {entry:?} at {width}x{height}");
            }
        }
    }
}

#[test]
fn a_key_does_in_the_help_what_the_help_says() {
    let mut state = state();
    state.act(Action::Help);
    state.act(Action::Show(Tab::Calls));
    assert_eq!((state.mode(), state.tab()), (&crate::ViewMode::Look, Tab::Calls));
    state.act(Action::Help);
    state.act(Action::Move(isize::MAX));
    assert_eq!(state.mode(), &crate::ViewMode::Help(state.help().len() - 1));
    state.act(Action::Back);
    assert_eq!(state.mode(), &crate::ViewMode::Look);
}

#[test]
fn a_narrow_line_tells_losses_and_cuts_no_number() {
    let state = state();
    for width in 20..120 {
        let screen = drawn(&state, width, 8);
        let ledger = screen.lines().nth(6).unwrap();
        assert!(ledger.contains("1 lost") || width < 26, "{width}: {ledger}");
        let is_whole = ["lost", ")", "%", "max 0", "stopped", "no stop", "samples"];
        assert!(is_whole.iter().any(|end| ledger.ends_with(end)), "{width}: {ledger}");
    }
}

#[test]
fn what_is_selected_stays_in_sight_in_a_narrow_terminal() {
    let mut state = state();
    state.act(Action::AskFilter);
    "inn".chars().for_each(|char| drop(state.act(Action::Type(char))));
    let screen = drawn(&state, 60, 12);
    assert!(screen.lines().nth(2).unwrap().ends_with("cpu last 1.00s /inn"), "{screen}");
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

#[test]
fn a_process_that_became_another_program_is_one_process() {
    let (mut source, mut state) = (Source::new(), State::new(settings()));
    source.instant(&[(4711, "main:3", RUNS)]);
    source.exec(4711, "/usr/bin/python3 second.py");
    state.fold(source.update());
    let title = drawn(&state, 100, 12).lines().next().unwrap().to_owned();
    assert!(title.starts_with("4711 Python 3.13.0 /usr/bin/python3 second.py "), "{title}");
    source.exec(4712, "python3 child.py");
    state.fold(source.update());
    let title = drawn(&state, 50, 12).lines().next().unwrap().to_owned();
    assert!(title.starts_with("4711 Python 3.13.0 +1 process python3 second"), "{title}");
}

#[test]
fn after_a_reset_samples_are_waited_for() {
    let mut state = state();
    state.act(Action::Reset);
    assert!(drawn(&state, 100, 12).contains("waiting for the first samples"));
}

#[test]
fn no_thread_of_a_process_that_has_ended_does_anything() {
    let (mut source, mut state) = (Source::new(), State::new(settings()));
    state.act(Action::Show(Tab::Threads));
    source.instant(&[
        (4711, "main:1 compute:2", RUNS),
        (4712, "main:1 wait:4", ThreadState::Waiting(WaitReason::Sleep)),
    ]);
    state.fold(source.update());
    state.fold(crate::Update { end: Some("the process has ended".into()), ..source.update() });
    let screen = drawn(&state, 140, 12);
    assert_eq!(screen.matches(" ended ").count(), 2, "{screen}");
    assert!(!screen.contains("runs") && !screen.contains("sleep"), "{screen}");
}

#[test]
fn an_end_before_the_first_sample_is_told() {
    let (mut source, mut state) = (Source::new(), State::new(settings()));
    state.fold(crate::Update { end: Some("the process has ended".into()), ..source.update() });
    let screen = drawn(&state, 100, 12);
    assert!(screen.contains("ENDED") && screen.contains("it ended before the first sample"), "{screen}");
}
