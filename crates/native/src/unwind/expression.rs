//! The DWARF expressions that occur in the unwind information of real libraries, recognised by their shape.
//!
//! Hand-written assembly with realigned or relocated stacks (OpenSSL), compilers that realign frames or keep the address of a
//! frame in memory (NumPy's vector code), procedure linkage tables and signal frames use some ten shapes. An expression of any
//! other shape has no rule and is counted.

use gimli::{Encoding, EndianSlice, Expression, Format, LittleEndian, Operation};

use super::rule::{CfaKind, RegisterKind, RegisterRule};
use super::x86_64::{RIP, RSP};

/// The most operations of a recognised shape.
const MAX_OPERATIONS: usize = 10;

const ENCODING: Encoding = Encoding { address_size: 8, format: Format::Dwarf32, version: 4 };

/// A place, as a rule has it, that a CFA is computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CfaPlace {
    pub(super) kind: CfaKind,
    pub(super) register: u8,
    pub(super) operand: u8,
    pub(super) offset: i32,
    pub(super) addend: i32,
}

impl CfaPlace {
    pub(super) fn at_register(register: u8, offset: i32) -> Self {
        CfaPlace { kind: CfaKind::Register, register, operand: 0, offset, addend: 0 }
    }
}

/// An operation of a recognised shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Pushes a register plus a number.
    Register(u8, i64),
    /// Pushes a number.
    Number(i64),
    /// Adds a number to the top.
    Add(i64),
    Load,
    And,
    Minus,
    Plus,
    Times,
    AtLeast,
    ShiftLeft,
}

/// How an expression computes a CFA, if its shape is a known one.
pub(super) fn cfa(expression: Expression<EndianSlice<'_, LittleEndian>>) -> Option<CfaPlace> {
    use Step::{Add, And, AtLeast, Load, Number, Plus, Register, ShiftLeft, Times};
    let (kind, register, operand, offset, addend) = match *steps(expression)?.as_slice() {
        [Register(register, offset)] => (CfaKind::Register, register, 0, offset, 0),
        [Register(register, offset), Add(more)] => {
            (CfaKind::Register, register, 0, offset.checked_add(more)?, 0)
        }
        [Register(register, offset), Load] => (CfaKind::Memory, register, 0, offset, 0),
        [Register(register, offset), Load, Add(addend)]
        | [Register(register, offset), Load, Number(addend), Plus] => {
            (CfaKind::Memory, register, 0, offset, addend)
        }
        [Register(register, offset), Register(index, 0), Number(8), Times, Plus, Load, Add(addend)] => {
            (CfaKind::IndexedMemory, register, index, offset, addend)
        }
        [
            Register(RSP, offset),
            Register(RIP, 0),
            Number(15),
            And,
            Number(least @ 0..=15),
            AtLeast,
            Number(3),
            ShiftLeft,
            Plus,
        ] => (CfaKind::LinkageTable, RSP, least as u8, offset, 0),
        _ => return None,
    };
    let (offset, addend) = (i32::try_from(offset).ok()?, i32::try_from(addend).ok()?);
    let is_general = register < RIP && (kind != CfaKind::IndexedMemory || operand < RIP);
    is_general.then_some(CfaPlace { kind, register, operand, offset, addend })
}

/// Where an expression finds a saved register, if its shape is a known one. The CFA lies on the expression's stack.
pub(super) fn saved_at(expression: Expression<EndianSlice<'_, LittleEndian>>) -> Option<RegisterRule> {
    use Step::{Add, And, Minus, Number, Plus, Register};
    match *steps(expression)?.as_slice() {
        [] => Some(RegisterRule::at_cfa(0)),
        [Add(offset)] | [Number(offset), Plus] => Some(RegisterRule::at_cfa(i32::try_from(offset).ok()?)),
        [Register(register, offset)] if register < RIP => {
            Some(RegisterRule::new(RegisterKind::AtRegister, register, i32::try_from(offset).ok()?))
        }
        [Number(below), Minus, Number(mask), And, Number(offset), Plus] if is_alignment(mask) => {
            Some(RegisterRule {
                kind: RegisterKind::AtAlignedCfa,
                register: 0,
                alignment: mask.trailing_zeros() as u8,
                addend: i8::try_from(below.checked_neg()?).ok()?,
                offset: i32::try_from(offset).ok()?,
            })
        }
        _ => None,
    }
}

/// Whether this is the negative of a power of two.
fn is_alignment(mask: i64) -> bool {
    mask < 0 && mask != i64::MIN && (-mask).count_ones() == 1
}

/// The operations of an expression; `None` if there are more than any shape has, or others.
fn steps(expression: Expression<EndianSlice<'_, LittleEndian>>) -> Option<Vec<Step>> {
    let mut steps = Vec::with_capacity(MAX_OPERATIONS);
    let mut operations = expression.operations(ENCODING);
    while let Some(operation) = operations.next().ok()? {
        if steps.len() == MAX_OPERATIONS {
            return None;
        }
        steps.push(step(operation)?);
    }
    Some(steps)
}

fn step(operation: Operation<EndianSlice<'_, LittleEndian>>) -> Option<Step> {
    Some(match operation {
        Operation::RegisterOffset { register, offset, .. } => {
            Step::Register(u8::try_from(register.0).ok()?, offset)
        }
        Operation::UnsignedConstant { value } => Step::Number(i64::try_from(value).ok()?),
        Operation::SignedConstant { value } => Step::Number(value),
        Operation::PlusConstant { value } => Step::Add(i64::try_from(value).ok()?),
        Operation::Deref { size: 8, space: false, .. } => Step::Load,
        Operation::And => Step::And,
        Operation::Minus => Step::Minus,
        Operation::Plus => Step::Plus,
        Operation::Mul => Step::Times,
        Operation::Ge => Step::AtLeast,
        Operation::Shl => Step::ShiftLeft,
        _ => return None,
    })
}
