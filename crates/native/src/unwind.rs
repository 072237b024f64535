//! Unwinding: from the registers of a thread and its stack to the program counters of its callers.
//!
//! The unwind information of a module is compiled once to rows ([`UnwindTable`]): sorted by address, each with the number of a
//! rule, and the rules ([`UnwindRule`]) kept once each. [`walk`] applies them frame by frame. Code without any unwind
//! information has rows, too, if it is known where its functions start and their instructions prove how they use the stack;
//! what remains is followed as far as the code proves where its return address is, or is the end of the walk, with its reason.
//!
//! `rule` and `table` are the data; `compile` makes them, with `cfi`, which reads the sections, and `expression`, which
//! recognises expressions; `walk` walks; and `x86_64` has all that is peculiar to the architecture.

mod cfi;
mod compile;
mod expression;
mod frame;
mod rule;
mod table;
#[cfg(test)]
mod tests;
mod walk;
mod x86_64;

pub use compile::compile;
pub use frame::{NativeFrame, NativeFrameKind, UnwindEnd};
pub use rule::{CfaKind, RegisterKind, RegisterRule, UnwindRule};
pub use table::{TableCounts, UnwindRow, UnwindTable};
pub use walk::walk;
pub use x86_64::UnwindRegisters;
