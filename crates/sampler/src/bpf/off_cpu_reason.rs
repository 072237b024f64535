//! On what a thread waited while it was off the CPU, from what the kernel said when it left.
//!
//! What a system call waits for in general is `os::Activity`'s; here is what needs more than its number: whose futex
//! it is, and what a file descriptor is open on.

use profiler_bpf::{BlockReason, DescriptorCalls, OpenFile};
use profiler_model::{RemoteAddr, ThreadState, WaitReason};
use profiler_os::{Activity, CopyEnd, Process};
use profiler_python::GilAddresses;

/// `TASK_STOPPED` and `TASK_TRACED` of the scheduler.
const STOPPED: u32 = 0x4 | 0x8;
/// `TASK_UNINTERRUPTIBLE`: nothing but what it waits for wakes it.
const UNINTERRUPTIBLE: u32 = 0x2;

/// The kinds of files (`st_mode`).
const KIND: u32 = 0o170_000;
const SOCKET: u32 = 0o140_000;
const PIPE: u32 = 0o010_000;

/// The file systems of files that are nothing but a name, and of pidfds from Linux 6.9 on (linux/magic.h).
const ANON_INODE_FS: u32 = 0x0904_1934;
const PID_FS: u32 = 0x5049_4446;

/// The system calls in which what is waited for depends on what a descriptor is open on.
pub fn descriptor_calls() -> DescriptorCalls {
    DescriptorCalls::of(|call| waits_for_file(Activity::Blocked { call: Some(call), argument: 0 }))
}

fn waits_for_file(activity: Activity) -> bool {
    activity.thread_state() == ThreadState::Waiting(WaitReason::File) && activity.descriptor().is_some()
}

/// The state of a thread that left its CPU for `cause` in this state of the scheduler.
pub fn state(cause: BlockReason, scheduler: u32, gils: &[GilAddresses]) -> ThreadState {
    let BlockReason::Waited { call, argument, file } = cause else {
        return ThreadState::Waiting(WaitReason::Cpu);
    };
    if scheduler & STOPPED != 0 {
        return ThreadState::Waiting(WaitReason::Stopped);
    }
    let is_uninterruptible = scheduler & UNINTERRUPTIBLE != 0;
    let Some(call) = call else {
        let reason = if is_uninterruptible { WaitReason::Page } else { WaitReason::Unknown };
        return ThreadState::Waiting(reason);
    };
    let activity = Activity::Blocked { call: Some(call), argument };
    of_call(activity, gils, || match activity.first_of_two() {
        // Nobody waits so for a socket or a pipe, but for a disk.
        Some(_) if is_uninterruptible => Opened::Plain(WaitReason::File),
        _ => file.map_or(Opened::Unknown, of_file),
    })
}

/// Whose off-CPU intervals they are: what it takes to say on what a thread waits.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The process.
    pub process: &'a Process,
    /// The GILs of its interpreters.
    pub gils: &'a [GilAddresses],
}

/// The state of a thread that waits in a system call, or in none, by what it looks like from outside.
pub fn of_sleeper(activity: Activity, owner: Owner<'_>) -> ThreadState {
    of_call(activity, owner.gils, || {
        let opened = activity.descriptor().and_then(|descriptor| owner.process.opened(descriptor));
        opened.map_or(Opened::Unknown, |opened| of_link(&opened))
    })
}

/// What a descriptor is open on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opened {
    /// Something for which reads and writes wait for this reason.
    Plain(WaitReason),
    /// The same, but a copy between it and something else may just as well wait for the latter.
    Pipe,
    Socket,
    /// It was closed, or that could not be seen.
    Unknown,
}

impl Opened {
    fn reason(self) -> WaitReason {
        match self {
            Opened::Plain(reason) => reason,
            Opened::Pipe => WaitReason::File,
            Opened::Socket => WaitReason::Socket,
            Opened::Unknown => WaitReason::Unknown,
        }
    }

