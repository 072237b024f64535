//! Starting the command that is to be profiled, and learning how it ended.
//!
//! The command is our child and, for moments, our tracee, and both roles share one `wait`: the kernel shows
//! a tracer's stop to whoever asks for the child's end, and the child's end to whoever asks for a stop. So
//! each side looks first (`WNOWAIT`) and takes only what is its own; ends are taken here, stops never.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist, setgid, setgroups, setuid};
use profiler_model::Pid;

use crate::limits;
use crate::signals::UserSignal;

/// Why a command could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// There is no such program.
    #[error("command not found: {}", .0.display())]
    NotFound(OsString),
    /// The file is there, but the interpreter that its first line names is not.
    #[error("{}: the interpreter on its first line does not exist", .0.display())]
    NoInterpreter(OsString),
    /// The file is there, but may not be executed by the user that the command runs as.
    #[error("{}: not executable", .0.display())]
    NotExecutable(OsString),
    /// Anything else, in the kernel's words.
    #[error("{}: {}", .0.display(), .1)]
    Other(OsString, io::Error),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandEnd {
    /// It returned this exit status.
    Exited(i32),
    /// This signal ended it.
    Killed(i32),
}

impl CommandEnd {
    /// The exit status by which a shell would report the end.
    pub fn exit_status(self) -> u8 {
        match self {
            CommandEnd::Exited(status) => status as u8,
            CommandEnd::Killed(signal) => 128_u8.wrapping_add(signal as u8),
        }
    }
}

/// The user who called `sudo`: a launched command is his, not root's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvokingUser {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    name: Option<String>,
    home: Option<PathBuf>,
}

impl InvokingUser {
    /// The user behind `sudo`, if this process is root by it.
    pub fn behind_sudo() -> Option<Self> {
        if !geteuid().is_root() {
            return None;
        }
        let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
        let uid = number("SUDO_UID").filter(|uid| *uid != 0)?;
        Some(Self::with_ids(Uid::from_raw(uid), Gid::from_raw(number("SUDO_GID")?)))
    }

    fn with_ids(uid: Uid, gid: Gid) -> Self {
        let entry = User::from_uid(uid).ok().flatten();
        let groups = entry
            .as_ref()
            .and_then(|user| CString::new(user.name.as_bytes()).ok())
            .and_then(|name| getgrouplist(&name, gid).ok())
            .unwrap_or_else(|| vec![gid]);
        let (name, home) = entry.map(|user| (user.name, user.dir)).unzip();
        InvokingUser { uid, gid, groups, name, home }
    }

    /// The user id.
    pub fn uid(&self) -> u32 {
        self.uid.as_raw()
    }

    /// The group id.
    pub fn gid(&self) -> u32 {
        self.gid.as_raw()
    }

    /// Gives the environment back what `sudo` changed to root's.
    fn adapt_environment(&self, command: &mut Command) {
        if let Some(name) = &self.name {
            command.env("USER", name).env("LOGNAME", name);
        }
        if let Some(home) = &self.home {
            command.env("HOME", home);
        }
    }
}

/// Where a command reads and writes.
#[derive(Debug)]
pub struct Streams {
    /// What it reads.
    pub stdin: Stdio,
    /// Where its results go.
    pub stdout: Stdio,
    /// Where its messages go.
    pub stderr: Stdio,
}

impl Streams {
    /// Where we read and write ourselves.
    pub fn own() -> Self {
        Streams { stdin: Stdio::inherit(), stdout: Stdio::inherit(), stderr: Stdio::inherit() }
    }
}

/// A command that was launched. Dropping it leaves the command running.
#[derive(Debug)]
pub struct Launched {
    pid: Pid,
    end: Option<CommandEnd>,
}

impl Launched {
    /// Starts `program` with our own stdin, stdout and stderr, as `user` where one is given. The signals in
    /// `ignored` are ignored in it, as they were when the profiler was started.
    ///
    /// # Errors
    /// When it cannot be started; nothing runs then.
    pub fn start(
        program: &OsStr,
        arguments: &[OsString],
        user: Option<InvokingUser>,
        ignored: &[UserSignal],
    ) -> Result<Self, LaunchError> {
        Self::start_with(program, arguments, user, ignored, Streams::own())
    }

