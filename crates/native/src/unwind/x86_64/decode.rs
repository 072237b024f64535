//! Decodes instructions, as far as the use of the stack is concerned: their lengths, where they lead, what they do to the
//! stack pointer and its copies, where they store registers, and which other registers they may change.
//!
//! What an instruction may change is given too large rather than too small.

use super::registers::{R11, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP};

/// The longest instruction that a processor takes.
const MAX_BYTES: usize = 15;

/// The DWARF numbers of the registers in the order of their encoding.
const BY_ENCODING: [u8; 16] = [RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, 8, 9, 10, 11, 12, 13, 14, 15];

/// What instructions without operands in their bytes may change.
const IMPLICIT: u16 = bit(RAX) | bit(RCX) | bit(RDX) | bit(RSI) | bit(RDI);

/// What an instruction does. Registers are DWARF numbers; distances count from the end of the instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Pushes eight bytes: a register, or something else.
    Push(Option<u8>),
    /// Pops eight bytes to a register, or elsewhere.
    Pop(Option<u8>),
    /// Adds a number to a register.
    Add(u8, i32),
    /// Copies a register and adds a number: `to`, `from`, number.
    Copy(u8, u8, i32),
    /// Stores a register at `base + displacement`: `from`, `base`, displacement.
    Store(u8, u8, i32),
    /// Loads a register from `base + displacement`: `to`, `base`, displacement.
    Load(u8, u8, i32),
    /// `leave`.
    Leave,
    Call,
    /// Returns; the number of bytes of arguments that it pops.
    Return(u16),
    /// Goes on elsewhere; `None` if it is not known where.
    Jump(Option<i32>),
    /// Goes on elsewhere or not.
    Branch(i32),
    /// Does not go on.
    Stop,
    /// Nothing but changes to these registers, a bit for each.
    Changes(u16),
}

/// An instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    /// Its length in bytes.
    pub(super) length: usize,
    pub(super) effect: Effect,
}

/// Decodes the instruction that the bytes start with. `None` if it is none, or it is cut.
pub(super) fn decode(code: &[u8]) -> Option<Decoded> {
    let mut reader =
        Reader { code: &code[..code.len().min(MAX_BYTES)], at: 0, prefixes: Prefixes::default() };
    let effect = reader.instruction()?;
    Some(Decoded { length: reader.at, effect })
}

const fn bit(register: u8) -> u16 {
    1 << register
}

#[derive(Clone, Copy, Default)]
struct Prefixes {
    /// The bits W, R, X and B; `None` without the prefix.
    rex: Option<u8>,
    operand_size: bool,
    address_size: bool,
    repeat: bool,
}

impl Prefixes {
    fn is_wide(self) -> bool {
        self.rex.is_some_and(|rex| rex & 8 != 0)
    }

    fn extension(self, shift: u8) -> u8 {
        (self.rex.unwrap_or(0) >> shift & 1) << 3
    }
}

/// The operands that a ModRM byte names.
#[derive(Clone, Copy)]
struct Operands {
    /// The field between, which in some instructions is a part of the opcode.
    field: u8,
    /// The register by that field.
    register: u8,
    other: Other,
}

#[derive(Clone, Copy)]
enum Other {
    Register(u8),
    /// A base and a displacement.
    Memory(u8, i32),
    /// Memory with an index, or without a base.
    Elsewhere,
}

impl Operands {
    /// The bit of the other operand if that is a register.
    fn other_bit(self) -> u16 {
        if let Other::Register(register) = self.other { bit(register) } else { 0 }
    }

    fn both_bits(self) -> u16 {
        bit(self.register) | self.other_bit()
    }
}

/// How wide the number is that ends an instruction.
#[derive(Clone, Copy)]
enum Immediate {
    None,
    Byte,
    /// As wide as the operands, but four bytes at most.
    Operand,
}

