//! The registers that a walk carries along.

/// DWARF numbers.
pub(in crate::unwind) const RAX: u8 = 0;
pub(in crate::unwind) const RDX: u8 = 1;
pub(in crate::unwind) const RCX: u8 = 2;
pub(in crate::unwind) const RBX: u8 = 3;
pub(in crate::unwind) const RSI: u8 = 4;
pub(in crate::unwind) const RDI: u8 = 5;
pub(in crate::unwind) const RBP: u8 = 6;
pub(in crate::unwind) const RSP: u8 = 7;
pub(in crate::unwind) const R11: u8 = 11;
pub(in crate::unwind) const RIP: u8 = 16;

/// How many general registers there are.
pub(in crate::unwind) const GENERAL: usize = 16;

/// The registers that a function preserves, in the order of the rules: rbx, rbp, r12 to r15.
pub(in crate::unwind) const SAVED_REGISTERS: [u8; 6] = [RBX, RBP, 12, 13, 14, 15];

/// The registers that are known in a frame: all in the first one and behind a signal frame, else those that a function
/// preserves, as far as its rule says where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnwindRegisters {
    general: [u64; GENERAL],
    rip: u64,
    /// A bit for each general register whose value is known.
    known: u16,
}

impl UnwindRegisters {
    /// All registers of a thread, in the order of their DWARF numbers: rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp, r8 to r15.
    pub const fn new(general: [u64; 16], rip: u64) -> Self {
        UnwindRegisters { general, rip, known: u16::MAX }
    }

    /// The program counter.
    pub const fn rip(&self) -> u64 {
        self.rip
    }

    /// The stack pointer, which is always known.
    pub const fn rsp(&self) -> u64 {
        self.general[RSP as usize]
    }

    /// A general register by its DWARF number, if its value is known.
    pub fn get(&self, register: u8) -> Option<u64> {
        let value = self.general.get(usize::from(register))?;
        (self.known & (1 << register) != 0).then_some(*value)
    }

    /// The same registers, of which only those that functions preserve are still known.
    pub(super) fn preserved(&self) -> Self {
        const PRESERVED: u16 = 1 << RBX | 1 << RBP | 1 << RSP | 0xf000;
        UnwindRegisters { known: self.known & PRESERVED, ..*self }
    }

    pub(super) fn set(&mut self, register: u8, value: Option<u64>) {
        let bit = 1 << register;
        match value {
            Some(value) => {
                self.general[usize::from(register)] = value;
                self.known |= bit;
            }
            None => self.known &= !bit,
        }
    }

    pub(super) fn set_rip(&mut self, rip: u64) {
        self.rip = rip;
    }
}
