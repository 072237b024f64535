//! A terminal that a test sits at: a real pseudo-terminal, whose other side reads what is written to it as a
//! terminal does.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::{Pid, ttyname};

/// What takes longer does not happen.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Written behind everything when a program has ended. A terminal in its usual mode changes nothing of it.
const END_MARK: &[u8] = b"\r<ended>";

/// The rows and columns of a usual terminal.
pub const USUAL_SIZE: (u16, u16) = (30, 100);

/// What a program writes before and behind each of its pictures (mode 2026), so that no half of one is shown.
const PICTURE_BEGINS: &[u8] = b"\x1b[?2026h";
const PICTURE_ENDS: &[u8] = b"\x1b[?2026l";

/// What has been written so far.
struct Written {
    parser: vt100::Parser,
    bytes: Vec<u8>,
    is_closed: bool,
}

impl Written {
    /// Whether the last picture has been drawn to its end: what is written comes out in pieces.
    fn is_whole(&self) -> bool {
        let last = |mark: &[u8]| self.bytes.windows(mark.len()).rposition(|bytes| bytes == mark);
        last(PICTURE_BEGINS) <= last(PICTURE_ENDS)
    }
}

/// A program in its terminal. It does not outlive this value.
pub struct Terminal {
    child: Child,
    master: File,
    /// Held open, so that what the terminal is set to can be asked after the program has ended.
    slave: File,
    path: PathBuf,
    written: Arc<(Mutex<Written>, Condvar)>,
}

