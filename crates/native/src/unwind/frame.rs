//! What a walk finds: frames and an end.

use profiler_model::RemoteAddr;

use crate::modules::{CodeAddress, ModuleIndex};

/// How a frame came to its program counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NativeFrameKind {
    /// The thread was there, or a signal interrupted it there: the instruction has not run yet.
    Interrupted,
    /// It called the frame before it. The program counter is a return address.
    Called,
    /// The frame that the kernel made to run a signal handler. The program counter is where the handler returns to.
    Signal,
}

/// A frame of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NativeFrame {
    /// The identity of the instruction that the frame is at, by which it is named: of the last byte of the call in a frame that
    /// called another.
    pub address: CodeAddress,
    /// The program counter in the process.
    pub pc: RemoteAddr,
    /// The stack pointer in the frame: frames of another kind, such as Python's, are put in their place by it.
    pub stack_pointer: RemoteAddr,
    /// How it came there.
    pub kind: NativeFrameKind,
}

/// Why a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnwindEnd {
    /// The last frame is where the thread began: its stack is complete.
    Root,
    /// There is no rule for the last frame, and its code does not prove where its return address is.
    NoRule(ModuleIndex),
    /// The rule of the last frame needs a register whose value is not known.
    UnknownRegister(ModuleIndex),
    /// The rule of the last frame needs memory that cannot be read.
    Unreadable(RemoteAddr),
    /// By its rule the last frame would have its caller at the same place of the stack or below.
    NotUpwards(ModuleIndex),
    /// The last frame has a return address without executable code.
    NoModule(RemoteAddr),
    /// The last frame was found by its instructions, but its return address does not follow a call.
    NoCall(ModuleIndex),
    /// There are more frames than the limit.
    TooDeep,
}
