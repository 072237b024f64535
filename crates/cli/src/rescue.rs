//! What becomes of a result that cannot be written where it was asked for, because the disk is full or the folder is gone: it
//! is written to the folder for temporary files, and if that is full as well it is kept in memory until the user has made
//! room, has copied it from there, or gives it up.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use profiler_model::Nanos;
use profiler_os::file::memory_file;
use profiler_os::launch::InvokingUser;
use profiler_os::signals::Signals;
use profiler_os::{clock, readiness};
use profiler_output::{OutputError, escaped_text};

use crate::destination::{Destination, DestinationError};
use crate::failure::{Failure, quoted};
use crate::messages::{grouped, say};
use crate::plan::Output;

/// Renders a result, as often as it is asked to.
type Render<'a> = dyn Fn(&mut dyn Write) -> Result<(), OutputError> + 'a;

/// How long a result is kept in memory if nobody sits at a terminal.
const LONGEST_WAIT_ALONE: Duration = Duration::from_secs(600);

/// Between two looks whether a signal came.
const LOOK_GAP: Nanos = Nanos::from_nanos(100_000_000);

/// Writes what `render` renders to `destination`; returns what was written, as messages call it. Without `signals` nobody can be
/// waited for, so that nothing is kept in memory.
///
/// # Errors
/// When it cannot be written there, even if it was written elsewhere: the error says where.
pub fn write_or_keep(
    destination: &Destination,
    signals: Option<&Signals>,
    render: &Render<'_>,
) -> anyhow::Result<String> {
    let failed = match destination.write(render) {
        Err(error) if is_worth_a_rescue(&error) => error,
        written => return Ok(written?),
    };
    let Some(path) = destination.path() else { return Err(failed.into()) };
    match write_to_temporary_folder(path, render) {
        Ok(name) => Err(Failure::new(format!("{failed}; the result was written to {name} instead")).into()),
        Err(also_failed) => {
            say(format_args!("{failed}; {also_failed}"));
            match signals {
                Some(signals) => keep_in_memory(destination, path, failed, signals, render),
                None => Err(failed.into()),
            }
        }
    }
}

/// A pipe whose reader is gone has no use for the result, and a format that cannot show it cannot elsewhere either.
fn is_worth_a_rescue(error: &DestinationError) -> bool {
    match error {
        DestinationError::Refused(_, error) => error.kind() != io::ErrorKind::BrokenPipe,
        DestinationError::IsFolder(_) | DestinationError::NoFolder(..) => true,
        DestinationError::ForeignLink { .. }
        | DestinationError::NoReader(_)
        | DestinationError::Stdout(_)
        | DestinationError::Unsuitable(_) => false,
    }
}

/// Writes it to a new file of the same name in `$TMPDIR`, or in `/tmp`; returns what that is called.
fn write_to_temporary_folder(path: &Path, render: &Render<'_>) -> Result<String, DestinationError> {
    let place = std::env::temp_dir().join(path.file_name().unwrap_or("profile".as_ref()));
    let user = InvokingUser::behind_sudo();
    Destination::prove(&Output::New(place), user.as_ref())?.write(render)
}

/// Keeps it in memory until it can be written or the user gives it up.
fn keep_in_memory(
    destination: &Destination,
    path: &Path,
    failed: DestinationError,
    signals: &Signals,
    render: &Render<'_>,
) -> anyhow::Result<String> {
    let Ok(mut kept) = kept_in_memory(render) else { return Err(failed.into()) };
    let stdin = io::stdin();
    let terminal = stdin.is_terminal().then(|| stdin.as_fd());
    say_how_to_get(&kept, path, terminal.is_some());
    let since = clock::now();
    loop {
        let is_last = match wait_for_user(signals, terminal) {
            Wish::GiveUp => return Err(failed.into()),
            Wish::TryAgain => false,
            Wish::Nothing if terminal.is_some() => continue,
            Wish::Nothing if clock::now().since(since) < Nanos::from(LONGEST_WAIT_ALONE) => continue,
            Wish::Nothing => true,
        };
        kept.rewind()?;
        match destination.write(|out| Ok(io::copy(&mut &kept, out).map(drop)?)) {
            Ok(name) => return Ok(name),
            Err(error) if is_last => return Err(error.into()),
            Err(error) => say(format_args!("{error}; the result is still kept in memory")),
        }
    }
}

fn kept_in_memory(render: &Render<'_>) -> Result<File, OutputError> {
    let file = memory_file("profiler-result")?;
    let mut writer = BufWriter::new(&file);
    render(&mut writer)?;
    writer.flush()?;
    drop(writer);
    Ok(file)
}

fn say_how_to_get(kept: &File, path: &Path, is_at_terminal: bool) {
    let pid = std::process::id();
    let kibibytes = kept.metadata().map_or(0, |metadata| metadata.len().div_ceil(1024));
    let again = match is_at_terminal {
        true => "press Enter".to_owned(),
        false => format!("kill -USR1 {pid} (within {} minutes)", LONGEST_WAIT_ALONE.as_secs() / 60),
    };
    let path = quoted(&path.to_string_lossy());
    say(format_args!(
        "the result is kept in memory ({} KiB) until it is written or given up\n  \
         to write it to {}: free some space, then {again}\n  \
         to copy it: cp /proc/{pid}/fd/{} FILE\n  \
         to give it up: {}",
        grouped(kibibytes),
        escaped_text(&path),
        kept.as_raw_fd(),
        if is_at_terminal { "Ctrl-C".to_owned() } else { format!("kill {pid}") },
    ));
}

/// What the user wants to become of a result.
enum Wish {
    Nothing,
    TryAgain,
    GiveUp,
}

/// Waits a moment for a key or a signal. A terminal that ends its input is gone.
fn wait_for_user(signals: &Signals, terminal: Option<BorrowedFd<'_>>) -> Wish {
    let descriptors: Vec<_> = terminal.into_iter().collect();
    let is_pressed = readiness::wait_until(&descriptors, clock::now() + LOOK_GAP);
    if let Some(received) = signals.take() {
        return if received.signal.asks_for_end() { Wish::GiveUp } else { Wish::TryAgain };
    }
    match is_pressed.then(|| io::stdin().lock().read(&mut [0; 256])) {
        None => Wish::Nothing,
        Some(Ok(1..)) => Wish::TryAgain,
        Some(_) => Wish::GiveUp,
    }
}