    /// The same with other streams.
    ///
    /// # Errors
    /// When it cannot be started; nothing runs then.
    pub fn start_with(
        program: &OsStr,
        arguments: &[OsString],
        user: Option<InvokingUser>,
        ignored: &[UserSignal],
        streams: Streams,
    ) -> Result<Self, LaunchError> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(streams.stdin).stdout(streams.stdout).stderr(streams.stderr);
        if let Some(user) = &user {
            user.adapt_environment(&mut command);
        }
        let ignored: Vec<i32> = ignored.iter().map(|signal| signal.number()).collect();
        // SAFETY: between fork and exec only system calls are made that are safe in a signal handler
        // (signal, setrlimit, setgroups, setgid, setuid); nothing allocates or takes a lock.
        unsafe { command.pre_exec(move || prepare_child(user.as_ref(), &ignored)) };
        let child = command.spawn().map_err(|error| explain(program, error))?;
        Ok(Launched { pid: Pid::new(child.id()), end: None })
    }

    /// The command's process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// How the command ended, or `None` while it runs.
    ///
    /// # Errors
    /// When somebody else has taken the end, which nobody may.
    pub fn end(&mut self) -> io::Result<Option<CommandEnd>> {
        if self.end.is_none() {
            self.end = take_end(self.pid)?;
        }
        Ok(self.end)
    }

    /// Sends the command a signal, unless it has ended.
    pub fn send(&mut self, signal: UserSignal) {
        self.send_number(signal.number());
    }

    /// Kills the command, unless it has ended.
    pub fn kill(&mut self) {
        self.send_number(libc::SIGKILL);
    }

    fn send_number(&mut self, signal: i32) {
        if matches!(self.end(), Ok(None)) {
            // SAFETY: kill takes numbers only. The process is a child whose end nobody has taken, so the
            // number cannot have passed to another process.
            unsafe { libc::kill(self.pid.as_u32().cast_signed(), signal) };
        }
    }
}

fn prepare_child(user: Option<&InvokingUser>, ignored: &[i32]) -> io::Result<()> {
    for signal in ignored {
        // SAFETY: SIG_IGN is valid for each of these signals.
        unsafe { libc::signal(*signal, libc::SIG_IGN) };
    }
    limits::put_back();
    if let Some(user) = user {
        setgroups(&user.groups)?;
        setgid(user.gid)?;
        setuid(user.uid)?;
    }
    Ok(())
}

/// Takes the end of a child, but never a stop: a stop belongs to the tracer.
fn take_end(pid: Pid) -> io::Result<Option<CommandEnd>> {
    match wait(pid, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT)? {
        None => Ok(None),
        // An ended process reports nothing but its end, so this one takes just that.
        Some(_) => wait(pid, libc::WEXITED | libc::WNOHANG),
    }
}

fn wait(pid: Pid, flags: libc::c_int) -> io::Result<Option<CommandEnd>> {
    // SAFETY: siginfo_t is plain numbers, for which all zeroes are valid; waitid leaves it so when there is
    // nothing to report.
    let mut info: libc::siginfo_t = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: waitid writes to the siginfo, which lives as long as the call.
    let waited = unsafe { libc::waitid(libc::P_PID, pid.as_u32(), &mut info, flags) };
    if waited != 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::Interrupted { Ok(None) } else { Err(error) };
    }
    // SAFETY: the status is set for reports of children, and zero where there is none.
    let status = unsafe { info.si_status() };
    Ok(match info.si_code {
        libc::CLD_EXITED => Some(CommandEnd::Exited(status)),
        libc::CLD_KILLED | libc::CLD_DUMPED => Some(CommandEnd::Killed(status)),
        // Nothing to report, or a stop of a traced child, which the kernel shows unasked.
        _ => None,
    })
}

