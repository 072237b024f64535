//! How many files this process may hold open: the samplers keep some for each thread of their targets.

use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Files that are left for everything else than the threads' files.
const RESERVED: usize = 256;

/// How many of the threads' files are open.
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// How many may be: what the usual limit of 1024 files leaves, until more were asked for.
static MAX_KEPT: AtomicUsize = AtomicUsize::new(1024 - RESERVED);

/// How many files there is room for at once: some for each of hundreds of threads, in 64 KiB.
const ROOM_FOR_FILES: i32 = 8191;

/// Asks for as many open files as may be had without privileges. Programs that are started later inherit it:
/// commands are to be launched before.
pub fn want_many_files() {
    let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if setrlimit(Resource::RLIMIT_NOFILE, most, most).is_ok() {
        MAX_KEPT
            .store(usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(RESERVED), Ordering::Relaxed);
    }
    grow_table();
}

/// Makes room for many open files; how many there may be stays as it is, as commands inherit that. To be called while
/// this process has one thread.
pub(crate) fn make_room_for_files() {
    let Ok((before, most)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if setrlimit(Resource::RLIMIT_NOFILE, most, most).is_ok() {
        grow_table();
        // Lowering it takes no right.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, before, most);
    }
}

/// Where a process has threads, the kernel lets whoever opens the file that its table has no room for wait until all
/// CPUs have come by: for seconds on a machine with hundreds of threads at work. A table does not shrink.
fn grow_table() {
    let _ = nix::fcntl::fcntl(std::io::stderr(), nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(ROOM_FOR_FILES))
        .map(nix::unistd::close);
}

/// The right to keep one file open.
#[derive(Debug)]
pub(crate) struct KeepingRight(());

impl KeepingRight {
    /// A right, unless too many are given already.
    pub(crate) fn take() -> Option<Self> {
        let before = KEPT.fetch_add(1, Ordering::Relaxed);
        let right = KeepingRight(());
        (before < MAX_KEPT.load(Ordering::Relaxed)).then_some(right)
    }
}

impl Drop for KeepingRight {
    fn drop(&mut self) {
        KEPT.fetch_sub(1, Ordering::Relaxed);
    }
}
