//! The loop of the live view: what comes in is folded, what is done is done, and what has changed is drawn.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use ratatui::crossterm::event;

use crate::Update;
use crate::input::{action, pressed};
use crate::screen::{Screen, Waited};
use crate::state::{Effect, SaveRequest, Settings, State};
use crate::view::View;

/// Updates, the size of the terminal and requests to end are looked for this often. Keys are answered at once.
const GLANCE: Duration = Duration::from_millis(100);

/// What the view asks of the program around it.
pub trait TopHost {
    /// Begins to write what is seen; returns what to tell the user until it is written. Keys wait for this.
    fn save(&mut self, request: SaveRequest) -> String;

    /// What to tell the user of a file that was written since this was last asked.
    fn saved(&mut self) -> Option<String>;

    /// Stops the program; returns when the shell lets it go on.
    fn suspend(&mut self);
}

/// Shows what comes in until the user or `should_end` ends it.
///
/// # Errors
/// When the terminal cannot be used.
pub fn run(
    settings: Settings,
    updates: &Receiver<Update>,
    host: &mut dyn TopHost,
    should_end: &AtomicBool,
) -> io::Result<()> {
    let mut state = State::new(settings);
    let mut view = View::default();
    let mut screen = Screen::enter()?;
    while !should_end.load(Ordering::Relaxed) {
        updates.try_iter().for_each(|update| state.fold(update));
        host.saved().into_iter().for_each(|message| state.say(message));
        let was_taken = screen.was_taken();
        if was_taken {
            screen.enter_again()?;
        }
        let was_resized = screen.was_resized();
        if state.take_dirty() | was_resized | was_taken {
            screen.draw(|buffer| view.draw(&state, buffer))?;
        }
        match screen.wait(GLANCE)? {
            Waited::Nothing => {}
            Waited::Gone => break,
            Waited::Input => {
                if answer(&mut state, &view, &mut screen, host)?.is_break() {
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Does what the user has asked for since the last time.
fn answer(
    state: &mut State,
    view: &View,
    screen: &mut Screen,
    host: &mut dyn TopHost,
) -> io::Result<std::ops::ControlFlow<()>> {
    while event::poll(Duration::ZERO)? {
        for event in pressed(event::read()?) {
            let Some(action) = action(&event, state, view) else { continue };
            match state.act(action) {
                None => {}
                Some(Effect::Quit) => return Ok(std::ops::ControlFlow::Break(())),
                Some(Effect::Save(request)) => state.say(host.save(*request)),
                Some(Effect::Suspend) => {
                    screen.leave();
                    host.suspend();
                    screen.enter_again()?;
                }
            }
        }
    }
    Ok(std::ops::ControlFlow::Continue(()))
}
