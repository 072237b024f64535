//! The memory of a live process, read without ever waiting long for it.
//!
//! Pages in memory are read by the calling thread. A page that is not may take long to come, or never come: a worker
//! reads it, and the caller waits only so long. A process whose memory does not answer in time is not read any more.
//!
//! Not for core files or snapshots: those implement `ReadMemory` elsewhere.

use std::cell::{Cell, RefCell};

use profiler_memory::{ReadError, ReadMemory, ReadRequest};
use profiler_model::{Nanos, Pid, RemoteAddr, Timestamp};

use crate::clock;
use crate::direct_memory::DirectMemory;
use crate::patience::Pending;
use crate::ptrace;
use crate::residency::Residency;

/// Memory that has not answered by then does not answer. A page comes from a slow disk within some tens of milliseconds.
const MAX_WAIT: Nanos = Nanos::from_nanos(500_000_000);

/// While a thread is stopped, a page is waited for only so long at a time; the sample is lost.
const MAX_WAIT_WHILE_STOPPED: Nanos = Nanos::from_nanos(2_000_000);

/// The memory of a running process.
#[derive(Debug)]
pub struct ProcessMemory {
    pid: Pid,
    direct: DirectMemory,
    residency: RefCell<Residency>,
    /// What was given up while a thread was stopped, and may still come.
    late: RefCell<Option<LateRead>>,
    is_silent: Cell<bool>,
}

/// A read by a worker.
#[derive(Debug)]
struct LateRead {
    since: Timestamp,
    answer: Pending<Result<Vec<u8>, ReadError>>,
}

impl ProcessMemory {
    /// The memory of the process `pid`. Nothing is asked of the system yet: the first read tells whether
    /// it may be read.
    pub fn new(pid: Pid) -> Self {
        ProcessMemory {
            pid,
            direct: DirectMemory::new(pid),
            residency: RefCell::new(Residency::new(pid)),
            late: RefCell::default(),
            is_silent: Cell::new(false),
        }
    }

    /// Reads what may not be in memory, by a worker. `false` if it cannot be read, or not while a thread is stopped.
    fn read_patiently(&self, request: &mut ReadRequest<'_>) -> Result<bool, ReadError> {
        if let Some(late) = self.late.take()
            && self.wait_for(late)?.is_none()
        {
            return Ok(false);
        }
        let (pid, at, length) = (self.pid, request.at, request.into.len());
        let read = move || {
            let mut bytes = vec![0; length];
            DirectMemory::new(pid).read(at, &mut bytes).map(|()| bytes)
        };
        let Ok(answer) = Pending::begin(read) else { return Err(self.fall_silent()) };
        match self.wait_for(LateRead { since: clock::now(), answer })? {
            Some(Ok(bytes)) => {
                request.into.copy_from_slice(&bytes);
                Ok(true)
            }
            Some(Err(ReadError::Unmapped(_))) | None => Ok(false),
            Some(Err(error)) => Err(error),
        }
    }

    /// Waits for a worker; `None` if it is still at it but has time left.
    fn wait_for(&self, late: LateRead) -> Result<Option<Result<Vec<u8>, ReadError>>, ReadError> {
        let left = (late.since + MAX_WAIT).since(clock::now());
        let longest = if ptrace::is_holding() { MAX_WAIT_WHILE_STOPPED } else { MAX_WAIT };
        match late.answer.wait(left.min(longest)) {
            Some(answer) => Ok(Some(answer)),
            None if left <= longest => Err(self.fall_silent()),
            None => {
                *self.late.borrow_mut() = Some(late);
                Ok(None)
            }
        }
    }

    fn fall_silent(&self) -> ReadError {
        self.is_silent.set(true);
        ReadError::NoAnswer
    }
}

impl ReadMemory for ProcessMemory {
    fn read(&self, at: RemoteAddr, into: &mut [u8]) -> Result<(), ReadError> {
        match self.read_batch(&mut [ReadRequest::new(at, into)])? {
            1 => Ok(()),
            _ => Err(ReadError::Unmapped(at)),
        }
    }

