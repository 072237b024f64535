//! One step of a walk: the registers of the caller by a rule.

use profiler_memory::ReadMemory;
use profiler_model::RemoteAddr;

use super::registers::{GENERAL, RSP, SAVED_REGISTERS, UnwindRegisters};
use super::signal::{CONTEXT_BYTES, CONTEXT_OFFSETS};
use crate::unwind::rule::{CfaKind, RETURN_ADDRESS, RegisterKind, RegisterRule, UnwindRule};

/// Why a rule could not be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::unwind) enum StepError {
    /// It needs a register whose value is not known.
    UnknownRegister,
    /// It needs memory that cannot be read.
    Unreadable(RemoteAddr),
}

/// The registers of the caller.
pub(in crate::unwind) fn caller(
    rule: &UnwindRule,
    registers: &UnwindRegisters,
    memory: &impl ReadMemory,
) -> Result<UnwindRegisters, StepError> {
    if rule.cfa == CfaKind::SignalContext {
        return interrupted(rule, registers, memory);
    }
    let cfa = cfa(rule, registers, memory)?;
    let mut next = registers.preserved();
    for (register, place) in SAVED_REGISTERS.into_iter().zip(&rule.registers) {
        if place.kind != RegisterKind::Same {
            next.set(register, value(place, cfa, registers, memory).ok());
        }
    }
    next.set_rip(value(&rule.registers[RETURN_ADDRESS], cfa, registers, memory)?);
    next.set(RSP, Some(cfa));
    Ok(next)
}

/// The registers that a signal frame holds.
fn interrupted(
    rule: &UnwindRule,
    registers: &UnwindRegisters,
    memory: &impl ReadMemory,
) -> Result<UnwindRegisters, StepError> {
    let mut context = [0; CONTEXT_BYTES];
    let at = RemoteAddr::new(relative(rule.cfa_register, rule.cfa_offset, registers)?);
    memory.read(at, &mut context).map_err(|_| StepError::Unreadable(at))?;
    let stored = |register: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&context[CONTEXT_OFFSETS[register] as usize..][..8]);
        u64::from_le_bytes(bytes)
    };
    Ok(UnwindRegisters::new(std::array::from_fn(stored), stored(GENERAL)))
}

fn cfa(rule: &UnwindRule, registers: &UnwindRegisters, memory: &impl ReadMemory) -> Result<u64, StepError> {
    let base = relative(rule.cfa_register, rule.cfa_offset, registers)?;
    let addend = i64::from(rule.cfa_addend);
    Ok(match rule.cfa {
        CfaKind::Register | CfaKind::SignalContext => base,
        CfaKind::Memory => load(base, memory)?.wrapping_add_signed(addend),
        CfaKind::IndexedMemory => {
            let index = registers.get(rule.cfa_operand).ok_or(StepError::UnknownRegister)?;
            load(base.wrapping_add(index.wrapping_mul(8)), memory)?.wrapping_add_signed(addend)
        }
        CfaKind::LinkageTable if registers.rip() & 15 >= u64::from(rule.cfa_operand) => base.wrapping_add(8),
        CfaKind::LinkageTable => base,
    })
}

/// The caller's value of a register.
fn value(
    place: &RegisterRule,
    cfa: u64,
    registers: &UnwindRegisters,
    memory: &impl ReadMemory,
) -> Result<u64, StepError> {
    let offset = i64::from(place.offset);
    match place.kind {
        RegisterKind::AtCfa => load(cfa.wrapping_add_signed(offset), memory),
        RegisterKind::AtRegister => load(relative(place.register, place.offset, registers)?, memory),
        RegisterKind::AtAlignedCfa => {
            let mask = u64::MAX.checked_shl(place.alignment.into()).unwrap_or(0);
            let aligned = cfa.wrapping_add_signed(place.addend.into()) & mask;
            load(aligned.wrapping_add_signed(offset), memory)
        }
        RegisterKind::InRegister => registers.get(place.register).ok_or(StepError::UnknownRegister),
        RegisterKind::CfaPlus => Ok(cfa.wrapping_add_signed(offset)),
        RegisterKind::Unknown | RegisterKind::Same => Err(StepError::UnknownRegister),
    }
}

fn relative(register: u8, offset: i32, registers: &UnwindRegisters) -> Result<u64, StepError> {
    let value = registers.get(register).ok_or(StepError::UnknownRegister)?;
    Ok(value.wrapping_add_signed(offset.into()))
}

fn load(at: u64, memory: &impl ReadMemory) -> Result<u64, StepError> {
    let at = RemoteAddr::new(at);
    memory.scalar(at).map_err(|_| StepError::Unreadable(at))
}
