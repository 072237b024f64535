//! An unwind rule: how the registers of a caller follow from those of the called function.
//!
//! The layout is that of C: plain integers, no padding, so that the in-kernel program can use the same bytes.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0 | `cfa` | a [`CfaKind`] |
//! | 1 | `cfa_register` | DWARF number, 0 to 15 |
//! | 2 | `cfa_operand` | depends on the kind of CFA |
//! | 3 | `flags` | see the constants of [`UnwindRule`] |
//! | 4..8 | `cfa_offset` | signed |
//! | 8..12 | `cfa_addend` | signed, depends on the kind of CFA |
//! | 12..68 | `registers` | a [`RegisterRule`] of 8 bytes each for rbx, rbp, r12, r13, r14, r15 and rip |
//!
//! A [`RegisterRule`] is its kind (a [`RegisterKind`]), a register, the binary logarithm of an alignment, a signed addend of one
//! byte each, and a signed offset of four bytes.

/// How the canonical frame address (the stack pointer before the call) is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CfaKind {
    /// `register + offset`.
    Register = 0,
    /// `*(register + offset) + addend`.
    Memory = 1,
    /// `*(register + offset + 8 * operand) + addend`, where the operand is another register.
    IndexedMemory = 2,
    /// In a procedure linkage table: `register + offset`, and 8 more if the last four bits of rip are at least `operand`.
    LinkageTable = 3,
    /// A signal frame: all registers are in a `sigcontext` at `register + offset`.
    SignalContext = 4,
}

/// Where the caller's value of a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RegisterKind {
    /// Nowhere.
    Unknown = 0,
    /// In the register itself.
    Same = 1,
    /// At `CFA + offset`.
    AtCfa = 2,
    /// At `register + offset`.
    AtRegister = 3,
    /// At `((CFA + addend) & -(1 << alignment)) + offset`.
    AtAlignedCfa = 4,
    /// In another register.
    InRegister = 5,
    /// It is `CFA + offset`.
    CfaPlus = 6,
}

/// Where the caller's value of one register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct RegisterRule {
    /// What kind of place it is.
    pub kind: RegisterKind,
    /// The DWARF number of the register that the place is relative to; else 0.
    pub register: u8,
    /// The binary logarithm of the alignment; else 0.
    pub alignment: u8,
    /// What is added before aligning; else 0.
    pub addend: i8,
    /// The offset in bytes; else 0.
    pub offset: i32,
}

impl RegisterRule {
    /// The value is lost.
    pub const UNKNOWN: Self = RegisterRule::new(RegisterKind::Unknown, 0, 0);
    /// The register was not changed.
    pub const SAME: Self = RegisterRule::new(RegisterKind::Same, 0, 0);

    /// A rule without alignment.
    pub const fn new(kind: RegisterKind, register: u8, offset: i32) -> Self {
        RegisterRule { kind, register, alignment: 0, addend: 0, offset }
    }

    /// The value lies at `CFA + offset`.
    pub const fn at_cfa(offset: i32) -> Self {
        RegisterRule::new(RegisterKind::AtCfa, 0, offset)
    }
}

/// The place of rip in [`UnwindRule::registers`].
pub(super) const RETURN_ADDRESS: usize = 6;

/// How the registers of a caller follow from those of the called function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct UnwindRule {
    /// How the CFA is computed.
    pub cfa: CfaKind,
    /// The register that it is relative to.
    pub cfa_register: u8,
    /// See [`CfaKind`].
    pub cfa_operand: u8,
    /// Bits: [`UnwindRule::OUTERMOST`], [`UnwindRule::FROM_CODE`].
    pub flags: u8,
    /// Added to the register.
    pub cfa_offset: i32,
    /// Added to what was read from memory.
    pub cfa_addend: i32,
    /// The rules of rbx, rbp, r12 to r15 and rip.
    pub registers: [RegisterRule; RETURN_ADDRESS + 1],
}

impl UnwindRule {
    /// There is no caller: the thread began here.
    pub const OUTERMOST: u8 = 1;
    /// The rule comes from the function's instructions, not from unwind information.
    pub const FROM_CODE: u8 = 2;

    /// A rule by which nothing but the return address was saved, which lies below the CFA `register + offset`.
    pub const fn plain(register: u8, offset: i32) -> Self {
        let mut registers = [RegisterRule::SAME; RETURN_ADDRESS + 1];
        registers[RETURN_ADDRESS] = RegisterRule::at_cfa(-8);
        UnwindRule {
            cfa: CfaKind::Register,
            cfa_register: register,
            cfa_operand: 0,
            flags: 0,
            cfa_offset: offset,
            cfa_addend: 0,
            registers,
        }
    }

    /// Whether there is no caller.
    pub const fn is_outermost(&self) -> bool {
        self.flags & UnwindRule::OUTERMOST != 0
    }

    /// Whether this is the frame that the kernel made to run a signal handler.
    pub fn is_signal_frame(&self) -> bool {
        self.cfa == CfaKind::SignalContext
    }
}
