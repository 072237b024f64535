//! A command that is launched to be profiled: how it starts, what of it is profiled, and what its end says.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

use profiler_account::LaunchTime;
use profiler_model::Nanos;
use profiler_os::clock;
use profiler_os::launch::{CommandEnd, InvokingUser, Launched, Streams};
use profiler_os::signals::Signals;
use profiler_output::escaped_text;

use crate::FAILED;
use crate::attach::{Accepts, Awaited, await_python};
use crate::command::RunningCommand;
use crate::failure::Failure;
use crate::messages::{report, say};
use crate::offspring::PythonChild;
use crate::source::Source;

/// Starts the command with these streams.
///
/// # Errors
/// When it cannot be started.
pub fn launch(
    program: &OsStr,
    arguments: &[OsString],
    user: Option<InvokingUser>,
    signals: &Signals,
    streams: Streams,
) -> anyhow::Result<RunningCommand> {
    let name = Path::new(program).file_name().unwrap_or(program).to_string_lossy();
    let name = escaped_text(&name).into_owned();
    let started = clock::now();
    let launched = Launched::start_with(program, arguments, user, signals.ignored_before(), streams)
        .map_err(Failure::from)?;
    Ok(RunningCommand::new(launched, name, started))
}

/// Why there is nothing to profile in a command.
pub enum Missing {
    /// It ended before a Python came up.
    Ended(CommandEnd),
    /// The user had enough of waiting.
    Interrupted,
    /// The time to record is over, and at most a child of it is a Python.
    TimeOver(Duration, Option<PythonChild>),
    /// It cannot be profiled.
    Failed(Failure),
}

/// What of the command is to be profiled, as soon as that is there: its Python, or all of its tree. `limit`: how long
/// is to be recorded, if that is limited.
///
/// # Errors
/// When the command cannot be watched.
pub fn source_of(
    command: &mut RunningCommand,
    subprocesses: bool,
    accepts: Accepts,
    limit: Option<Duration>,
    signals: &Signals,
) -> anyhow::Result<Result<Source, Missing>> {
    if subprocesses {
        // The command need not become a Python itself.
        let started = command.started();
        let beginning = LaunchTime { started, without_python: started, cpu_without_python: Nanos::ZERO };
        let root = Source::root(command.launched().pid());
        return Ok(Ok(Source { beginning: Some(beginning), ..root }));
    }
    Ok(match await_python(command, accepts, limit, signals)? {
        Awaited::Python(target, beginning) => {
            Ok(Source { beginning: Some(beginning), ..Source::python(*target) })
        }
        Awaited::Native(beginning) => {
            let pid = command.launched().pid();
            Ok(Source { beginning: Some(beginning), ..Source::native(pid) })
        }
        Awaited::Ended(end) => Err(Missing::Ended(end)),
        Awaited::Interrupted => Err(Missing::Interrupted),
        Awaited::TimeOver(limit, child) => Err(Missing::TimeOver(limit, child)),
        Awaited::Failed(failure) => Err(Missing::Failed(failure)),
    })
}

impl Missing {
    /// Reports why, has the command end, unless it is to be left running when its time is over, and returns the exit
    /// status.
    ///
    /// # Errors
    /// When the status is ours, with what is to be reported.
    pub fn status(
        self,
        command: &mut RunningCommand,
        keep_running: bool,
        signals: &Signals,
    ) -> anyhow::Result<u8> {
        match self {
            Missing::Ended(end) => status_of(Some(end), Err(no_python(command, end))),
            Missing::Interrupted => {
                let failure =
                    Failure::new(format!("interrupted before a Python came up in {}", command.title()));
                status_of(Some(command.wait(signals)?), Err(failure.into()))
            }
            Missing::TimeOver(limit, child) => {
                let failure = no_python_in_time(command, limit, child.as_ref());
                end_after_time(command, keep_running, signals)?;
                Err(failure)
            }
            Missing::Failed(failure) => {
                // The command was started to be looked at, and there will be nothing to see. That is told first: a
                // command that has gained rights (`sudo`) may take its time to end.
                report(&failure.into());
                command.end_now(signals)?;
                Ok(FAILED)
            }
        }
    }
}

/// Why there was nothing to profile in a command.
fn no_python(command: &RunningCommand, end: CommandEnd) -> anyhow::Error {
    let how = match end {
        CommandEnd::Exited(status) => format!("with exit status {status}"),
        CommandEnd::Killed(signal) => format!("by signal {signal}"),
    };
    Failure::new(format!("the command {} ended {how} before a Python came up in it", command.title()))
        .with_advice("--subprocesses, if the command starts Python as another process")
        .into()
}

/// Why there was nothing to profile in a command in the time that was to be recorded.
fn no_python_in_time(
    command: &RunningCommand,
    limit: Duration,
    child: Option<&PythonChild>,
) -> anyhow::Error {
    let seconds = limit.as_secs_f64();
    let failure = Failure::new(format!("no Python came up in {} within {seconds} s", command.title()));
    match child {
        Some(child) => failure
            .with_detail(format!("it has started {child}"))
            .with_advice("--subprocesses, which includes child processes"),
        None => failure
            .with_advice("a longer --duration, or --subprocesses, if it starts Python as another process"),
    }
    .into()
}

/// Ends the command when the time that the user has set is over, as py-spy does, or leaves it running.
///
/// # Errors
/// When the kernel does not tell how it ended.
pub fn end_after_time(
    command: &mut RunningCommand,
    keep_running: bool,
    signals: &Signals,
) -> anyhow::Result<()> {
    if keep_running {
        say(format_args!("{} runs on", command.title()));
        return Ok(());
    }
    command.stop(signals)?;
    say(format_args!("ended {}; --keep-running would leave it running", command.title()));
    Ok(())
}

/// The command's own exit status when it failed, else ours.
pub fn status_of(end: Option<CommandEnd>, recorded: anyhow::Result<()>) -> anyhow::Result<u8> {
    match (end.map_or(0, CommandEnd::exit_status), recorded) {
        (0, recorded) => recorded.map(|()| 0),
        (failed, Ok(())) => Ok(failed),
        (failed, Err(error)) => {
            report(&error);
            Ok(failed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> anyhow::Result<()> {
        Err(Failure::new("disk full").into())
    }

    #[test]
    fn a_failed_commands_status_is_passed_on_and_else_ours() {
        assert_eq!(status_of(None, Ok(())).unwrap(), 0);
        assert_eq!(status_of(Some(CommandEnd::Exited(0)), Ok(())).unwrap(), 0);
        assert_eq!(status_of(Some(CommandEnd::Exited(3)), Ok(())).unwrap(), 3);
        assert_eq!(status_of(Some(CommandEnd::Killed(15)), Ok(())).unwrap(), 143);
        assert_eq!(status_of(Some(CommandEnd::Exited(3)), failed()).unwrap(), 3);
        assert!(status_of(Some(CommandEnd::Exited(0)), failed()).is_err());
        assert!(status_of(None, failed()).is_err());
    }
}
