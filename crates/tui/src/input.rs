//! Which key or click means which action.

use ratatui::crossterm::event::{
    Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};

use crate::state::{Action, State, Tab, ViewMode};
use crate::view::View;

/// The rows that one notch of the wheel moves.
const NOTCH: isize = 3;

/// The events that one from the terminal stands for, in their order. Esc and a key that follows at once are the same
/// bytes as the key with Alt; with Alt no key means anything of its own.
pub fn pressed(event: Event) -> impl Iterator<Item = Event> {
    let (escape, event) = match event {
        Event::Key(key) if is_behind_escape(&key) => {
            let alone = KeyEvent { modifiers: key.modifiers - KeyModifiers::ALT, ..key };
            (Some(Event::Key(KeyCode::Esc.into())), Event::Key(alone))
        }
        event => (None, event),
    };
    escape.into_iter().chain([event])
}

/// Whether the key came behind the byte of Esc. Keys that are sequences of their own tell of Alt inside them.
fn is_behind_escape(key: &KeyEvent) -> bool {
    let is_one_character =
        matches!(key.code, KeyCode::Char(_) | KeyCode::Enter | KeyCode::Backspace | KeyCode::Tab);
    key.modifiers.contains(KeyModifiers::ALT) && is_one_character
}

/// What an event means, if anything.
pub fn action(event: &Event, state: &State, view: &View) -> Option<Action> {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => key_action(key, state, view),
        Event::Mouse(mouse) if matches!(state.mode(), ViewMode::Look | ViewMode::Help(_)) => {
            mouse_action(mouse, view)
        }
        _ => None,
    }
}

fn key_action(key: &KeyEvent, state: &State, view: &View) -> Option<Action> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Some(Action::Quit),
            KeyCode::Char('z') => Some(Action::Suspend),
            KeyCode::Char('h') => Some(Action::Erase),
            _ => None,
        };
    }
    match (state.mode(), key.code) {
        (_, KeyCode::Enter) => Some(Action::Enter),
        (_, KeyCode::Esc) => Some(Action::Back),
        (_, KeyCode::Backspace) => Some(Action::Erase),
        (ViewMode::TypeFilter | ViewMode::TypeFile(_), KeyCode::Char(char)) => Some(Action::Type(char)),
        (ViewMode::TypeFilter | ViewMode::TypeFile(_), _) => None,
        (_, KeyCode::Char(char)) => char_action(char),
        (_, code) => movement(code, view),
    }
}

fn char_action(char: char) -> Option<Action> {
    Some(match char {
        'q' | 'Q' => Action::Quit,
        '1'..='5' => Action::Show(Tab::ALL[char as usize - '1' as usize]),
        'j' => Action::Move(1),
        'k' => Action::Move(-1),
        'h' | '?' => Action::Help,
        '/' => Action::AskFilter,
        'w' => Action::AskFile,
        't' => Action::NextThread,
        's' => Action::SwitchSpan,
        'm' => Action::SwitchMeasure,
        'i' => Action::SwitchIdle,
        'g' => Action::SwitchGil,
        'o' => Action::Reverse,
        '<' | ',' => Action::SortNext(-1),
        '>' => Action::SortNext(1),
        'f' | ' ' => Action::SwitchFreeze,
        'n' | '.' => Action::Step,
        'p' => Action::SwitchPause,
        'r' | 'R' => Action::Reset,
        '+' | '*' => Action::OpenHottest,
        '-' => Action::CloseAll,
        _ => return None,
    })
}

fn movement(code: KeyCode, view: &View) -> Option<Action> {
    Some(match code {
        KeyCode::Tab => Action::ShowNext(1),
        KeyCode::BackTab => Action::ShowNext(-1),
        KeyCode::Up => Action::Move(-1),
        KeyCode::Down => Action::Move(1),
        KeyCode::PageUp => Action::Move(-view.page()),
        KeyCode::PageDown => Action::Move(view.page()),
        KeyCode::Home => Action::First,
        KeyCode::End => Action::Last,
        KeyCode::Left => Action::Left,
        KeyCode::Right => Action::Right,
        KeyCode::F(1) => Action::Help,
        _ => return None,
    })
}

fn mouse_action(mouse: &MouseEvent, view: &View) -> Option<Action> {
    match mouse.kind {
        MouseEventKind::Down(MouseButton::Left) => view.clicked(mouse.column, mouse.row),
        MouseEventKind::Down(MouseButton::Right) => Some(Action::Back),
        MouseEventKind::ScrollUp => Some(Action::Move(-NOTCH)),
        MouseEventKind::ScrollDown => Some(Action::Move(NOTCH)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_behind_escape_is_a_key_of_its_own() {
        let key = |code, modifiers| Event::Key(KeyEvent::new(code, modifiers));
        let (none, alt) = (KeyModifiers::NONE, KeyModifiers::ALT);
        let keys = |event| pressed(event).collect::<Vec<_>>();
        let escape = key(KeyCode::Esc, none);
        for code in [KeyCode::Char('3'), KeyCode::Enter, KeyCode::Backspace] {
            assert_eq!(keys(key(code, alt)), [escape.clone(), key(code, none)]);
        }
        let control = KeyModifiers::CONTROL;
        let interrupt = key(KeyCode::Char('c'), control);
        assert_eq!(keys(key(KeyCode::Char('c'), alt | control)), [escape.clone(), interrupt]);
        // Terminals send Alt with an arrow as one sequence.
        for one in [key(KeyCode::Up, alt), key(KeyCode::Char('3'), none), escape] {
            assert_eq!(keys(one.clone()), [one]);
        }
    }
}
