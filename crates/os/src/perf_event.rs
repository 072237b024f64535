//! Opening a perf event on one thread. What is counted, and what it means, is said in the modules that do.

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{FromRawFd, OwnedFd};

use profiler_model::Tid;

// <linux/perf_event.h>.
const PERF_TYPE_SOFTWARE: u32 = 1;
/// Counts nothing.
pub(crate) const PERF_COUNT_SW_DUMMY: u64 = 9;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
/// Ordinary users may count only outside of the kernel; what is asked here is the same with these.
const EXCLUDE_KERNEL_AND_HYPERVISOR: u64 = 1 << 5 | 1 << 6;

/// `struct perf_event_attr`, up to the clock's number (Linux 4.1).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    config1: u64,
    config2: u64,
    branch_sample_type: u64,
    sample_regs_user: u64,
    sample_stack_user: u32,
    clock: i32,
}

/// What is asked of a software event.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    /// Which event.
    pub(crate) config: u64,
    /// What each record says.
    pub(crate) sample_type: u64,
    /// The bits that switch things on.
    pub(crate) flags: u64,
    /// The clock of the records, where a bit says so.
    pub(crate) clock: i32,
}

/// Opens a software event on thread `tid`, wherever it runs and however long the kernel takes.
///
/// # Errors
/// When the thread is gone, or the operating system refuses (`kernel.perf_event_paranoid` above 2, a system
/// call filter).
pub(crate) fn open(tid: Tid, wanted: Wanted) -> io::Result<File> {
    let attributes = Attributes {
        kind: PERF_TYPE_SOFTWARE,
        size: size_of::<Attributes>() as u32,
        config: wanted.config,
        sample_type: wanted.sample_type,
        flags: wanted.flags | EXCLUDE_KERNEL_AND_HYPERVISOR,
        clock: wanted.clock,
        ..Attributes::default()
    };
    let (any_cpu, no_group) = (-1, -1);
    // SAFETY: `attributes` has the layout that the call reads, says its own size and outlives the call; the
    // other arguments are numbers.
    let raw = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            tid.as_u32() as libc::pid_t,
            any_cpu,
            no_group,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just opened this descriptor, and nobody else knows it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(raw as i32) }))
}
