//! The registers of a stopped thread.

use crate::RemoteAddr;

/// The number of general registers.
pub const GENERAL_REGISTERS: usize = 16;

/// The registers of a thread in user space that its stack is unwound from, on x86-64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// The general registers in the numbering of DWARF: rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp, r8 to r15 (System V ABI, AMD64
    /// supplement, figure 3.36).
    pub general: [u64; GENERAL_REGISTERS],
    /// The program counter.
    pub instruction_pointer: u64,
}

impl Registers {
    /// The number of rsp.
    pub const STACK_POINTER: usize = 7;

    /// The stack pointer.
    pub fn stack_pointer(&self) -> RemoteAddr {
        RemoteAddr::new(self.general[Self::STACK_POINTER])
    }
}
