//! Keeps this process alive when a file that it has mapped is cut short: reading behind the new end would end it with SIGBUS.
//!
//! The handler puts a page of zeros there, so that the reader finds a damaged file, which it must expect of any file. Only
//! faults in registered ranges are answered; every other fault is left to the previous handler.

use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// So many files can be mapped at a time. A large program maps some thousand libraries.
const SLOTS: usize = 16_384;

/// A range of addresses; the end is 0 while it is not complete, the start is 0 while it is free.
struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
}

static RANGES: [Slot; SLOTS] =
    [const { Slot { start: AtomicUsize::new(0), end: AtomicUsize::new(0) } }; SLOTS];
/// No slot from this one on was ever used.
static USED: AtomicUsize = AtomicUsize::new(0);
/// The handler that was there before, never freed; null before ours is installed.
static PREVIOUS: AtomicPtr<SigAction> = AtomicPtr::new(ptr::null_mut());

/// A range in which faults are answered until this is dropped.
#[derive(Debug)]
pub(crate) struct Guarded(usize);

impl Guarded {
    /// Guards `length` bytes from `start` on; `None` where there is no slot left, or no handler.
    pub(crate) fn new(start: *const u8, length: usize) -> Option<Self> {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(install);
        if PREVIOUS.load(Ordering::Acquire).is_null() {
            return None;
        }
        let start = start.addr();
        let is_taken =
            |slot: &Slot| slot.start.compare_exchange(0, start, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        let index = RANGES.iter().position(is_taken)?;
        USED.fetch_max(index + 1, Ordering::AcqRel);
        RANGES[index].end.store(start + length, Ordering::Release);
        Some(Guarded(index))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let slot = &RANGES[self.0];
        slot.end.store(0, Ordering::Release);
        slot.start.store(0, Ordering::Release);
    }
}

fn install() {
    let action = SigAction::new(
        SigHandler::SigAction(answer),
        SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK,
        SigSet::empty(),
    );
    // SAFETY: the handler calls nothing that may not be called in a signal handler: it reads atomics, and asks the kernel for a
    // mapping or for the previous handler.
    if let Ok(previous) = unsafe { sigaction(Signal::SIGBUS, &action) } {
        PREVIOUS.store(Box::into_raw(Box::new(previous)), Ordering::Release);
    }
}

extern "C" fn answer(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a valid `siginfo_t`, which for SIGBUS has an address.
    let address = unsafe { (*info).si_addr() }.addr();
    let used = USED.load(Ordering::Acquire).min(SLOTS);
    let is_inside = |slot: &Slot| {
        let end = slot.end.load(Ordering::Acquire);
        end > address && slot.start.load(Ordering::Acquire) <= address
    };
    if RANGES[..used].iter().any(is_inside) && put_zeros(address) {
        return;
    }
    // The previous handler is put back. The instruction runs again and faults again, this time in that handler.
    // SAFETY: the pointer is that of a `SigAction` that is never freed, or null before the handler is installed.
    if let Some(previous) = unsafe { PREVIOUS.load(Ordering::Acquire).as_ref() } {
        // SAFETY: it was the handler before, set by this process.
        let _ = unsafe { sigaction(Signal::SIGBUS, previous) };
    }
}

/// Replaces the page around an address in a mapping of ours by one of zeros.
fn put_zeros(address: usize) -> bool {
    const PAGE: usize = 4096;
    let page = ptr::without_provenance_mut(address & !(PAGE - 1));
    // SAFETY: the page lies in a private, read-only mapping that is registered and is not unmapped while someone reads it, as
    // the one does whom the signal has interrupted. What it had cannot be read any longer.
    let mapped = unsafe {
        libc::mmap(
            page,
            PAGE,
            libc::PROT_READ,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    mapped != libc::MAP_FAILED
}
