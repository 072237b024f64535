//! The files of a thread in `/proc` that are read for every sample. They are kept open and read into buffers on the stack,
//! so nothing here goes through the crate `procfs`, which opens a file for each read and allocates.

use std::cell::OnceCell;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use profiler_model::{KernelFunction, Nanos, Pid, SchedStat, Tid};

use super::activity::{Activity, parse_activity};
use super::kernel_stack::read_kernel_stack;
use super::stat::parse_stat_state;
use crate::limits::KeepingRight;

/// A small file that is read again and again: kept open, unless too many are.
#[derive(Debug)]
struct KeptFile {
    path: String,
    file: Option<(File, KeepingRight)>,
}

impl KeptFile {
    fn open(path: String) -> io::Result<Self> {
        let file = match KeepingRight::take() {
            Some(right) => Some((File::open(&path)?, right)),
            None if fs::exists(&path)? => None,
            None => return Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        Ok(KeptFile { path, file })
    }

    fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        match &self.file {
            Some((file, _)) => file.read_at(into, 0),
            None => File::open(&self.path)?.read_at(into, 0),
        }
    }
}

/// The files of a thread.
#[derive(Debug)]
pub struct ThreadFiles {
    folder: String,
    schedstat: KeptFile,
    syscall: OnceCell<KeptFile>,
}

impl ThreadFiles {
    /// Opens the files of thread `tid` of process `pid`.
    ///
    /// # Errors
    /// When the thread is gone.
    pub fn open(pid: Pid, tid: Tid) -> io::Result<Self> {
        let folder = format!("/proc/{pid}/task/{tid}");
        let schedstat = KeptFile::open(format!("{folder}/schedstat"))?;
        Ok(ThreadFiles { folder, schedstat, syscall: OnceCell::new() })
    }

    /// What the scheduler has counted: CPU time and time in the run queue in nanoseconds, and timeslices.
    ///
    /// # Errors
    /// When the thread is gone.
    pub fn schedule(&self) -> io::Result<SchedStat> {
        let mut text = [0u8; 96];
        let length = self.schedstat.read(&mut text)?;
        let mut numbers =
            text[..length].split(|b| !b.is_ascii_digit()).filter(|w| !w.is_empty()).map(decimal);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(cpu), Some(queued), Some(timeslices)) => {
                Ok(SchedStat { cpu: Nanos::from_nanos(cpu), queued: Nanos::from_nanos(queued), timeslices })
            }
            _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
        }
    }

    /// What the thread is doing: running, or blocked in which system call.
    ///
    /// # Errors
    /// When the thread is gone.
    pub fn activity(&self) -> io::Result<Activity> {
        let mut text = [0u8; 192];
        let length = self.syscall()?.read(&mut text)?;
        match parse_activity(&text[..length]) {
            // Neither on a CPU nor in a system call: only the state tells what that is.
            Activity::Blocked { call: None, .. } => self.activity_outside_calls(),
            activity => Ok(activity),
        }
    }

    /// The functions of the kernel in which the thread waits, leaf first, without those by which it left its CPU. If the
    /// thread does not sleep they mean nothing.
    ///
    /// # Errors
    /// When the thread is gone, or this process may not see it: it takes `CAP_SYS_ADMIN`.
    pub fn kernel_stack(&self) -> io::Result<Vec<KernelFunction>> {
        read_kernel_stack(&format!("{}/stack", self.folder))
    }

    fn syscall(&self) -> io::Result<&KeptFile> {
        if let Some(file) = self.syscall.get() {
            return Ok(file);
        }
        let file = KeptFile::open(format!("{}/syscall", self.folder))?;
        Ok(self.syscall.get_or_init(|| file))
    }

    fn activity_outside_calls(&self) -> io::Result<Activity> {
        let mut text = [0u8; 512];
        let length = File::open(format!("{}/stat", self.folder))?.read_at(&mut text, 0)?;
        match parse_stat_state(&text[..length]) {
            // `t`: this process stopped it and let it go, and it is about to run on.
            Some(b'R' | b't') => Ok(Activity::Running),
            Some(b'T') => Ok(Activity::Stopped),
            // The first thread stays as a zombie until the last one has ended.
            Some(b'Z' | b'X') => Err(io::Error::from(io::ErrorKind::NotFound)),
            _ => Ok(Activity::Blocked { call: None, argument: 0 }),
        }
    }
}

fn decimal(digits: &[u8]) -> u64 {
    digits.iter().fold(0u64, |value, digit| value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_thread_has_used_timeslices() {
        let pid = Pid::new(std::process::id());
        let tid = Tid::new(nix::unistd::gettid().as_raw() as u32);
        assert!(ThreadFiles::open(pid, tid).unwrap().schedule().unwrap().timeslices > 0);
    }
}
