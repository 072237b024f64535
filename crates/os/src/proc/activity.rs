//! What a thread is doing, by its `/proc/PID/task/TID/syscall`: running, or blocked in a system call, and for what it waits
//! there. This is read for every sample, so it is parsed here, not by the crate `procfs`.

use profiler_model::{RemoteAddr, ThreadState, WaitReason};

/// What a thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// On a CPU or ready for one.
    Running,
    /// Asleep in the system call of this number with this first argument; the number is `None` if it sleeps in no
    /// system call (a page fault).
    Blocked {
        /// The system call.
        call: Option<u64>,
        /// Its first argument.
        argument: u64,
    },
    /// Under a stop signal.
    Stopped,
}

/// One of the two file descriptors of a call that copies between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyEnd {
    /// The one that `splice` reads. If it is a pipe, the other one can be anything.
    Source,
    /// The one that `sendfile` writes, which reads no sockets unless this is a pipe.
    Target,
}

/// A line of a `syscall` file.
pub(super) fn parse_activity(text: &[u8]) -> Activity {
    let text = String::from_utf8_lossy(text);
    let mut words = text.split_ascii_whitespace();
    match words.next() {
        None | Some("running") => Activity::Running,
        Some(number) => Activity::Blocked {
            call: number.parse().ok(),
            argument: words
                .next()
                .and_then(|word| word.strip_prefix("0x"))
                .and_then(|word| u64::from_str_radix(word, 16).ok())
                .unwrap_or(0),
        },
    }
}

impl Activity {
    /// The address of the futex it sleeps on, if it does.
    pub fn futex(self) -> Option<RemoteAddr> {
        match self {
            Activity::Blocked { call: Some(call), argument } if is_futex(call) => {
                Some(RemoteAddr::new(argument))
            }
            _ => None,
        }
    }

    /// The thread state that follows from it, apart from the GIL, which only the runtime's layout tells.
    pub fn thread_state(self) -> ThreadState {
        match self {
            Activity::Running => ThreadState::Running,
            Activity::Stopped => ThreadState::Waiting(WaitReason::Stopped),
            Activity::Blocked { call: None, .. } => ThreadState::Waiting(WaitReason::Disk),
            // An old way to sleep for less than a second, which CPython has up to 3.10.
            Activity::Blocked { call: Some(call), argument: 0 } if is_select(call) => {
                ThreadState::Waiting(WaitReason::Sleep)
            }
            Activity::Blocked { call: Some(call), .. } => ThreadState::Waiting(wait_reason(call)),
        }
    }

    /// The file descriptor that was given to the system call in which the thread sleeps, if it takes one.
    pub fn descriptor(self) -> Option<u32> {
        let Activity::Blocked { call: Some(call), argument } = self else { return None };
        let takes_one = match wait_reason(call) {
            WaitReason::Socket => true,
            // Its first argument is the folder that a path is relative to.
            WaitReason::File => call != libc::SYS_openat as u64,
            _ => false,
        };
        takes_one.then(|| u32::try_from(argument).ok()).flatten()
    }

    /// What the first file descriptor is, of a call that copies between two of which one can be a socket or a pipe.
    pub fn first_of_two(self) -> Option<CopyEnd> {
        let Activity::Blocked { call: Some(call), .. } = self else { return None };
        match call as i64 {
            libc::SYS_splice => Some(CopyEnd::Source),
            libc::SYS_sendfile => Some(CopyEnd::Target),
            _ => None,
        }
    }

    /// The child for which the thread waits, if it waits for a certain one.
    pub fn child(self) -> Option<u32> {
        match self {
            // Not positive: any child, or any of a group.
            Activity::Blocked { call: Some(call), argument } if call == libc::SYS_wait4 as u64 => {
                u32::try_from(argument as i32).ok().filter(|pid| *pid > 0)
            }
            _ => None,
        }
    }
}

fn is_futex(call: u64) -> bool {
    // 449: futex_waitv, 454-456: futex_wake, futex_wait and futex_requeue, on every architecture.
    call == libc::SYS_futex as u64 || matches!(call, 449 | 455)
}

/// Whether its first argument is the number of file descriptors that it waits for.
fn is_select(call: u64) -> bool {
    #[cfg(target_arch = "x86_64")]
    if call == libc::SYS_select as u64 {
        return true;
    }
    call == libc::SYS_pselect6 as u64
}

