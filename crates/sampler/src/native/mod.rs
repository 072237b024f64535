//! Processes without Python, sampled from outside.
//!
//! Threads that run are stopped, one after the other, for as long as it takes to copy their registers and the top of their stack. They
//! are unwound when they run on. A sleeping thread is never stopped: its system call would be interrupted.

mod capture;
mod process;
mod stack_copy;
mod unwinder;

pub use process::{NativeProcess, ProcessCode};
