//! What is peculiar to x86-64: its registers, the application of a rule to them, signal frames, calls and frame pointers, and
//! functions without unwind information, whose instructions are followed.

mod call;
mod decode;
mod follow;
mod registers;
mod signal;
mod step;
#[cfg(test)]
mod tests;
mod unlisted;

pub use registers::UnwindRegisters;

pub(super) use call::follows_call;
pub(super) use follow::{Extent, follow};
pub(super) use registers::{GENERAL, RIP, RSP, SAVED_REGISTERS};
pub(super) use signal::signal_rule;
pub(super) use step::{StepError, caller};
pub(super) use unlisted::{MAX_FOLLOWED_BYTES, Unlisted, is_thread_end, trampoline, unlisted};
