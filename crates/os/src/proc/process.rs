//! A process, as `/proc` shows it.
//!
//! The samplers ask while they sample whether a process is alive, for its threads and their inner ids, whether it shares
//! our PID namespace, and on what a file descriptor is open. That is read here. The rest goes through the crate `procfs`,
//! except for the mappings and the arguments, of which [`mapping`](super::mapping) and [`arguments`](super::arguments) say
//! why, and the namespaces: the crate reads all of them or none, and one has no link between
//! `unshare(CLONE_NEWPID)` and the next fork.

use std::path::PathBuf;
use std::{fs, io};

use nix::errno::Errno;
use procfs::process::{StatM, Status};
use profiler_model::{Nanos, NsTid, Pid, Tid};

use super::arguments::read_arguments;
use super::mapping::{Mapping, parse_mappings};
use super::stat::{Stat, parse_stat};
use crate::proc_file::{io_error, parsed, text_of};

/// A process as seen through `/proc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pid: Pid,
}

impl Process {
    /// The process `pid`, whether it exists or not.
    pub fn new(pid: Pid) -> Self {
        Process { pid }
    }

    /// Its id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }

    /// Its folder in `/proc`, or that of one of its threads: once the first thread has ended, only those of the others
    /// still show the memory, the files and the folders that they share.
    pub fn folder(&self) -> PathBuf {
        match self.living_thread() {
            Some(tid) if tid.as_u32() != self.pid.as_u32() => self.path(&format!("task/{tid}")),
            _ => PathBuf::from(format!("/proc/{}", self.pid)),
        }
    }

    /// A thread of it that has not ended: the first one, unless that one has ended (`pthread_exit` in `main`). `None` if
    /// the process has ended.
    pub fn living_thread(&self) -> Option<Tid> {
        if !self.stat().ok()?.has_ended() {
            return Some(Tid::new(self.pid.as_u32()));
        }
        let lives = |tid: &Tid| {
            let text = fs::read(self.path(&format!("task/{tid}/stat")));
            text.ok().and_then(|text| parse_stat(&text)).is_some_and(|stat| !stat.has_ended())
        };
        self.threads().ok()?.into_iter().find(lives)
    }

    /// Whether it exists and has not ended. A zombie has ended, unless only its first thread has and others run.
    pub fn is_alive(&self) -> bool {
        self.living_thread().is_some()
    }

    /// Whether it has ended or is just ending, so that its memory is gone or soon will be.
    pub fn is_ending(&self) -> bool {
        !self.is_alive()
    }

    /// Whether it exists although `/proc` shows nothing of it: mounted with `hidepid`, `/proc` hides the
    /// processes of other users.
    pub fn is_hidden(&self) -> bool {
        let pid = nix::unistd::Pid::from_raw(self.pid.as_u32() as i32);
        fs::metadata(self.path("")).is_err() && nix::sys::signal::kill(pid, None) == Err(Errno::EPERM)
    }

    /// Its memory map.
    ///
    /// # Errors
    /// When the process is gone or may not be looked at.
    pub fn mappings(&self) -> io::Result<Vec<Mapping>> {
        Ok(parse_mappings(&text_of(&self.folder().join("maps"))?))
    }

    /// The path of its executable, as the target sees it.
    ///
    /// # Errors
    /// When the process is gone or may not be looked at.
    pub fn executable(&self) -> io::Result<PathBuf> {
        self.opened_folder()?.exe().map_err(io_error)
    }

    /// Where the kernel shows the file that is mapped at `range`, such as `7f12a000-7f12b000`: that very file, even if it was
    /// deleted since.
    pub fn mapped_file(&self, range: &str) -> PathBuf {
        // The folders below `task` have no `map_files`.
        let tid = self.living_thread().unwrap_or(Tid::new(self.pid.as_u32()));
        PathBuf::from(format!("/proc/{tid}/map_files/{range}"))
    }

    /// What a file descriptor of it is open on, as the kernel names it: a path, `socket:[4711]`, `pipe:[4712]`.
    pub fn opened(&self, descriptor: u32) -> Option<String> {
        let link = fs::read_link(self.folder().join(format!("fd/{descriptor}"))).ok()?;
        Some(link.to_string_lossy().into_owned())
    }

    /// Its command line, arguments joined by blanks.
    ///
    /// # Errors
    /// When the process is gone, or its memory, where the arguments are, does not answer in time.
    pub fn command_line(&self) -> io::Result<String> {
        read_arguments(self.folder().join("cmdline"))
    }