fn explain(program: &OsStr, error: io::Error) -> LaunchError {
    let name = program.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound if found(program) => LaunchError::NoInterpreter(name),
        io::ErrorKind::NotFound => LaunchError::NotFound(name),
        io::ErrorKind::PermissionDenied => LaunchError::NotExecutable(name),
        _ => LaunchError::Other(name, error),
    }
}

/// Whether the program's file exists, looked for as `exec` does.
fn found(program: &OsStr) -> bool {
    if program.as_bytes().contains(&b'/') {
        return Path::new(program).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use profiler_model::Tid;

    use super::*;
    use crate::ptrace::Tracer;

    fn start(script: &str) -> Launched {
        let arguments = ["-c".into(), script.into()];
        Launched::start(OsStr::new("/bin/sh"), &arguments, None, &[]).unwrap()
    }

    /// Blocks until the child has ended, without taking its end.
    fn until_ended(command: &Launched) {
        let _ = wait(command.pid, libc::WEXITED | libc::WNOWAIT).unwrap();
    }

    #[test]
    fn an_end_is_told_again_and_again() {
        let mut command = start("exit 7");
        until_ended(&command);
        assert_eq!(command.end().unwrap(), Some(CommandEnd::Exited(7)));
        assert_eq!(command.end().unwrap(), Some(CommandEnd::Exited(7)));
        assert_eq!(CommandEnd::Exited(7).exit_status(), 7);
    }

    #[test]
    fn a_signal_reaches_the_command_and_ends_it() {
        let mut command = start("exec tail -f /dev/null");
        assert_eq!(command.end().unwrap(), None);
        command.send(UserSignal::Terminate);
        until_ended(&command);
        let end = command.end().unwrap().unwrap();
        assert_eq!(end, CommandEnd::Killed(libc::SIGTERM));
        assert_eq!(end.exit_status(), 143);
    }

    #[test]
    fn a_stop_of_a_traced_command_is_neither_its_end_nor_taken() {
        let mut command = start("exec tail -f /dev/null");
        let stopped = Tracer::new().stop(Tid::new(command.pid.as_u32())).unwrap();
        assert_eq!(command.end().unwrap(), None);
        assert_eq!(command.end().unwrap(), None);
        drop(stopped);
        command.send(UserSignal::Terminate);
        until_ended(&command);
        assert_eq!(command.end().unwrap(), Some(CommandEnd::Killed(libc::SIGTERM)));
    }

    #[test]
    fn ignored_signals_stay_ignored_in_the_command() {
        let arguments = ["-c".into(), "kill -INT $$; exit 9".into()];
        let ignored = [UserSignal::Interrupt];
        let mut command = Launched::start(OsStr::new("/bin/sh"), &arguments, None, &ignored).unwrap();
        until_ended(&command);
        assert_eq!(command.end().unwrap(), Some(CommandEnd::Exited(9)));
    }

    #[test]
    fn a_command_runs_with_all_ids_of_the_invoking_user() {
        if !geteuid().is_root() {
            eprintln!("skipped: only root can give a command to another user");
            return;
        }
        let user = InvokingUser::with_ids(Uid::from_raw(65_534), Gid::from_raw(65_533));
        let script = "test $(id -u) = 65534 && test $(id -g) = 65533 && test \"$(id -G)\" = 65533 || exit 1; \
                      test \"$HOME\" = \"$(getent passwd 65534 | cut -d: -f6)\" || exit 2";
        let arguments = ["-c".into(), script.into()];
        let mut command = Launched::start(OsStr::new("/bin/sh"), &arguments, Some(user), &[]).unwrap();
        until_ended(&command);
        assert_eq!(command.end().unwrap(), Some(CommandEnd::Exited(0)));
    }

    #[test]
    fn what_cannot_be_started_says_why() {
        let error = |program: &str| Launched::start(OsStr::new(program), &[], None, &[]).unwrap_err();
        assert!(matches!(error("no-such-command-anywhere"), LaunchError::NotFound(_)));
        assert!(matches!(error("/etc/passwd"), LaunchError::NotExecutable(_)));
    }
}
