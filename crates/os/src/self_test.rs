//! What sampling needs, tried out on a child of our own: whether its memory can be read, and how, and whether
//! it can be stopped. Rules can be read wrongly and security modules have rules of their own; this cannot err.

use std::io;

use nix::sys::signal::{Signal, kill};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid as UnixPid, fork, pause};
use profiler_memory::ReadMemory;
use profiler_model::{Pid, RemoteAddr, Tid};

use crate::ProcessMemory;
use crate::ptrace::{StopError, Tracer};

/// What the child has at the place where we have it.
static MARK: [u8; 16] = *b"profiler:a child";

/// After so long the child ends of itself. It is needed for some milliseconds.
const LONGEST_SECONDS: u32 = 10;

/// What came of the self-test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelfTest {
    /// Whether `process_vm_readv` reads the child's memory.
    pub reads_by_call: bool,
    /// Whether its memory can be read at all: by the call, or else by `/proc/PID/mem`.
    pub reads: bool,
    /// Whether it can be stopped, or why not.
    pub stops: Result<(), StopError>,
}

/// Tries it out. Call it while this process has one thread only.
///
/// # Errors
/// When no child can be started.
pub fn rehearse() -> io::Result<SelfTest> {
    // SAFETY: the child calls nothing but `prctl`, `alarm` and `pause`, which are safe between `fork` and `exec`
    // whatever other threads held when it was made.
    let child = match unsafe { fork() }? {
        ForkResult::Child => wait_for_death(),
        ForkResult::Parent { child } => child,
    };
    let self_test = try_on(child);
    // It can only be gone already if somebody else killed it.
    let _ = kill(child, Signal::SIGKILL);
    let _ = waitpid(child, None);
    Ok(self_test)
}

fn wait_for_death() -> ! {
    // SAFETY: both take numbers and touch no memory. The child must not outlive us, not even where it was
    // made just as we ended.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::alarm(LONGEST_SECONDS);
    }
    loop {
        pause();
    }
}

fn try_on(child: UnixPid) -> SelfTest {
    let pid = Pid::new(child.as_raw() as u32);
    let at = MARK.as_ptr() as usize;
    let mut copy = [0; MARK.len()];
    let remote = [RemoteIoVec { base: at, len: copy.len() }];
    let by_call = process_vm_readv(child, &mut [io::IoSliceMut::new(&mut copy)], &remote);
    let reads_by_call = by_call == Ok(MARK.len()) && copy == MARK;
    let mut copy = [0; MARK.len()];
    let reads = ProcessMemory::new(pid).read(RemoteAddr::new(at as u64), &mut copy) == Ok(()) && copy == MARK;
    let stops = Tracer::new().stop(Tid::new(pid.as_u32())).map(drop);
    SelfTest { reads_by_call, reads, stops }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_of_our_own_can_be_read_and_stopped() {
        let self_test = rehearse().unwrap();
        assert_eq!(self_test, SelfTest { reads_by_call: true, reads: true, stops: Ok(()) });
    }
}
