//! The command that `record` launched: which signals it is passed, and how its end becomes our exit status.

use std::thread;
use std::time::Duration;

use anyhow::Context;
use profiler_model::{Nanos, Timestamp};
use profiler_os::clock;
use profiler_os::launch::{CommandEnd, Launched};
use profiler_os::signals::{Received, Sender, Signals, UserSignal};

/// Between two looks whether a command has ended when there is nothing else to do.
const NAP: Duration = Duration::from_millis(10);

/// How long a command that is asked to end has until it is killed.
const PATIENCE: Nanos = Nanos::from_nanos(2_000_000_000);

/// A command with the name by which messages call it.
#[derive(Debug)]
pub struct RunningCommand {
    launched: Launched,
    name: String,
    started: Timestamp,
}

impl RunningCommand {
    /// Takes charge of a command that was launched at `started`.
    pub fn new(launched: Launched, name: String, started: Timestamp) -> Self {
        RunningCommand { launched, name, started }
    }

    /// The command itself.
    pub fn launched(&mut self) -> &mut Launched {
        &mut self.launched
    }

    /// When it was started.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// `python3 (process 4711)`
    pub fn title(&self) -> String {
        format!("{} (process {})", self.name, self.launched.pid())
    }

    /// How it ended, or `None` while it runs.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn end(&mut self) -> anyhow::Result<Option<CommandEnd>> {
        self.launched.end().with_context(|| format!("cannot learn how {} ended", self.title()))
    }

    /// Passes on a signal that the command did not get by itself.
    pub fn pass_on(&mut self, received: Received) {
        let is_new_to_it = match received.sender {
            // The terminal has sent it to the whole process group, and the command is in ours.
            Sender::Terminal => false,
            Sender::Process(sender) => sender != self.launched.pid(),
        };
        if is_new_to_it {
            self.launched.send(received.signal);
        }
    }

    /// Waits until it has ended, passing on signals.
    ///
    /// # Errors
    /// When the kernel does not tell how it ended.
    pub fn wait(&mut self, signals: &Signals) -> anyhow::Result<CommandEnd> {
        loop {
            if let Some(end) = self.end()? {
                return Ok(end);
            }
            match signals.take() {
                Some(received) => self.pass_on(received),
                None => thread::sleep(NAP),
            }
        }
    }

    /// Ends it: asks it to, and kills it where it has not ended after [`PATIENCE`]. Signals are passed on meanwhile.
    ///
    /// # Errors
    /// When the kernel does not tell how it ended.
    pub fn stop(&mut self, signals: &Signals) -> anyhow::Result<CommandEnd> {
        self.launched.send(UserSignal::Terminate);
        let limit = clock::now() + PATIENCE;
        while clock::now() < limit {
            if let Some(end) = self.end()? {
                return Ok(end);
            }
            match signals.take() {
                Some(received) => self.pass_on(received),
                None => thread::sleep(NAP),
            }
        }
        self.launched.kill();
        self.wait(signals)
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// When the kernel does not tell how it ended.
    pub fn end_now(&mut self, signals: &Signals) -> anyhow::Result<CommandEnd> {
        self.launched.send(UserSignal::Terminate);
        self.wait(signals)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{WaitPidFlag, waitpid};

    use super::*;

    #[test]
    fn only_signals_that_the_command_did_not_get_are_passed_on() {
        let script = "trap 'exit 5' TERM; kill -STOP $$; exit 6";
        let arguments = ["-c".into(), script.into()];
        let launched = Launched::start(OsStr::new("/bin/sh"), &arguments, None, &[]).unwrap();
        let mut command = RunningCommand::new(launched, "sh".to_owned(), Timestamp::default());
        let pid = command.launched().pid();
        let child = nix::unistd::Pid::from_raw(pid.as_u32().cast_signed());
        // Returns once the shell has stopped itself, with its trap in place.
        waitpid(child, Some(WaitPidFlag::WUNTRACED)).unwrap();
        for sender in [Sender::Terminal, Sender::Process(pid)] {
            command.pass_on(Received { signal: UserSignal::Terminate, sender });
        }
        assert_eq!(pending_signals(pid.as_u32()), 0);
        let sender = Sender::Process(profiler_model::Pid::new(1));
        command.pass_on(Received { signal: UserSignal::Terminate, sender });
        assert_eq!(pending_signals(pid.as_u32()), 1 << 14);
        kill(child, Signal::SIGCONT).unwrap();
        let signals = Signals::install().unwrap();
        assert_eq!(command.wait(&signals).unwrap(), CommandEnd::Exited(5));
    }

    fn pending_signals(pid: u32) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    }
}
