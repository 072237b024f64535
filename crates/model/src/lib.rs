//! The vocabulary of the profiler: ids, addresses, frames, thread states, outcomes and time.
//!
//! Depends on nothing and does nothing: no I/O, no clock. Every other crate speaks these words, so a
//! process id can never be taken for a thread id, nor a duration for an instant.
#![forbid(unsafe_code)]

mod address;
mod clock_reading;
mod frame;
mod id;
mod kernel_function;
mod other_python;
mod outcome;
mod plain;
mod registers;
mod sched_stat;
mod state;
mod time;
mod variable;

pub use address::RemoteAddr;
pub use clock_reading::ClockReading;
pub use frame::{Frame, FrameKind, Instruction, Position};
pub use id::{InterpreterId, ModuleNumber, NsTid, Pid, ThreadKey, Tid};
pub use kernel_function::KernelFunction;
pub use other_python::OtherPython;
pub use outcome::LossReason;
pub use plain::{is_unsafe, plain};
pub use registers::{GENERAL_REGISTERS, Registers};
pub use sched_stat::SchedStat;
pub use state::{ThreadState, WaitReason};
pub use time::{Nanos, Timestamp};
pub use variable::Variable;
