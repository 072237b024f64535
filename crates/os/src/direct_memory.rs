//! Reading a live process's memory with `process_vm_readv`, or with `/proc/PID/mem` where the kernel has no such call
//! (Flatcar's is built without) or a system call filter forbids it (Docker's did up to Linux 4.8).
//!
//! Neither stops the process. Both wait for pages that are not in memory, for as long as it takes:
//! [`ProcessMemory`](crate::ProcessMemory) sees to it that the caller does not.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use profiler_memory::{ReadError, ReadMemory, ReadRequest};
use profiler_model::{Pid, RemoteAddr};

use crate::Process;

/// The kernel takes at most this many pieces a call (`UIO_MAXIOV`).
const MAX_PIECES: usize = 1024;

/// The memory of a running process, read by the calling thread.
#[derive(Debug)]
pub(crate) struct DirectMemory {
    pid: Pid,
    /// Opened when `process_vm_readv` turns out to be missing or forbidden, and used from then on.
    file: RefCell<Option<File>>,
}

impl DirectMemory {
    /// The memory of the process `pid`. Nothing is asked of the system yet: the first read tells whether
    /// it may be read.
    pub(crate) fn new(pid: Pid) -> Self {
        DirectMemory { pid, file: RefCell::new(None) }
    }

    /// Fills at most [`MAX_PIECES`] requests in order; how many were filled completely.
    fn read_pieces(&self, requests: &mut [ReadRequest<'_>]) -> Result<usize, ReadError> {
        if self.file.borrow().is_some() {
            return self.read_pieces_from_file(requests);
        }
        match self.call(requests) {
            Ok(filled) => Ok(filled),
            Err(Errno::EFAULT) => Ok(0),
            // Also if only the first thread has ended: then the file of another one has the memory.
            Err(Errno::ESRCH) if !Process::new(self.pid).is_alive() => Err(ReadError::ProcessEnded),
            // Whether it is the call that is refused or the process, the file tells.
            Err(_) => {
                *self.file.borrow_mut() = Some(self.open()?);
                self.read_pieces_from_file(requests)
            }
        }
    }

    /// One call of `process_vm_readv`.
    fn call(&self, requests: &mut [ReadRequest<'_>]) -> Result<usize, Errno> {
        let remote: Vec<RemoteIoVec> = requests
            .iter()
            .map(|r| RemoteIoVec { base: r.at.as_u64() as usize, len: r.into.len() })
            .collect();
        let mut local: Vec<IoSliceMut<'_>> = requests.iter_mut().map(|r| IoSliceMut::new(r.into)).collect();
        let pid = nix::unistd::Pid::from_raw(self.pid.as_u32() as i32);
        let mut bytes = process_vm_readv(pid, &mut local, &remote)?;
        let is_filled = |piece: &&RemoteIoVec| {
            let whole = bytes >= piece.len;
            bytes = bytes.saturating_sub(piece.len);
            whole
        };
        Ok(remote.iter().take_while(is_filled).count())
    }

    fn open(&self) -> Result<File, ReadError> {
        File::open(Process::new(self.pid).folder().join("mem")).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ReadError::ProcessEnded,
            // An ended process that its parent has not taken note of yet.
            _ if error.raw_os_error() == Some(libc::ESRCH) => ReadError::ProcessEnded,
            _ => ReadError::NotPermitted,
        })
    }

    fn read_pieces_from_file(&self, requests: &mut [ReadRequest<'_>]) -> Result<usize, ReadError> {
        for (filled, request) in requests.iter_mut().enumerate() {
            if !self.fill_from_file(request)? {
                return Ok(filled);
            }
        }
        Ok(requests.len())
    }

    /// Fills one request; `false` when some of it cannot be read.
    fn fill_from_file(&self, request: &mut ReadRequest<'_>) -> Result<bool, ReadError> {
        if request.into.is_empty() {
            return Ok(true);
        }
        let mut file = self.file.borrow_mut();
        if let Some(open) = file.as_ref()
            && let Some(filled) = fill(open, request)
        {
            return Ok(filled);
        }
        // The memory that was opened is gone: replaced by `exec`, or with the process.
        let reopened = self.open()?;
        let filled = fill(&reopened, request).ok_or(ReadError::ProcessEnded)?;
        *file = Some(reopened);
        Ok(filled)
    }
}

/// Fills a request from `/proc/PID/mem`; `None` when that memory does not exist any more, which is where the
/// file ends.
fn fill(file: &File, request: &mut ReadRequest<'_>) -> Option<bool> {
    let mut done = 0;
    while done < request.into.len() {
        match file.read_at(&mut request.into[done..], request.at.offset(done as u64).as_u64()) {
            Ok(0) => return None,
            Ok(length) => done += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return None,
            Err(_) => return Some(false),
        }
    }
    Some(true)
}

impl ReadMemory for DirectMemory {
    fn read(&self, at: RemoteAddr, into: &mut [u8]) -> Result<(), ReadError> {
        match self.read_pieces(&mut [ReadRequest::new(at, into)])? {
            1 => Ok(()),
            _ => Err(ReadError::Unmapped(at)),
        }
    }

