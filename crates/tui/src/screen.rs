//! The terminal while it is ours, and how it is given back whole: at the end, before the shell gets it for a
//! while, and when the program panics.

use std::io::{self, BufWriter, Stdout, Write};
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, tcgetattr};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{DisableMouseCapture, EnableMouseCapture};
use ratatui::crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
    LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{execute, queue};

/// Whether the terminal is ours. It is one for the whole process, and so is this.
static IS_OURS: AtomicBool = AtomicBool::new(false);

/// The terminal.
pub struct Screen {
    terminal: Drawn,
}

type Drawn = Terminal<CrosstermBackend<BufWriter<Stdout>>>;

/// What came of waiting for the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// There is something to read.
    Input,
    /// Nothing came.
    Nothing,
    /// The terminal is gone.
    Gone,
}

impl Screen {
    /// Takes the terminal. Dropping the screen gives it back.
    ///
    /// # Errors
    /// When stdin or stdout is no terminal that can be used so.
    pub fn enter() -> io::Result<Self> {
        restore_on_panic();
        take()?;
        blank().map(|terminal| Screen { terminal }).inspect_err(|_| give_back())
    }

    /// Draws, unless the terminal was given back because of a panic. What is written reaches a terminal in pieces, so
    /// it is told where a picture begins and ends: those that know of it (mode 2026) show nothing half drawn, and the
    /// others ignore it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn draw(&mut self, render: impl FnOnce(&mut ratatui::buffer::Buffer)) -> io::Result<()> {
        if IS_OURS.load(Ordering::SeqCst) {
            queue!(self.terminal.backend_mut(), BeginSynchronizedUpdate)?;
            self.terminal.draw(|frame| render(frame.buffer_mut()))?;
            execute!(self.terminal.backend_mut(), EndSynchronizedUpdate)?;
        }
        Ok(())
    }

    /// Waits for the user.
    ///
    /// # Errors
    /// When the terminal cannot be asked.
    pub fn wait(&self, longest: Duration) -> io::Result<Waited> {
        let stdin = io::stdin();
        let mut asked = [PollFd::new(std::os::fd::AsFd::as_fd(&stdin), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(longest).unwrap_or(PollTimeout::ZERO);
        match poll(&mut asked, timeout) {
            Ok(0) | Err(Errno::EINTR) => Ok(Waited::Nothing),
            Ok(_) => {
                let answer = asked[0].revents().unwrap_or(PollFlags::empty());
                let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
                Ok(if answer.intersects(gone) { Waited::Gone } else { Waited::Input })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether somebody else has set the terminal up for himself: a shell does when it stops us.
    pub fn was_taken(&self) -> bool {
        tcgetattr(io::stdin()).is_ok_and(|modes| modes.local_flags.contains(LocalFlags::ICANON))
    }

    /// Whether its size is another one than at the last drawing.
    pub fn was_resized(&mut self) -> bool {
        let drawn = self.terminal.get_frame().area();
        self.terminal.size().is_ok_and(|size| (size.width, size.height) != (drawn.width, drawn.height))
    }

    /// Gives the terminal back for the moment.
    pub fn leave(&mut self) {
        give_back();
    }

    /// Takes it again; everything will be drawn anew.
    ///
    /// # Errors
    /// When it cannot be taken.
    pub fn enter_again(&mut self) -> io::Result<()> {
        give_back();
        take()?;
        // Not `clear`, which asks the terminal where its cursor is: what the user types meanwhile may stand
        // before the answer, and not every terminal has one.
        self.terminal = blank()?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// A terminal on which nothing is drawn yet.
fn blank() -> io::Result<Drawn> {
    execute!(io::stdout(), Clear(ClearType::All))?;
    Terminal::new(CrosstermBackend::new(BufWriter::new(io::stdout())))
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    IS_OURS.store(true, Ordering::SeqCst);
    execute!(io::stdout(), EnterAlternateScreen, EnableMouseCapture).inspect_err(|_| give_back())
}

/// Gives the terminal back if it is ours. If it does not take it, nothing can be done.
fn give_back() {
    if IS_OURS.swap(false, Ordering::SeqCst) {
        let mut out = io::stdout();
        // It may have happened in the middle of a picture.
        let _ = execute!(out, EndSynchronizedUpdate, DisableMouseCapture, LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
        let _ = out.flush();
    }
}

/// What a panic says must not be written into the middle of our screen, which is then lost.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            give_back();
            usual(info);
        }));
    });
}
