//! On what a thread waited while it was off the CPU, from what the kernel said when it left.
//!
//! What a system call waits for in general is `os::Activity`'s; here is what needs more than its number: whose futex
//! it is, and what a file descriptor is open on.

use profiler_bpf::Cause;
use profiler_model::{RemoteAddr, ThreadState, WaitReason};
use profiler_os::Activity;

use crate::absences::Owner;

/// `TASK_STOPPED` and `TASK_TRACED` of the scheduler.
const STOPPED: u32 = 0x4 | 0x8;
/// `TASK_UNINTERRUPTIBLE`: nothing but what it waits for wakes it.
const UNINTERRUPTIBLE: u32 = 0x2;

/// The state of a thread that left its CPU for `cause` in this state of the scheduler.
pub fn state(cause: Cause, scheduler: u32, owner: Owner<'_>) -> ThreadState {
    let Cause::Waited { call, argument } = cause else { return ThreadState::Waiting(WaitReason::Cpu) };
    if scheduler & STOPPED != 0 {
        return ThreadState::Waiting(WaitReason::Stopped);
    }
    let Some(call) = call else {
        let reason = if scheduler & UNINTERRUPTIBLE != 0 { WaitReason::Page } else { WaitReason::Unknown };
        return ThreadState::Waiting(reason);
    };
    of_call(Activity::Blocked { call: Some(call), argument }, owner)
}

/// The state of a thread that waits in a system call, or in none.
pub fn of_call(activity: Activity, owner: Owner<'_>) -> ThreadState {
    let is_gil = |futex: RemoteAddr| owner.gils.iter().any(|gil| (gil.start..gil.end).contains(&futex));
    if activity.futex().is_some_and(is_gil) {
        return ThreadState::WaitingForGil;
    }
    match (activity.thread_state(), activity.descriptor()) {
        // To read from a socket is to wait for it, whichever call does it.
        (ThreadState::Waiting(WaitReason::File), Some(descriptor)) => {
            let opened = owner.process.opened(descriptor).unwrap_or_default();
            ThreadState::Waiting(of_descriptor(&opened))
        }
        (state, _) => state,
    }
}

/// What a read or write of a descriptor waits for, by what it is open on.
fn of_descriptor(opened: &str) -> WaitReason {
    match opened {
        socket if socket.starts_with("socket:") => WaitReason::Socket,
        "anon_inode:[eventfd]" | "anon_inode:[eventpoll]" | "anon_inode:inotify" => WaitReason::Poll,
        "anon_inode:[timerfd]" => WaitReason::Sleep,
        "anon_inode:[pidfd]" => WaitReason::Child,
        _ => WaitReason::File,
    }
}

#[cfg(test)]
mod tests {
    use profiler_model::Pid;
    use profiler_os::Process;
    use profiler_python::GilAddresses;

    use super::*;

    fn told(call: Option<u64>, argument: u64, scheduler: u32) -> ThreadState {
        let process = Process::new(Pid::new(std::process::id()));
        let gil = GilAddresses {
            last_holder: RemoteAddr::new(0x1000),
            locked: RemoteAddr::new(0x1008),
            switch_number: None,
            start: RemoteAddr::new(0x1000),
            end: RemoteAddr::new(0x1100),
            code_count: None,
        };
        state(Cause::Waited { call, argument }, scheduler, Owner { process: &process, gils: &[gil] })
    }

    const FUTEX: Option<u64> = Some(202);

    #[test]
    fn the_gil_is_told_from_other_locks() {
        assert_eq!(told(FUTEX, 0x1010, 1), ThreadState::WaitingForGil);
        assert_eq!(told(FUTEX, 0x1100, 1), ThreadState::Waiting(WaitReason::Lock));
    }

    #[test]
    fn the_scheduler_says_more_than_the_call() {
        assert_eq!(told(FUTEX, 0x1010, 0x104), ThreadState::Waiting(WaitReason::Stopped));
        assert_eq!(told(None, 0, 2), ThreadState::Waiting(WaitReason::Page));
        assert_eq!(told(None, 0, 1), ThreadState::Waiting(WaitReason::Unknown));
    }

    #[test]
    fn descriptors_say_what_is_waited_for() {
        assert_eq!(of_descriptor("socket:[4711]"), WaitReason::Socket);
        assert_eq!(of_descriptor("pipe:[4711]"), WaitReason::File);
        assert_eq!(of_descriptor("anon_inode:[eventfd]"), WaitReason::Poll);
        assert_eq!(of_descriptor("/srv/socket:"), WaitReason::File);
        assert_eq!(of_descriptor(""), WaitReason::File);
    }

    #[test]
    fn who_was_put_aside_waits_for_a_cpu() {
        let process = Process::new(Pid::new(std::process::id()));
        assert_eq!(
            state(Cause::Preempted, 0, Owner { process: &process, gils: &[] }),
            ThreadState::Waiting(WaitReason::Cpu)
        );
    }
}
