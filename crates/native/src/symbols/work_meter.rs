//! How much work, and how much of the stack, the debug information of one module may take to read. A file that lies can make
//! its reader visit the same entries again and again, or nest without end.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The most work of one lookup, in steps of some nanoseconds: a read of a number, or of eight bytes of text. A unit of ten
/// thousand functions takes some three million.
pub(super) const MAX_STEPS_PER_LOOKUP: u64 = 1 << 26;

/// The most work that a module may cause in all.
pub(super) const MAX_STEPS_PER_MODULE: u64 = 1 << 28;

/// How much of the stack one lookup may take. addr2line calls itself once for each level of inlined functions; compilers nest
/// some ten levels, at a few hundred bytes each (a few thousand without optimisation). Threads have at least 2 MiB.
const MAX_STACK_BYTES: usize = 1 << 20;

/// Counts the work of reading one module's debug information.
#[derive(Debug)]
pub(super) struct WorkMeter {
    /// What is left of the lookup in progress.
    left: AtomicU64,
    /// What is left for all lookups, the one in progress apart.
    left_in_all: AtomicU64,
    /// Where the stack was when the lookup began.
    stack: AtomicUsize,
}

impl WorkMeter {
    pub(super) fn new() -> Self {
        WorkMeter {
            left: AtomicU64::new(0),
            left_in_all: AtomicU64::new(MAX_STEPS_PER_MODULE),
            stack: AtomicUsize::new(0),
        }
    }

    /// Begins a lookup. Only one at a time is in progress.
    pub(super) fn begin(&self) {
        let in_all = self.left_in_all.load(Ordering::Relaxed) + self.left.load(Ordering::Relaxed);
        let left = in_all.min(MAX_STEPS_PER_LOOKUP);
        self.left.store(left, Ordering::Relaxed);
        self.left_in_all.store(in_all - left, Ordering::Relaxed);
        self.stack.store(stack_position(), Ordering::Relaxed);
    }

    /// How many steps were taken in all.
    pub(super) fn taken(&self) -> u64 {
        let left = self.left.load(Ordering::Relaxed) + self.left_in_all.load(Ordering::Relaxed);
        MAX_STEPS_PER_MODULE.saturating_sub(left)
    }

    /// Whether all work that the lookup in progress may take is done.
    pub(super) fn is_exhausted(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    /// Counts some steps; returns whether the lookup may go on.
    #[inline]
    pub(super) fn take(&self, steps: u64) -> bool {
        let left = self.left.load(Ordering::Relaxed).saturating_sub(steps);
        let deep = self.stack.load(Ordering::Relaxed).abs_diff(stack_position()) > MAX_STACK_BYTES;
        let left = if deep { 0 } else { left };
        self.left.store(left, Ordering::Relaxed);
        left != 0
    }
}

/// About where the stack of the calling thread is.
#[inline]
fn stack_position() -> usize {
    let here = 0u8;
    std::ptr::from_ref(&here).addr()
}