    /// For what a copy waits of which this is the first end.
    fn reason_of_copy(self, end: CopyEnd) -> WaitReason {
        match (self, end) {
            (Opened::Plain(_), _) | (Opened::Socket, CopyEnd::Target) => self.reason(),
            _ => WaitReason::Unknown,
        }
    }
}

fn of_call(activity: Activity, gils: &[GilAddresses], opened: impl FnOnce() -> Opened) -> ThreadState {
    let is_gil = |futex: RemoteAddr| gils.iter().any(|gil| (gil.start..gil.end).contains(&futex));
    if activity.futex().is_some_and(is_gil) {
        return ThreadState::WaitingForGil;
    }
    if !waits_for_file(activity) {
        return activity.thread_state();
    }
    // To read from a socket is to wait for it, whichever call does it.
    ThreadState::Waiting(match activity.first_of_two() {
        Some(end) => opened().reason_of_copy(end),
        None => opened().reason(),
    })
}

/// What a descriptor is open on, by what the kernel said of it when the thread left its CPU.
fn of_file(file: OpenFile) -> Opened {
    let without_end = file.name.split(|byte| *byte == 0).next().unwrap_or_default();
    match (file.file_system, file.mode & KIND) {
        (_, SOCKET) => Opened::Socket,
        (_, PIPE) => Opened::Pipe,
        (PID_FS, _) => Opened::Plain(WaitReason::Child),
        (ANON_INODE_FS, _) => Opened::Plain(of_anonymous(without_end)),
        _ => Opened::Plain(WaitReason::File),
    }
}

/// The same by how its link in `/proc` reads.
fn of_link(link: &str) -> Opened {
    match (link.split_once(':'), link.strip_prefix("anon_inode:")) {
        (Some(("socket", _)), _) => Opened::Socket,
        (Some(("pipe", _)), _) => Opened::Pipe,
        (_, Some(name)) => Opened::Plain(of_anonymous(name.as_bytes())),
        _ => Opened::Plain(WaitReason::File),
    }
}