    fn read_batch(&self, requests: &mut [ReadRequest<'_>]) -> Result<usize, ReadError> {
        let mut done = 0;
        while done < requests.len() {
            if self.is_silent.get() {
                return Err(ReadError::NoAnswer);
            }
            let resident = self.residency.borrow_mut().leading(&requests[done..]);
            if resident > 0 {
                let read = self.direct.read_batch(&mut requests[done..done + resident])?;
                done += read;
                if read < resident {
                    break;
                }
            } else if self.read_patiently(&mut requests[done])? {
                done += 1;
            } else {
                break;
            }
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use memmap2::{MmapMut, MmapOptions};

    use super::*;

    const PAGE: usize = 4096;

    /// Two pages of this process: the first one is there, the second one never comes.
    fn page_that_never_comes() -> MmapMut {
        let mut map = MmapOptions::new().len(2 * PAGE).map_anon().unwrap();
        map[0] = 7;
        let start = map.as_ptr() as u64;
        // SAFETY: the call takes a flag and returns a descriptor.
        let handler = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) } as i32;
        assert!(handler >= 0, "userfaultfd: {}", std::io::Error::last_os_error());
        // The structures of `UFFDIO_API` and `UFFDIO_REGISTER`: the version, and a range with the mode "missing".
        let mut api: [u64; 3] = [0xaa, 0, 0];
        let mut range: [u64; 4] = [start + PAGE as u64, PAGE as u64, 1, 0];
        // SAFETY: the structure is of the size that the request names, and outlives the call.
        let agreed = unsafe { libc::ioctl(handler, 0xc018_aa3f, api.as_mut_ptr()) };
        // SAFETY: as above; nothing of this process touches the page that is registered.
        let registered = unsafe { libc::ioctl(handler, 0xc020_aa00, range.as_mut_ptr()) };
        assert_eq!((agreed, registered), (0, 0));
        // The descriptor stays open: closed, it would give the page up.
        map
    }

    #[test]
    fn page_that_never_comes_silences_the_process_in_time() {
        let map = page_that_never_comes();
        let memory = ProcessMemory::new(Pid::new(std::process::id()));
        let start = RemoteAddr::new(map.as_ptr() as u64);
        let (mut there, mut never) = ([0; 1], [0; 8]);
        let began = clock::now();
        let read = memory.read_batch(&mut [
            ReadRequest::new(start, &mut there),
            ReadRequest::new(start.offset(PAGE as u64), &mut never),
        ]);
        assert_eq!((read, there), (Err(ReadError::NoAnswer), [7]));
        assert!(clock::now().since(began) >= MAX_WAIT);
        // From then on nothing is read and nothing is waited for.
        assert_eq!(memory.read(start, &mut there), Err(ReadError::NoAnswer));
        // What comes from another process is not concerned, nor is another reader of the same.
        let another = ProcessMemory::new(Pid::new(std::process::id()));
        assert_eq!(another.read(start, &mut there), Ok(()));
        // The worker is inside the kernel with that page for as long as this process lives.
        std::mem::forget(map);
    }

    #[test]
    fn pages_that_are_not_in_memory_are_read_all_the_same() {
        let map = MmapOptions::new().len(100 * PAGE).map_anon().unwrap();
        let memory = ProcessMemory::new(Pid::new(std::process::id()));
        let mut bytes = vec![1; 3 * PAGE];
        let middle = RemoteAddr::new(map.as_ptr() as u64 + 50 * PAGE as u64);
        assert_eq!(memory.read(middle, &mut bytes), Ok(()));
        assert!(bytes.iter().all(|byte| *byte == 0));
        let nowhere = RemoteAddr::new(8);
        assert_eq!(memory.read(nowhere, &mut bytes), Err(ReadError::Unmapped(nowhere)));
    }
}
