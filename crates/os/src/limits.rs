//! How many files this process may hold open: the samplers keep some for each thread of their targets.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Files that are left for everything else than the threads' files.
const RESERVED: usize = 256;

/// How many of the threads' files are open.
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// How many may be: what the limit leaves. It is looked at when the first is to be kept, or more are asked for.
static MAX_KEPT: AtomicUsize = AtomicUsize::new(NOT_LOOKED_AT);

/// No limit is that.
const NOT_LOOKED_AT: usize = usize::MAX;

/// How many files there is room for at once: some for each of hundreds of threads, in 64 KiB.
const ROOM_FOR_FILES: i32 = 8191;

/// How many this process could have open when it was started, and how many at most: what its commands are to have.
static BEFORE: OnceLock<(u64, u64)> = OnceLock::new();

/// Asks for as many open files as may be had without privileges. Commands that are launched later do not inherit it.
pub fn want_many_files() {
    let Ok((before, most)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    BEFORE.get_or_init(|| (before, most));
    if setrlimit(Resource::RLIMIT_NOFILE, most, most).is_ok() {
        MAX_KEPT.store(left_of(most), Ordering::Relaxed);
    }
    grow_table();
}

/// How many of so many files may be kept.
fn left_of(limit: u64) -> usize {
    usize::try_from(limit).map_or(NOT_LOOKED_AT - 1, |limit| limit.saturating_sub(RESERVED))
}

fn max_kept() -> usize {
    match MAX_KEPT.load(Ordering::Relaxed) {
        NOT_LOOKED_AT => {
            let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(limit, _)| limit);
            let kept = left_of(limit);
            MAX_KEPT.store(kept, Ordering::Relaxed);
            kept
        }
        kept => kept,
    }
}

/// Has this process, the child that becomes a command, have as many open files as if nobody had asked for more. Between
/// fork and exec: a single system call.
pub(crate) fn put_back() {
    if let Some((before, most)) = BEFORE.get() {
        // Lowering it takes no right.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, *before, *most);
    }
}

/// Makes room for many open files; how many there may be stays as it is. To be called while this process has one
/// thread.
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
        (before < max_kept()).then_some(right)
    }
}

impl Drop for KeepingRight {
    fn drop(&mut self) {
        KEPT.fetch_sub(1, Ordering::Relaxed);
    }
}
