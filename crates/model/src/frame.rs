//! A resolved frame of a stack: everything that is known of it. Views choose what they show.

use std::sync::Arc;

use crate::RemoteAddr;

/// What kind of code a frame belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameKind {
    /// A function of Python code.
    #[default]
    Python,
    /// A function of compiled code.
    Native,
    /// A function that the compiler inlined into the native frame below it.
    Inlined,
    /// A function of the kernel.
    Kernel,
    /// Not code, but a mark on the stack: `<gc>`, `<truncated>`.
    Marker,
}

/// The place in the source that a frame is at. Lines count from 1, columns (in UTF-8 bytes, as CPython
/// counts them) from 0, the end column is one past the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line.
    pub line: Option<u32>,
    /// The last line of the expression.
    pub end_line: Option<u32>,
    /// The first column of the expression on `line`.
    pub column: Option<u32>,
    /// The column after the expression on `end_line`.
    pub end_column: Option<u32>,
}

/// The bytecode instruction that a Python frame is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instruction {
    /// Its offset in bytes from the start of the code object's bytecode.
    pub offset: u32,
    /// The opcode, where it was read.
    pub opcode: Option<u8>,
    /// Whether it runs specialised (3.11+), where that was read.
    pub specialised: Option<bool>,
}

/// One frame of a resolved stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Frame {
    /// What kind of code it is.
    pub kind: FrameKind,
    /// The function's name, qualified where there is a qualified name.
    pub function: Arc<str>,
    /// The source file as the code names it; empty where there is none.
    pub file: Arc<str>,
    /// The source file without the folders that lie above its package; what views show by default.
    pub short_file: Arc<str>,
    /// The module (the package or shared library) where it is known.
    pub module: Option<Arc<str>>,
    /// The line on which the function starts.
    pub first_line: Option<u32>,
    /// Where in the source the frame is.
    pub position: Position,
    /// The instruction, for Python frames.
    pub instruction: Option<Instruction>,
    /// The program counter, for native frames.
    pub address: Option<RemoteAddr>,
    /// Whether C code called this Python frame: native frames stand between it and its caller.
    pub is_entry: bool,
}
