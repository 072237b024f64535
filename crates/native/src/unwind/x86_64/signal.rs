//! Signal frames. The kernel stores all registers of the interrupted code on the stack and lets the handler return to a
//! trampoline that asks it to restore them.

use super::registers::{GENERAL, RIP};
use crate::unwind::rule::{CfaKind, RegisterKind, RegisterRule, UnwindRule};

/// Where the kernel stores the registers, in bytes from that of r8; by DWARF number, rip last (`struct sigcontext`).
pub(super) const CONTEXT_OFFSETS: [i32; GENERAL + 1] =
    [104, 96, 112, 88, 72, 64, 80, 120, 0, 8, 16, 24, 32, 40, 48, 56, 128];

/// The size of the part of the `sigcontext` that holds them.
pub(super) const CONTEXT_BYTES: usize = GENERAL * 8 + 8;

/// Where a trampoline finds the `sigcontext`, in bytes above its stack pointer (`uc_mcontext` of a `ucontext`).
const CONTEXT_ABOVE_STACK_POINTER: i32 = 40;

/// The trampolines of C libraries without unwind information for them: `mov $15,%rax; syscall` with either size of operand.
const TRAMPOLINES: [&[u8]; 2] =
    [&[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05], &[0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05]];

/// The rule of a signal frame whose `sigcontext` lies at `register + offset`.
const fn context_at(register: u8, offset: i32) -> UnwindRule {
    let mut rule = UnwindRule::plain(register, offset);
    rule.cfa = CfaKind::SignalContext;
    rule
}

/// The rule of a signal frame, by the places where its unwind information finds all registers, rip last: if these are a
/// `sigcontext`.
pub(in crate::unwind) fn signal_rule(places: &[Option<RegisterRule>; GENERAL + 1]) -> Option<UnwindRule> {
    let first = places[8].filter(|place| place.kind == RegisterKind::AtRegister)?;
    let is_context = places.iter().zip(CONTEXT_OFFSETS).all(|(place, offset)| {
        let expected = first.offset.checked_add(offset).map(|offset| RegisterRule { offset, ..first });
        *place == expected
    });
    (is_context && first.register < RIP).then(|| context_at(first.register, first.offset))
}

/// The rule for a frame whose code is a trampoline without unwind information. `code` starts at the program counter.
pub(super) fn trampoline_rule(code: &[u8]) -> Option<UnwindRule> {
    let is_trampoline = TRAMPOLINES.iter().any(|trampoline| code.starts_with(trampoline));
    is_trampoline.then(|| context_at(super::registers::RSP, CONTEXT_ABOVE_STACK_POINTER))
}
