//! The walk up a stack.

use std::cell::Cell;

use profiler_memory::ReadMemory;
use profiler_model::RemoteAddr;

use super::frame::{NativeFrame, NativeFrameKind, UnwindEnd};
use super::rule::UnwindRule;
use super::table::UnwindTable;
use super::x86_64::{
    MAX_FOLLOWED_BYTES, StepError, Unlisted, UnwindRegisters, caller, follows_call, is_thread_end,
    trampoline, unlisted,
};
use crate::modules::{ModuleIndex, ModuleMap};

/// The most frames of a stack: a Python program in its deepest recursion has some thousands.
const MAX_FRAMES: usize = 16_384;

/// Walks up the stack of a thread and appends its frames to `frames`, the innermost first. Returns why it ended; all frames
/// that were appended are certain, whatever the end.
///
/// `memory` holds the stack and, for code that has no rows, the code. `tables` has the rows of each module that has some.
pub fn walk<'t>(
    registers: UnwindRegisters,
    memory: &impl ReadMemory,
    modules: &ModuleMap,
    tables: impl Fn(ModuleIndex) -> Option<&'t UnwindTable>,
    frames: &mut Vec<NativeFrame>,
) -> UnwindEnd {
    let walk = Walk { memory, modules, tables, left: Cell::new(MAX_FOLLOWED_BYTES) };
    let (mut registers, mut kind) = (registers, NativeFrameKind::Interrupted);
    for _ in 0..MAX_FRAMES {
        match walk.step(&registers, kind, frames) {
            Ok((next, next_kind)) => (registers, kind) = (next, next_kind),
            Err(end) => return walk.judged(end, frames),
        }
    }
    UnwindEnd::TooDeep
}

struct Walk<'a, M, T> {
    memory: &'a M,
    modules: &'a ModuleMap,
    tables: T,
    /// How many bytes of code may still be followed.
    left: Cell<u64>,
}

impl<'t, M: ReadMemory, T: Fn(ModuleIndex) -> Option<&'t UnwindTable>> Walk<'_, M, T> {
    /// Appends the frame that these are the registers of; returns the registers of its caller and its caller's kind.
    fn step(
        &self,
        registers: &UnwindRegisters,
        kind: NativeFrameKind,
        frames: &mut Vec<NativeFrame>,
    ) -> Result<(UnwindRegisters, NativeFrameKind), UnwindEnd> {
        let pc = RemoteAddr::new(registers.rip());
        let is_called = kind == NativeFrameKind::Called;
        // A call may be the last instruction of its function.
        let inside = if is_called { RemoteAddr::new(registers.rip().wrapping_sub(1)) } else { pc };
        let address = self.modules.find(inside).ok_or(UnwindEnd::NoModule(pc))?;
        let mut frame = NativeFrame { address, pc, stack_pointer: RemoteAddr::new(registers.rsp()), kind };
        let table = (self.tables)(address.module);
        let listed = table.and_then(|table| table.find(address.offset));
        let found = match listed {
            Some(rule) if rule.is_signal_frame() => Unlisted::Signal(*rule),
            Some(rule) => {
                frames.push(frame);
                return self.by_rule(rule, registers, address.module);
            }
            None if table.is_some_and(|table| table.is_program_start(address.offset)) => Unlisted::Root,
            None => unlisted(registers, is_called, self.memory, |at| self.is_code(at), &self.left),
        };
        if let Unlisted::Signal(_) = found {
            frame.kind = NativeFrameKind::Signal;
            frame.address = self.modules.find(pc).unwrap_or(address);
        }
        frames.push(frame);
        match found {
            Unlisted::Signal(rule) => {
                let next = caller(&rule, registers, self.memory);
                let next = next.map_err(|error| ended(error, address.module))?;
                Ok((next, NativeFrameKind::Interrupted))
            }
            Unlisted::Root => Err(UnwindEnd::Root),
            Unlisted::Caller(next) => {
                Ok((upwards(registers, next, address.module)?, NativeFrameKind::Called))
            }
            Unlisted::Nothing => Err(UnwindEnd::NoRule(address.module)),
        }
    }

    fn by_rule(
        &self,
        rule: &UnwindRule,
        registers: &UnwindRegisters,
        module: ModuleIndex,
    ) -> Result<(UnwindRegisters, NativeFrameKind), UnwindEnd> {
        if rule.is_outermost() {
            return Err(UnwindEnd::Root);
        }
        let next = caller(rule, registers, self.memory).map_err(|error| ended(error, module))?;
        let next = upwards(registers, next, module)?;
        let is_from_code = rule.flags & UnwindRule::FROM_CODE != 0;
        if is_from_code
            && !follows_call(next.rip(), self.memory)
            && trampoline(next.rip(), self.memory).is_none()
        {
            return Err(UnwindEnd::NoCall(module));
        }
        Ok((next, NativeFrameKind::Called))
    }

    /// The end of a walk. A rule that leads nowhere is no failure where the thread began.
    fn judged(&self, end: UnwindEnd, frames: &[NativeFrame]) -> UnwindEnd {
        let leads_nowhere =
            matches!(end, UnwindEnd::NoModule(_) | UnwindEnd::NoCall(_) | UnwindEnd::Unreadable(_));
        let is_thread_end = |frame: &NativeFrame| {
            frame.kind == NativeFrameKind::Called && is_thread_end(frame.pc.as_u64(), self.memory)
        };
        if leads_nowhere && frames.last().is_some_and(is_thread_end) { UnwindEnd::Root } else { end }
    }

    fn is_code(&self, at: u64) -> bool {
        self.modules.find(RemoteAddr::new(at)).is_some()
    }
}

fn ended(error: StepError, module: ModuleIndex) -> UnwindEnd {
    match error {
        StepError::UnknownRegister => UnwindEnd::UnknownRegister(module),
        StepError::Unreadable(at) => UnwindEnd::Unreadable(at),
    }
}

/// The registers of a caller, if it is further up the stack.
fn upwards(
    registers: &UnwindRegisters,
    next: UnwindRegisters,
    module: ModuleIndex,
) -> Result<UnwindRegisters, UnwindEnd> {
    if next.rsp() > registers.rsp() { Ok(next) } else { Err(UnwindEnd::NotUpwards(module)) }
}
