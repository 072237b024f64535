//! Frames in code that has no rows.
//!
//! Signal trampolines and the ends of threads are recognised by their instructions. For other code it is proved where the
//! function starts, by a return address on the stack: the call before it names a function, whose instructions lead to the
//! program counter and put that very return address where it is. If none is found, the code before the program counter may set a
//! frame pointer up, and lead to the program counter from there.

use std::cell::Cell;

use profiler_memory::ReadMemory;
use profiler_model::RemoteAddr;

use super::call::{called_function, follows_call};
use super::follow::{Extent, follow};
use super::registers::{RBP, UnwindRegisters};
use super::signal::trampoline_rule;
use super::step::caller;
use crate::unwind::rule::UnwindRule;

/// The most bytes from the start of a function to the program counter.
const MAX_FUNCTION_BYTES: u64 = 65_536;

/// The most bytes of code that are followed in one walk: some thousand frames.
pub(in crate::unwind) const MAX_FOLLOWED_BYTES: u64 = 1 << 20;

/// Words above the stack pointer that are looked at for the return address.
const MAX_WORDS: u64 = 32;

/// Bytes of code before the program counter that are searched for the start of its function, the most first: fewer may be
/// mapped.
const SEARCHED_BYTES: [u64; 3] = [16_384, 4096, 512];

/// `push %rbp; mov %rsp,%rbp` in both encodings.
const FRAME_POINTER_SETUPS: [[u8; 4]; 2] = [[0x55, 0x48, 0x89, 0xe5], [0x55, 0x48, 0x8b, 0xec]];

/// Bytes of code that are looked at to recognise what a frame is.
const PEEK_BYTES: usize = 16;

/// How a C library ends a thread when its function returns (musl): `mov %eax,%edi; xor %eax,%eax; mov $60,%al; syscall`.
const THREAD_END: [u8; 8] = [0x89, 0xc7, 0x31, 0xc0, 0xb0, 0x3c, 0x0f, 0x05];

/// What was found of a frame without rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::unwind) enum Unlisted {
    /// It is a signal frame with this rule.
    Signal(UnwindRule),
    /// There is no caller: the thread began here.
    Root,
    /// These are the registers of its caller.
    Caller(UnwindRegisters),
    /// Nothing is proved.
    Nothing,
}

/// What a frame without rows is. `is_called` says that the program counter is a return address, and `is_code` whether an
/// address lies in executable memory. `left` is how many bytes of code may still be followed in this walk.
pub(in crate::unwind) fn unlisted(
    registers: &UnwindRegisters,
    is_called: bool,
    memory: &impl ReadMemory,
    is_code: impl Fn(u64) -> bool,
    left: &Cell<u64>,
) -> Unlisted {
    if let Some(rule) = trampoline(registers.rip(), memory) {
        return Unlisted::Signal(rule);
    }
    if is_called && is_thread_end(registers.rip(), memory) {
        return Unlisted::Root;
    }
    by_call(registers, memory, left)
        .or_else(|| by_frame_pointer(registers, memory, is_code, left))
        .map_or(Unlisted::Nothing, Unlisted::Caller)
}

/// The rule of a signal frame, if the code at an address is a trampoline.
pub(in crate::unwind) fn trampoline(at: u64, memory: &impl ReadMemory) -> Option<UnwindRule> {
    trampoline_rule(&peek(at, memory)?)
}

/// Whether the code at a return address ends the thread: that of a C library, or `runtime.goexit`, which Go lets goroutines
/// return to though it did not call them: a NOP before the return address, then a call and another NOP.
pub(in crate::unwind) fn is_thread_end(return_address: u64, memory: &impl ReadMemory) -> bool {
    let is_go_exit = || {
        let code = peek(return_address.wrapping_sub(1), memory);
        code.is_some_and(|code| matches!(code, [0x90, 0xe8, _, _, _, _, 0x90, ..]))
            && !follows_call(return_address, memory)
    };
    peek(return_address, memory).is_some_and(|code| code.starts_with(&THREAD_END)) || is_go_exit()
}

/// The code at an address, as far as it can be read; zeros behind it.
fn peek(at: u64, memory: &impl ReadMemory) -> Option<[u8; PEEK_BYTES]> {
    let mut code = [0; PEEK_BYTES];
    [PEEK_BYTES, THREAD_END.len()]
        .into_iter()
        .any(|length| memory.read(RemoteAddr::new(at), &mut code[..length]).is_ok())
        .then_some(code)
}

/// The caller, if the call before a return address on the stack names the function that this is.
fn by_call(
    registers: &UnwindRegisters,
    memory: &impl ReadMemory,
    left: &Cell<u64>,
) -> Option<UnwindRegisters> {
    let by_frame_pointer = registers.get(RBP).map(|pointer| pointer.wrapping_add(8));
    let above = (0..MAX_WORDS).map(|word| registers.rsp().wrapping_add(8 * word));
    by_frame_pointer.into_iter().chain(above).find_map(|place| {
        let return_address: u64 = memory.scalar(RemoteAddr::new(place)).ok()?;
        let start = called_function(return_address, memory)?;
        let distance =
            registers.rip().checked_sub(start).filter(|distance| *distance <= MAX_FUNCTION_BYTES)?;
        left.set(left.get().checked_sub(distance)?);
        let code = memory.bytes(RemoteAddr::new(start), distance, MAX_FUNCTION_BYTES as usize).ok()?;
        let (_, rule) = follow(&code, Extent::UpTo)?.pop()?;
        let next = caller(&rule?, registers, memory).ok()?;
        let is_proved = next.rip() == return_address && next.rsp() == place.wrapping_add(8);
        is_proved.then_some(next)
    })
}

/// The caller by the frame pointer, if the code before the program counter sets one up: the instructions from there on lead to
/// the program counter, and the return address that follows from them lies in executable memory behind a call.
fn by_frame_pointer(
    registers: &UnwindRegisters,
    memory: &impl ReadMemory,
    is_code: impl Fn(u64) -> bool,
    left: &Cell<u64>,
) -> Option<UnwindRegisters> {
    let before = |length: u64| {
        let start = registers.rip().checked_sub(length)?;
        memory.bytes(RemoteAddr::new(start), length, MAX_FUNCTION_BYTES as usize).ok()
    };
    let code = SEARCHED_BYTES.into_iter().find_map(before)?;
    let is_setup = |bytes: &[u8]| FRAME_POINTER_SETUPS.iter().any(|setup| bytes == setup);
    let start = code.windows(FRAME_POINTER_SETUPS[0].len()).rposition(is_setup)?;
    left.set(left.get().checked_sub((code.len() - start) as u64)?);
    let (_, rule) = follow(&code[start..], Extent::UpTo)?.pop()?;
    let next = caller(&rule?, registers, memory).ok()?;
    let returns_behind_call = || {
        let at = next.rip();
        is_code(at) && (follows_call(at, memory) || trampoline(at, memory).is_some())
    };
    returns_behind_call().then_some(next)
}