impl Terminal {
    /// Starts a program in a terminal of (rows, columns) of its own; of none, as some pseudo-terminals have it
    /// until somebody says how large they are.
    pub fn start(words: &[OsString], (rows, columns): (u16, u16)) -> Result<Self> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None)?;
        let (master, slave) = (File::from(pty.master), File::from(pty.slave));
        let path = ttyname(&slave)?;
        let stream = || Ok::<_, std::io::Error>(Stdio::from(slave.try_clone()?));
        // `setsid` makes it the controlling terminal, and becomes the program. Whoever runs the tests may ignore the
        // signals of a terminal, as a shell has its background jobs do: who sits in front of one does not.
        let mut command = Command::new("env");
        command.arg("--default-signal").args(["setsid", "--ctty"]).args(words);
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        command.stdin(stream()?).stdout(stream()?).stderr(stream()?);
        let child = command.spawn().context("env of coreutils, setsid of util-linux")?;
        drop(command);
        let parser = vt100::Parser::new(positive(rows.max(1))?, positive(columns.max(1))?, 0);
        let written = Written { parser, bytes: Vec::new(), is_closed: false };
        let written = Arc::new((Mutex::new(written), Condvar::new()));
        let (reader, shared) = (master.try_clone()?, written.clone());
        thread::spawn(move || read_all(reader, &shared));
        Ok(Terminal { child, master, slave, path, written })
    }

    /// Starts an interactive shell in a terminal of the usual size, and waits for its prompt.
    pub fn shell() -> Result<Self> {
        let words = ["bash", "--norc", "--noprofile", "-i"].map(OsString::from);
        let terminal = Terminal::start(&words, USUAL_SIZE)?;
        terminal.wait_for("a prompt", |screen| screen.contains(['$', '#']))?;
        Ok(terminal)
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.0.lock().expect("the reading thread panicked")
    }

    /// What is on the screen, a picture that is only half drawn included.
    pub fn screen(&self) -> String {
        self.written().parser.screen().contents()
    }

    /// What is on the screen with its colours.
    pub fn cells(&self) -> vt100::Screen {
        self.written().parser.screen().clone()
    }

    /// Everything that was written, as it was.
    pub fn bytes(&self) -> Vec<u8> {
        self.written().bytes.clone()
    }

    /// Types.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        Ok(self.master.write_all(keys.as_bytes())?)
    }

    /// Waits until the screen is as wanted, with no picture half drawn; returns it.
    pub fn wait_for(&self, what: &str, is_so: impl Fn(&str) -> bool) -> Result<String> {
        let limit = Instant::now() + LONGEST_WAIT;
        let mut written = self.written();
        loop {
            let screen = written.parser.screen().contents();
            if written.is_whole() && is_so(&screen) {
                return Ok(screen);
            }
            ensure!(!written.is_closed, "the terminal was closed before {what}:\n{screen}");
            let left = limit.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "no {what} on the screen:\n{screen}");
            written = self.written.1.wait_timeout(written, left).expect("the reading thread panicked").0;
        }
    }

    /// Waits until a text is on the screen.
    pub fn wait_for_text(&self, text: &str) -> Result<String> {
        self.wait_for(text, |screen| screen.contains(text))
    }

    /// Types, and waits until a text is on the screen.
    pub fn press_for(&mut self, keys: &str, text: &str) -> Result<String> {
        self.press(keys)?;
        self.wait_for_text(text)
    }

    /// Waits until the mark behind everything has been read; a small screen has no room for it.
    fn wait_for_end(&self) -> Result<()> {
        let limit = Instant::now() + LONGEST_WAIT;
        let mut written = self.written();
        while !written.bytes.ends_with(END_MARK) {
            let left = limit.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "what was written last cannot be read");
            written = self.written.1.wait_timeout(written, left).expect("the reading thread panicked").0;
        }
        Ok(())
    }

    /// Changes the size, as a user does with the mouse.
    pub fn resize(&self, (rows, columns): (u16, u16)) -> Result<()> {
        self.written().parser.screen_mut().set_size(positive(rows)?, positive(columns)?);
        let mut stty = Command::new("stty");
        stty.arg("-F").arg(&self.path).args(["rows", &rows.to_string(), "cols", &columns.to_string()]);
        ensure!(stty.status()?.success(), "stty failed");
        Ok(())
    }

    /// The process id of the program.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.pid())?), signal)?)
    }

    /// Makes sure that the terminal is as a shell wants it: its own screen, cursor, echo, no mouse.
    pub fn expect_whole(&self) -> Result<()> {
        let modes = tcgetattr(&self.slave)?.local_flags;
        ensure!(modes.contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG), "raw: {modes:?}");
        let written = self.written();
        let screen = written.parser.screen();
        ensure!(!screen.alternate_screen(), "the alternate screen is on");
        ensure!(!screen.hide_cursor(), "the cursor is hidden");
        ensure!(screen.mouse_protocol_mode() == vt100::MouseProtocolMode::None, "the mouse is taken");
        Ok(())
    }

    /// Waits for the program's end, after which the terminal must be whole.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let limit = Instant::now() + LONGEST_WAIT;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() >= limit {
                bail!("the program does not end; on its screen is\n{}", self.screen());
            }
            thread::sleep(Duration::from_millis(1));
        };
        // What it wrote last is read when this mark comes out, which is written behind it.
        File::options().write(true).open(&self.path)?.write_all(END_MARK)?;
        self.wait_for_end()?;
        self.expect_whole()?;
        Ok(status)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn positive(number: u16) -> Result<NonZero<u16>> {
    NonZero::new(number).context("a terminal of no size")
}

fn read_all(mut master: File, written: &(Mutex<Written>, Condvar)) {
    let mut buffer = [0; 8192];
    loop {
        let count = master.read(&mut buffer).unwrap_or(0);
        let Ok(mut now) = written.0.lock() else { return };
        now.is_closed = count == 0;
        now.parser.process(&buffer[..count]);
        now.bytes.extend_from_slice(&buffer[..count]);
        written.1.notify_all();
        if count == 0 {
            return;
        }
    }
}

/// The number that stands before these words on a screen.
pub fn count_before(screen: &str, words: &str) -> Option<u64> {
    let number = screen.split_once(words)?.0.rsplit(|c: char| c.is_whitespace()).next()?;
    number.replace(',', "").parse().ok()
}
