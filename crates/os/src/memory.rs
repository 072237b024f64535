//! Reading a live process's memory: `process_vm_readv`, or `/proc/PID/mem` where the kernel has no such call.
//!
//! Neither stops the process. Not for core files or snapshots: those implement `ReadMemory` elsewhere.

use std::cell::OnceCell;
use std::fs::File;
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use profiler_memory::{ReadError, ReadMemory, ReadRequest};
use profiler_model::{Pid, RemoteAddr};

/// The kernel takes at most this many pieces a call (`UIO_MAXIOV`).
const MAX_PIECES: usize = 1024;

/// The memory of a running process.
#[derive(Debug)]
pub struct ProcessMemory {
    pid: Pid,
    /// Opened when `process_vm_readv` turns out to be missing.
    file: OnceCell<Option<File>>,
}

impl ProcessMemory {
    /// The memory of the process `pid`. Nothing is asked of the system yet: the first read tells whether
    /// it may be read.
    pub fn new(pid: Pid) -> Self {
        ProcessMemory { pid, file: OnceCell::new() }
    }

    /// One call of `process_vm_readv` for at most [`MAX_PIECES`] requests; how many were filled completely.
    fn read_pieces(&self, requests: &mut [ReadRequest<'_>]) -> Result<usize, ReadError> {
        let remote: Vec<RemoteIoVec> = requests
            .iter()
            .map(|r| RemoteIoVec { base: r.at.as_u64() as usize, len: r.into.len() })
            .collect();
        let mut local: Vec<IoSliceMut<'_>> = requests.iter_mut().map(|r| IoSliceMut::new(r.into)).collect();
        let pid = nix::unistd::Pid::from_raw(self.pid.as_u32() as i32);
        match process_vm_readv(pid, &mut local, &remote) {
            Ok(mut bytes) => Ok(remote
                .iter()
                .take_while(|piece| {
                    let whole = bytes >= piece.len;
                    bytes = bytes.saturating_sub(piece.len);
                    whole
                })
                .count()),
            Err(Errno::EFAULT) => Ok(0),
            Err(Errno::ESRCH) => Err(ReadError::ProcessEnded),
            Err(Errno::ENOSYS) => self.read_pieces_from_file(requests),
            Err(_) => Err(ReadError::NotPermitted),
        }
    }

    fn read_pieces_from_file(&self, requests: &mut [ReadRequest<'_>]) -> Result<usize, ReadError> {
        let file = self.file.get_or_init(|| File::open(format!("/proc/{}/mem", self.pid)).ok());
        let file = file.as_ref().ok_or(ReadError::NotPermitted)?;
        for (filled, request) in requests.iter_mut().enumerate() {
            if file.read_exact_at(request.into, request.at.as_u64()).is_err() {
                return Ok(filled);
            }
        }
        Ok(requests.len())
    }
}

impl ReadMemory for ProcessMemory {
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
        let memory = ProcessMemory::new(Pid::new(std::process::id()));
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

    #[test]
    fn many_pieces_are_read_in_several_calls() {
        let own: Vec<u8> = (0..4000u32).map(|i| i as u8).collect();
        let memory = ProcessMemory::new(Pid::new(std::process::id()));
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