/// What a sleeping system call waits for.
fn wait_reason(call: u64) -> WaitReason {
    match call as i64 {
        _ if is_futex(call) => WaitReason::Lock,
        libc::SYS_nanosleep | libc::SYS_clock_nanosleep => WaitReason::Sleep,
        libc::SYS_accept
        | libc::SYS_accept4
        | libc::SYS_connect
        | libc::SYS_recvfrom
        | libc::SYS_recvmsg
        | libc::SYS_recvmmsg
        | libc::SYS_sendto
        | libc::SYS_sendmsg
        | libc::SYS_sendmmsg => WaitReason::Socket,
        libc::SYS_ppoll | libc::SYS_pselect6 | libc::SYS_epoll_pwait => WaitReason::Poll,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll | libc::SYS_select | libc::SYS_epoll_wait => WaitReason::Poll,
        libc::SYS_read
        | libc::SYS_readv
        | libc::SYS_pread64
        | libc::SYS_preadv
        | libc::SYS_write
        | libc::SYS_writev
        | libc::SYS_preadv2
        | libc::SYS_pwrite64
        | libc::SYS_pwritev
        | libc::SYS_pwritev2
        | libc::SYS_copy_file_range
        | libc::SYS_fallocate
        | libc::SYS_ftruncate
        | libc::SYS_getdents64
        | libc::SYS_fsync
        | libc::SYS_fdatasync
        | libc::SYS_sync_file_range
        | libc::SYS_syncfs
        | libc::SYS_openat
        | libc::SYS_flock
        | libc::SYS_fcntl
        | libc::SYS_splice
        | libc::SYS_sendfile => WaitReason::File,
        libc::SYS_wait4 | libc::SYS_waitid => WaitReason::Child,
        // sigtimedwait and friends sleep until a signal or a time: what `signal.pause` does.
        libc::SYS_rt_sigtimedwait | libc::SYS_rt_sigsuspend => WaitReason::Sleep,
        _ => WaitReason::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_name_descriptor_or_child() {
        let blocked = |call: i64, argument| Activity::Blocked { call: Some(call as u64), argument };
        assert_eq!(blocked(libc::SYS_read, 5).descriptor(), Some(5));
        assert_eq!(blocked(libc::SYS_recvfrom, 7).descriptor(), Some(7));
        assert_eq!(blocked(libc::SYS_openat, 5).descriptor(), None);
        assert_eq!(blocked(libc::SYS_futex, 5).descriptor(), None);
        assert_eq!(blocked(libc::SYS_read, u64::MAX).descriptor(), None);
        assert_eq!(blocked(libc::SYS_splice, 5).first_of_two(), Some(CopyEnd::Source));
        assert_eq!(blocked(libc::SYS_sendfile, 5).first_of_two(), Some(CopyEnd::Target));
        assert_eq!(blocked(libc::SYS_read, 5).first_of_two(), None);
        assert_eq!(blocked(libc::SYS_wait4, 4711).child(), Some(4711));
        assert_eq!(blocked(libc::SYS_wait4, u64::from(u32::MAX)).child(), None);
        assert_eq!(blocked(libc::SYS_read, 4711).child(), None);
        assert_eq!((Activity::Running.descriptor(), Activity::Running.child()), (None, None));
    }

    #[test]
    fn select_without_descriptors_is_sleep() {
        let select = |argument| Activity::Blocked { call: Some(libc::SYS_pselect6 as u64), argument };
        assert_eq!(select(0).thread_state(), ThreadState::Waiting(WaitReason::Sleep));
        assert_eq!(select(1).thread_state(), ThreadState::Waiting(WaitReason::Poll));
    }

    #[test]
    fn system_call_line_gives_state() {
        assert_eq!(parse_activity(b"running\n"), Activity::Running);
        let futex = format!("{} 0x7f00 0x80 0x0 0x0 0x0 0x0 0x7ffd 0x7f1c\n", libc::SYS_futex);
        assert_eq!(parse_activity(futex.as_bytes()).futex(), Some(RemoteAddr::new(0x7f00)));
        assert_eq!(
            parse_activity(b"-1 0x7ffc 0x7f00\n").thread_state(),
            ThreadState::Waiting(WaitReason::Disk)
        );
    }
}