    /// The kernel threads that it has now, without the first one if that has ended before the others.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn threads(&self) -> io::Result<Vec<Tid>> {
        let first_has_ended = self.stat()?.has_ended();
        let mut threads = Vec::new();
        for entry in fs::read_dir(self.path("task"))? {
            if let Some(tid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
                threads.push(Tid::new(tid));
            }
        }
        if first_has_ended {
            threads.retain(|tid| tid.as_u32() != self.pid.as_u32());
        }
        Ok(threads)
    }

    /// The id by which the process itself knows one of its threads: the one in its innermost PID namespace.
    ///
    /// # Errors
    /// When the thread is gone.
    pub fn inner_thread_id(&self, tid: Tid) -> io::Result<NsTid> {
        let status = text_of(&self.path(&format!("task/{tid}/status")))?;
        let inner = status
            .lines()
            .find_map(|line| line.strip_prefix("NSpid:"))
            .and_then(|ids| ids.split_ascii_whitespace().last())
            .and_then(|id| id.parse().ok());
        Ok(NsTid::new(inner.unwrap_or(tid.as_u32())))
    }

    /// Whether the profiler and the process are in the same PID namespace, so that ids need no translation.
    pub fn shares_pid_namespace(&self) -> bool {
        self.shares_namespace("pid") == Some(true)
    }

    /// Whether the profiler and the process are in the same namespace of a kind (`pid`, `mnt`, `user`);
    /// `None` if that may not be seen.
    pub fn shares_namespace(&self, kind: &str) -> Option<bool> {
        let own = fs::read_link(format!("/proc/self/ns/{kind}")).ok()?;
        let its = fs::read_link(self.folder().join(format!("ns/{kind}"))).ok()?;
        Some(own == its)
    }

    /// Its root folder, as this process sees it: `/`, unless it is in a `chroot`.
    ///
    /// # Errors
    /// When the process is gone or may not be looked at.
    pub fn root_folder(&self) -> io::Result<PathBuf> {
        self.opened_folder()?.root().map_err(io_error)
    }

    /// Its [`folder`](Process::folder), as the crate `procfs` holds one.
    fn opened_folder(&self) -> io::Result<procfs::process::Process> {
        procfs::process::Process::new_with_root(self.folder()).map_err(io_error)
    }

    /// The user that it runs as.
    pub fn user(&self) -> Option<u32> {
        Some(parsed::<Status>(&self.path("status")).ok()?.euid)
    }

    /// State, parent and start time. The state is that of its first thread, which may end before the others.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn stat(&self) -> io::Result<Stat> {
        let text = fs::read(self.path("stat"))?;
        parse_stat(&text).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// The letter of its state: that of its first thread, or of another one if the first has ended.
    pub fn state(&self) -> Option<u8> {
        let text = fs::read(self.folder().join("stat")).ok()?;
        Some(parse_stat(&text)?.state)
    }

    /// When it started, as time since 1970, to a hundredth of a second.
    pub fn started_at(&self) -> Option<Nanos> {
        use nix::time::{ClockId, clock_gettime};
        let since_boot =
            |clock| clock_gettime(clock).map(|time| Nanos::from(std::time::Duration::from(time)));
        let now = since_boot(ClockId::CLOCK_REALTIME).ok()?.as_nanos();
        let booted = now.checked_sub(since_boot(ClockId::CLOCK_BOOTTIME).ok()?.as_nanos())?;
        // User space sees hundredths of a second, whatever the ticks of the kernel are.
        const TICK: u64 = 10_000_000;
        let ticks = self.stat().ok()?.start_time;
        Some(Nanos::from_nanos(booted.checked_add(ticks.checked_mul(TICK)?)?))
    }

    /// The process that traces it, if any.
    pub fn tracer(&self) -> Option<Pid> {
        let tracer = parsed::<Status>(&self.path("status")).ok()?.tracerpid;
        (tracer != 0).then_some(Pid::new(tracer.cast_unsigned()))
    }

    /// Its resident memory in bytes.
    pub fn resident_memory(&self) -> Option<u64> {
        let pages = parsed::<StatM>(&self.folder().join("statm")).ok()?.resident;
        pages.checked_mul(procfs::page_size())
    }

    /// CPU time that all its threads, past and present, have used.
    pub fn cpu_time(&self) -> Option<Nanos> {
        let pid = nix::unistd::Pid::from_raw(self.pid.as_u32() as i32);
        let clock = nix::time::clock_getcpuclockid(pid).ok()?;
        let time = nix::time::clock_gettime(clock).ok()?;
        Some(Nanos::from(std::time::Duration::from(time)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Process {
        Process::new(Pid::new(std::process::id()))
    }

    #[test]
    fn processes_without_hidepid_are_not_hidden() {
        assert!(!own().is_hidden());
        assert!(!Process::new(Pid::new(u32::MAX >> 1)).is_hidden());
    }

    #[test]
    fn own_executable_owner_and_memory_are_shown() {
        assert_eq!(own().executable().unwrap(), std::env::current_exe().unwrap());
        assert_eq!(own().root_folder().unwrap(), fs::read_link("/proc/self/root").unwrap());
        assert_eq!(own().user(), Some(nix::unistd::geteuid().as_raw()));
        assert!(own().resident_memory().unwrap() > 0);
        let gone = Process::new(Pid::new(u32::MAX >> 1));
        assert_eq!(gone.executable().unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn own_thread_is_listed_with_its_id() {
        let tid = Tid::new(nix::unistd::gettid().as_raw() as u32);
        assert!(own().threads().unwrap().contains(&tid));
        assert_eq!(own().inner_thread_id(tid).unwrap(), NsTid::new(tid.as_u32()));
    }
}