/// What a read or write of something waits for that is nothing but a name, by at least the first bytes of it that the
/// in-kernel program keeps.
fn of_anonymous(name: &[u8]) -> WaitReason {
    let begins_with = |kinds: &[&[u8; 8]]| kinds.iter().any(|kind| name.starts_with(*kind));
    if begins_with(&[b"[eventfd", b"[eventpo"]) || name == b"inotify" {
        WaitReason::Poll
    } else if begins_with(&[b"[timerfd"]) {
        WaitReason::Sleep
    } else if name == b"[pidfd]" {
        WaitReason::Child
    } else {
        WaitReason::File
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: u64 = 0;
    const SENDFILE: u64 = 40;
    const FUTEX: u64 = 202;
    const SPLICE: u64 = 275;

    /// The state of who waits in a call, in this state of the scheduler.
    fn told(call: Option<u64>, argument: u64, scheduler: u32, file: Option<OpenFile>) -> ThreadState {
        let gil = GilAddresses {
            last_holder: RemoteAddr::new(0x1000),
            locked: RemoteAddr::new(0x1008),
            switch_number: None,
            start: RemoteAddr::new(0x1000),
            end: RemoteAddr::new(0x1100),
            code_count: None,
        };
        state(BlockReason::Waited { call, argument, file }, scheduler, &[gil])
    }

    fn file(mode: u32, file_system: u32, name: &[u8]) -> Option<OpenFile> {
        let mut kept = [0; 8];
        let length = name.len().min(8);
        kept[..length].copy_from_slice(&name[..length]);
        Some(OpenFile { name: kept, file_system, mode })
    }

    fn waiting(reason: WaitReason) -> ThreadState {
        ThreadState::Waiting(reason)
    }

    #[test]
    fn the_gil_is_told_from_other_locks() {
        assert_eq!(told(Some(FUTEX), 0x1010, 1, None), ThreadState::WaitingForGil);
        assert_eq!(told(Some(FUTEX), 0x1100, 1, None), waiting(WaitReason::Lock));
    }

    #[test]
    fn the_scheduler_says_more_than_the_call() {
        assert_eq!(told(Some(FUTEX), 0x1010, 0x104, None), waiting(WaitReason::Stopped));
        assert_eq!(told(None, 0, 2, None), waiting(WaitReason::Page));
        assert_eq!(told(None, 0, 1, None), waiting(WaitReason::Unknown));
    }

    #[test]
    fn a_read_waits_for_what_the_descriptor_was_open_on() {
        let anonymous = |name: &str| file(0o600, ANON_INODE_FS, name.as_bytes());
        let kinds = [
            (file(0o140_777, 0x534f_434b, b""), WaitReason::Socket),
            (file(0o010_600, 0x5049_5045, b""), WaitReason::File),
            (file(0o100_644, 0xef53, b""), WaitReason::File),
            (file(0o020_620, 0x1cd1, b""), WaitReason::File),
            (anonymous("[eventfd]"), WaitReason::Poll),
            (anonymous("[eventpoll]"), WaitReason::Poll),
            (anonymous("inotify"), WaitReason::Poll),
            (anonymous("[timerfd]"), WaitReason::Sleep),
            (anonymous("[pidfd]"), WaitReason::Child),
            (anonymous("[signalfd]"), WaitReason::File),
            // Newer kernels call it a file as others are.
            (file(0o100_600, ANON_INODE_FS, b"[timerfd]"), WaitReason::Sleep),
            (file(0o100_700, PID_FS, b""), WaitReason::Child),
            // What is called so and lies elsewhere is none.
            (file(0o100_600, 0xef53, b"[timerfd]"), WaitReason::File),
            (None, WaitReason::Unknown),
        ];
        for (file, reason) in kinds {
            assert_eq!(told(Some(READ), 5, 1, file), waiting(reason), "{file:?}");
        }
    }

    #[test]
    fn a_copy_is_only_named_by_its_first_end_if_the_other_is_of_no_account() {
        let (socket, pipe) = (file(0o140_777, 0x534f_434b, b""), file(0o010_600, 0x5049_5045, b""));
        let disk = file(0o100_644, 0xef53, b"");
        for (call, file, reason) in [
            (SPLICE, socket, WaitReason::Unknown),
            (SPLICE, pipe, WaitReason::Unknown),
            (SPLICE, disk, WaitReason::File),
            (SENDFILE, socket, WaitReason::Socket),
            (SENDFILE, pipe, WaitReason::Unknown),
            (SENDFILE, disk, WaitReason::File),
        ] {
            assert_eq!(told(Some(call), 5, 1, file), waiting(reason), "{call} {file:?}");
            assert_eq!(told(Some(call), 5, 2, file), waiting(WaitReason::File), "{call} {file:?}");
        }
    }

    #[test]
    fn links_say_what_is_waited_for() {
        let reason = |link| of_link(link).reason();
        assert_eq!(reason("socket:[4711]"), WaitReason::Socket);
        assert_eq!(reason("pipe:[4711]"), WaitReason::File);
        assert_eq!(reason("anon_inode:[eventfd]"), WaitReason::Poll);
        assert_eq!(reason("anon_inode:[timerfd]"), WaitReason::Sleep);
        assert_eq!(reason("anon_inode:[pidfd]"), WaitReason::Child);
        assert_eq!(reason("anon_inode:inotify"), WaitReason::Poll);
        assert_eq!(reason("/srv/socket:"), WaitReason::File);
    }

    #[test]
    fn who_was_put_aside_waits_for_a_cpu() {
        assert_eq!(state(BlockReason::Preempted, 0, &[]), waiting(WaitReason::Cpu));
    }

    #[test]
    fn calls_without_a_descriptor_are_not_looked_into() {
        let calls = [READ, SENDFILE, FUTEX, SPLICE].map(|call| {
            DescriptorCalls::of(|one| {
                one == call && waits_for_file(Activity::Blocked { call: Some(one), argument: 0 })
            }) != DescriptorCalls::default()
        });
        assert_eq!(calls, [true, true, false, true]);
    }
}