struct Reader<'a> {
    code: &'a [u8],
    at: usize,
    prefixes: Prefixes,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.code.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.at += bytes;
        (self.at <= self.code.len()).then_some(())
    }

    fn number8(&mut self) -> Option<i32> {
        Some(i32::from(self.byte()? as i8))
    }

    fn number32(&mut self) -> Option<i32> {
        let bytes = self.code.get(self.at..)?.first_chunk()?;
        self.at += 4;
        Some(i32::from_le_bytes(*bytes))
    }

    /// The number that ends an instruction.
    fn immediate(&mut self, width: Immediate) -> Option<i32> {
        match width {
            Immediate::None => Some(0),
            Immediate::Byte => self.number8(),
            Immediate::Operand if self.prefixes.operand_size && !self.prefixes.is_wide() => {
                self.skip(2)?;
                Some(0)
            }
            Immediate::Operand => self.number32(),
        }
    }

    fn instruction(&mut self) -> Option<Effect> {
        loop {
            let opcode = self.byte()?;
            match opcode {
                0x66 => self.prefixes.operand_size = true,
                0x67 => self.prefixes.address_size = true,
                0xf2 | 0xf3 => self.prefixes.repeat = true,
                0xf0 | 0x2e | 0x36 | 0x3e | 0x26 | 0x64 | 0x65 => {}
                0x40..=0x4f => {
                    self.prefixes.rex = Some(opcode & 15);
                    let opcode = self.byte()?;
                    return self.opcode(opcode);
                }
                _ => return self.opcode(opcode),
            }
        }
    }

    fn opcode(&mut self, opcode: u8) -> Option<Effect> {
        match opcode {
            0x0f => self.two_byte_opcode(),
            0x00..=0x3f => self.arithmetic(opcode),
            0x50..=0x5f | 0x68 | 0x6a | 0x8f | 0x9c | 0x9d | 0xc8 | 0xc9 => self.stack(opcode),
            0x70..=0x7f | 0xe0..=0xe3 => Some(Effect::Branch(self.number8()?)),
            0xe8 => self.number32().map(|_| Effect::Call),
            0xe9 => Some(Effect::Jump(Some(self.number32()?))),
            0xeb => Some(Effect::Jump(Some(self.number8()?))),
            0xc2 => {
                let bytes = self.code.get(self.at..)?.first_chunk()?;
                self.at += 2;
                Some(Effect::Return(u16::from_le_bytes(*bytes)))
            }
            0xc3 => Some(Effect::Return(0)),
            0xf4 | 0xcc => Some(Effect::Stop),
            0xc4 | 0xc5 | 0x62 => self.vector(opcode),
            0x63 | 0x69 | 0x6b | 0x80..=0x8e | 0xc0 | 0xc1 | 0xc6 | 0xc7 | 0xd0..=0xd3 | 0xd8..=0xdf => {
                self.with_operands(opcode)
            }
            0xf6 | 0xf7 | 0xfe | 0xff => self.group(opcode),
            _ => self.without_operands(opcode),
        }
    }

    /// ADD, OR, ADC, SBB, AND, SUB, XOR and CMP in their six forms.
    fn arithmetic(&mut self, opcode: u8) -> Option<Effect> {
        let is_compare = opcode >> 3 == 7;
        let changed = match opcode & 7 {
            form @ 0..=3 => {
                let operands = self.operands(form & 1 == 0, Immediate::None)?.0;
                if form < 2 { operands.other_bit() } else { bit(operands.register) }
            }
            form @ 4..=5 => {
                self.immediate(if form == 4 { Immediate::Byte } else { Immediate::Operand })?;
                bit(RAX)
            }
            _ => return None,
        };
        Some(Effect::Changes(if is_compare { 0 } else { changed }))
    }

    fn stack(&mut self, opcode: u8) -> Option<Effect> {
        let register = BY_ENCODING[usize::from(opcode & 7 | self.prefixes.extension(0))];
        let effect = match opcode {
            0x50..=0x57 => Effect::Push(Some(register)),
            0x58..=0x5f => Effect::Pop(Some(register)),
            0x68 => {
                self.immediate(Immediate::Operand)?;
                Effect::Push(None)
            }
            0x6a => {
                self.immediate(Immediate::Byte)?;
                Effect::Push(None)
            }
            0x8f => {
                let operands = self.operands(false, Immediate::None)?.0;
                if operands.field != 0 {
                    return None;
                }
                match operands.other {
                    Other::Register(register) => Effect::Pop(Some(register)),
                    _ => Effect::Pop(None),
                }
            }
            0x9c => Effect::Push(None),
            0x9d => Effect::Pop(None),
            0xc9 => Effect::Leave,
            _ => {
                self.skip(3)?;
                Effect::Changes(bit(RSP) | bit(RBP))
            }
        };
        // Two bytes instead of eight.
        Some(if self.prefixes.operand_size { Effect::Changes(u16::MAX) } else { effect })
    }

    fn with_operands(&mut self, opcode: u8) -> Option<Effect> {
        let width = match opcode {
            0x69 | 0x81 | 0xc7 => Immediate::Operand,
            0x6b | 0x80 | 0x83 | 0xc0 | 0xc1 | 0xc6 => Immediate::Byte,
            0x82 => return None,
            _ => Immediate::None,
        };
        let is_byte = matches!(opcode, 0x80 | 0x84 | 0x86 | 0x88 | 0x8a | 0xc0 | 0xc6 | 0xd0 | 0xd2);
        let (operands, number) = self.operands(is_byte, width)?;
        let (register, is_wide) = (operands.register, self.prefixes.is_wide());
        Some(match (opcode, operands.other) {
            (0x81 | 0x83, Other::Register(other)) if is_wide && operands.field == 0 => {
                Effect::Add(other, number)
            }
            (0x81 | 0x83, Other::Register(other)) if is_wide && operands.field == 5 => {
                Effect::Add(other, number.checked_neg()?)
            }
            (0x80..=0x83, _) if operands.field == 7 => Effect::Changes(0),
            (0x89, Other::Register(other)) if is_wide => Effect::Copy(other, register, 0),
            (0x8b, Other::Register(other)) if is_wide => Effect::Copy(register, other, 0),
            (0x8d, Other::Memory(base, displacement)) if is_wide => {
                Effect::Copy(register, base, displacement)
            }
            (0x89, Other::Memory(base, displacement)) if is_wide => {
                Effect::Store(register, base, displacement)
            }
            (0x8b, Other::Memory(base, displacement)) if is_wide => {
                Effect::Load(register, base, displacement)
            }
            (0x84 | 0x85, _) => Effect::Changes(0),
            (0x63 | 0x69 | 0x6b | 0x8a | 0x8b | 0x8d, _) => Effect::Changes(bit(register)),
            (0x86 | 0x87, _) => Effect::Changes(operands.both_bits()),
            (0xd8..=0xdf, _) => Effect::Changes(bit(RAX)),
            _ => Effect::Changes(operands.other_bit()),
        })
    }

    fn group(&mut self, opcode: u8) -> Option<Effect> {
        let is_byte = opcode & 1 == 0;
        let (operands, _) = self.operands(is_byte, Immediate::None)?;
        let is_test = opcode < 0xf8 && operands.field < 2;
        if is_test {
            self.immediate(if is_byte { Immediate::Byte } else { Immediate::Operand })?;
        }
        Some(match (opcode, operands.field) {
            _ if is_test => Effect::Changes(0),
            (0xf6 | 0xf7, 4..) => Effect::Changes(bit(RAX) | bit(RDX)),
            (0xff, 2) => Effect::Call,
            (0xff, 4) => Effect::Jump(None),
            (0xff, 6) => match operands.other {
                Other::Register(register) => Effect::Push(Some(register)),
                _ => Effect::Push(None),
            },
            (0xff, 3 | 5 | 7) | (0xfe, 2..) => return None,
            _ => Effect::Changes(operands.other_bit()),
        })
    }

    fn without_operands(&mut self, opcode: u8) -> Option<Effect> {
        let register = BY_ENCODING[usize::from(opcode & 7 | self.prefixes.extension(0))];
        let high_byte =
            if self.prefixes.rex.is_none() { bit(BY_ENCODING[usize::from(opcode & 3)]) } else { 0 };
        Some(Effect::Changes(match opcode {
            0x90 => 0,
            0x91..=0x97 => bit(RAX) | bit(register),
            0xb0..=0xb7 => {
                self.skip(1)?;
                bit(register) | high_byte
            }
            0xb8..=0xbf => {
                if self.prefixes.is_wide() {
                    self.skip(8)?;
                } else {
                    self.immediate(Immediate::Operand)?;
                }
                bit(register)
            }
            0xa0..=0xa3 => {
                self.skip(if self.prefixes.address_size { 4 } else { 8 })?;
                bit(RAX)
            }
            0xa8 | 0xcd | 0xe4..=0xe7 => {
                self.skip(1)?;
                IMPLICIT
            }
            0xa9 => {
                self.immediate(Immediate::Operand)?;
                0
            }
            0x6c..=0x6f | 0x98 | 0x99 | 0x9b | 0x9e | 0x9f | 0xa4..=0xa7 | 0xaa..=0xaf => IMPLICIT,
            0xd7 | 0xec..=0xef | 0xf5 | 0xf8..=0xfd => IMPLICIT,
            _ => return None,
        }))
    }

    fn two_byte_opcode(&mut self) -> Option<Effect> {
        let opcode = self.byte()?;
        let register = BY_ENCODING[usize::from(opcode & 7 | self.prefixes.extension(0))];
        Some(match opcode {
            0x80..=0x8f => Effect::Branch(self.number32()?),
            0x0b => Effect::Stop,
            0xa2 => Effect::Changes(bit(RAX) | bit(RBX) | bit(RCX) | bit(RDX)),
            0x05 => Effect::Changes(bit(RAX) | bit(RCX) | bit(R11)),
            0x06 | 0x08 | 0x09 | 0x77 => Effect::Changes(0),
            0x30..=0x33 => Effect::Changes(IMPLICIT),
            0xc8..=0xcf => Effect::Changes(bit(register)),
            0x04 | 0x07 | 0x0a | 0x0c | 0x0e | 0x34..=0x37 | 0xa0 | 0xa1 | 0xa8..=0xaa => return None,
            0x38 => {
                let opcode = self.byte()?;
                let operands = self.operands(false, Immediate::None)?.0;
                Effect::Changes(if opcode >= 0xf0 { operands.both_bits() } else { 0 })
            }
            0x3a => {
                let opcode = self.byte()?;
                let operands = self.operands(false, Immediate::Byte)?.0;
                Effect::Changes(match opcode {
                    0x14..=0x17 => operands.other_bit(),
                    0x60..=0x63 => bit(RCX),
                    _ => 0,
                })
            }
            _ => self.two_byte_with_operands(opcode)?,
        })
    }

    fn two_byte_with_operands(&mut self, opcode: u8) -> Option<Effect> {
        let width = match opcode {
            0x0f | 0x70..=0x73 | 0xa4 | 0xac | 0xba | 0xc2 | 0xc4..=0xc6 => Immediate::Byte,
            _ => Immediate::None,
        };
        let is_byte = matches!(opcode, 0x90..=0x9f | 0xb0 | 0xc0);
        let operands = self.operands(is_byte, width)?.0;
        Some(Effect::Changes(match opcode {
            0x01 => operands.both_bits() | IMPLICIT,
            0x0d | 0x18..=0x1d | 0x1f | 0xa3 | 0xc3 => 0,
            0x40..=0x4f | 0xaf | 0xb6..=0xb8 | 0xbc..=0xbf => bit(operands.register),
            0x2c | 0x2d | 0x50 | 0xc5 | 0xd7 => bit(operands.register),
            0x1e | 0x90..=0x9f | 0xa4 | 0xa5 | 0xab..=0xae | 0xb3 | 0xba | 0xbb => operands.other_bit(),
            0x7e if !self.prefixes.repeat => operands.other_bit(),
            0xb0 | 0xb1 => operands.other_bit() | bit(RAX),
            0xc7 => operands.other_bit() | bit(RAX) | bit(RDX),
            0x10..=0x17 | 0x28..=0x2b | 0x2e | 0x2f | 0x51..=0x7f | 0xc2 | 0xc4 | 0xc6 | 0xd0..=0xff => 0,
            _ => operands.both_bits(),
        }))
    }

    /// Instructions with a VEX or EVEX prefix.
    fn vector(&mut self, prefix: u8) -> Option<Effect> {
        let first = self.byte()?;
        // The fields are stored inverted.
        let (map, extensions, last) = match prefix {
            0xc5 => (1, !first >> 5 & 4, first),
            0xc4 => (first & 31, !first >> 5, self.byte()?),
            _ => {
                let second = self.byte()?;
                self.byte()?;
                (first & 7, !first >> 5, second)
            }
        };
        let wide = if prefix == 0xc5 { 0 } else { last >> 4 & 8 };
        self.prefixes.rex = Some(extensions & 7 | wide);
        let (third, kind) = (BY_ENCODING[usize::from(!last >> 3 & 15)], last & 3);
        let opcode = self.byte()?;
        if (prefix, map, opcode) == (0xc5, 1, 0x77) || (prefix, map, opcode) == (0xc4, 1, 0x77) {
            return Some(Effect::Changes(0));
        }
        let width = match (map, opcode) {
            (3, _) | (1, 0x70..=0x73 | 0xc2 | 0xc4..=0xc6) => Immediate::Byte,
            (1 | 2 | 5 | 6, _) => Immediate::None,
            _ => return None,
        };
        let operands = self.operands(false, width)?.0;
        Some(Effect::Changes(match (map, opcode) {
            (1, 0x2c | 0x2d | 0x78 | 0x79) if kind >= 2 => bit(operands.register),
            (1, 0x50 | 0x93 | 0xc5 | 0xd7) => bit(operands.register),
            (1, 0x7e) if kind == 1 => operands.other_bit(),
            (2, 0xf2..=0xf7) if prefix != 0x62 => bit(operands.register) | bit(third),
            (3, 0x14..=0x17) => operands.other_bit(),
            (3, 0x60..=0x63) => bit(RCX),
            (3, 0xf0) => bit(operands.register),
            (5, _) => operands.both_bits(),
            _ => 0,
        }))
    }

    /// The operands by a ModRM byte, and the number that ends the instruction. `is_byte` says that the operands are single
    /// bytes, some of which are parts of other registers.
    fn operands(&mut self, is_byte: bool, width: Immediate) -> Option<(Operands, i32)> {
        let modrm = self.byte()?;
        let (mode, field, low) = (modrm >> 6, modrm >> 3 & 7, modrm & 7);
        let other = if mode == 3 {
            Other::Register(self.register(low | self.prefixes.extension(0), is_byte))
        } else {
            self.memory(mode, low)?
        };
        let register = self.register(field | self.prefixes.extension(2), is_byte);
        let number = self.immediate(width)?;
        Some((Operands { field, register, other }, number))
    }

    fn register(&self, encoding: u8, is_byte: bool) -> u8 {
        let is_high_byte = is_byte && self.prefixes.rex.is_none() && (4..8).contains(&encoding);
        BY_ENCODING[usize::from(if is_high_byte { encoding & 3 } else { encoding })]
    }

    fn memory(&mut self, mode: u8, low: u8) -> Option<Other> {
        let mut base = low | self.prefixes.extension(0);
        let mut has_index = false;
        if low == 4 {
            let sib = self.byte()?;
            has_index = sib >> 3 & 7 | self.prefixes.extension(1) != 4;
            base = sib & 7 | self.prefixes.extension(0);
        }
        let has_base = mode != 0 || base & 7 != 5;
        let displacement = match mode {
            0 if has_base => 0,
            1 => self.number8()?,
            _ => self.number32()?,
        };
        let is_plain = has_base && !has_index && !self.prefixes.address_size;
        Some(if is_plain {
            Other::Memory(BY_ENCODING[usize::from(base)], displacement)
        } else {
            Other::Elsewhere
        })
    }
}