    fn read_batch(&self, requests: &mut [ReadRequest<'_>]) -> Result<usize, ReadError> {
        let mut filled = 0;
        for pieces in requests.chunks_mut(MAX_PIECES) {
            let asked = pieces.len();
            let got = self.read_pieces(pieces)?;
            filled += got;
            if got < asked {
                break;
            }
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_stops_at_the_first_hole_and_says_how_far_it_came() {
        let own = [7u8; 64];
        let memory = DirectMemory::new(Pid::new(std::process::id()));
        let here = RemoteAddr::new(own.as_ptr() as u64);
        let (mut first, mut hole, mut last) = ([0u8; 64], [0u8; 8], [0u8; 64]);
        let filled = memory
            .read_batch(&mut [
                ReadRequest::new(here, &mut first),
                ReadRequest::new(RemoteAddr::new(8), &mut hole),
                ReadRequest::new(here, &mut last),
            ])
            .unwrap();
        assert_eq!((filled, first), (1, own));
        assert_eq!(memory.read(RemoteAddr::new(8), &mut hole), Err(ReadError::Unmapped(RemoteAddr::new(8))));
    }

    /// The memory of a process, read through its file from the start.
    fn from_file(pid: u32) -> DirectMemory {
        let memory = DirectMemory::new(Pid::new(pid));
        *memory.file.borrow_mut() = Some(memory.open().unwrap());
        memory
    }

    #[test]
    fn the_file_answers_as_the_call_does() {
        let own = [7u8; 64];
        let here = RemoteAddr::new(own.as_ptr() as u64);
        let memory = from_file(std::process::id());
        let (mut first, mut hole, mut last) = ([0u8; 64], [0u8; 8], [0u8; 64]);
        let filled = memory
            .read_batch(&mut [
                ReadRequest::new(here, &mut first),
                ReadRequest::new(here, &mut []),
                ReadRequest::new(RemoteAddr::new(8), &mut hole),
                ReadRequest::new(here, &mut last),
            ])
            .unwrap();
        assert_eq!((filled, first), (2, own));
        let nowhere = RemoteAddr::new(u64::MAX - 16);
        assert_eq!(memory.read(nowhere, &mut hole), Err(ReadError::Unmapped(nowhere)));
    }

    #[test]
    fn the_file_tells_exec_from_the_end() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "echo up; read line; exec cat"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut await_answer = || io::Read::read_exact(&mut stdout, &mut [0; 3]).unwrap();
        let process = crate::Process::new(Pid::new(child.id()));
        let start = || process.mappings().unwrap().first().unwrap().start;
        await_answer();
        let memory = from_file(child.id());
        let mut magic = [0u8; 4];
        memory.read(start(), &mut magic).unwrap();
        assert_eq!(&magic, b"\x7fELF");
        // What was opened is the memory of the shell; `cat` has its own.
        io::Write::write_all(&mut stdin, b"go\nup\n").unwrap();
        await_answer();
        magic = [0; 4];
        memory.read(start(), &mut magic).unwrap();
        assert_eq!(&magic, b"\x7fELF");
        let before = start();
        child.kill().unwrap();
        // Its stdout is closed when it exits; it stays a zombie until it is waited for.
        io::Read::read_to_end(&mut stdout, &mut Vec::new()).unwrap();
        assert_eq!(memory.read(before, &mut magic), Err(ReadError::ProcessEnded));
        child.wait().unwrap();
        assert_eq!(memory.read(before, &mut magic), Err(ReadError::ProcessEnded));
    }

    #[test]
    fn many_pieces_are_read_in_several_calls() {
        let own: Vec<u8> = (0..4000u32).map(|i| i as u8).collect();
        let memory = DirectMemory::new(Pid::new(std::process::id()));
        let here = RemoteAddr::new(own.as_ptr() as u64);
        let mut copies = vec![0u8; own.len()];
        let mut requests: Vec<_> = copies
            .chunks_mut(1)
            .enumerate()
            .map(|(i, b)| ReadRequest::new(here.offset(i as u64), b))
            .collect();
        assert_eq!(memory.read_batch(&mut requests), Ok(own.len()));
        assert_eq!(copies, own);
    }
}
