//! A Python thread: a thread state and the kernel thread that runs it.

use std::ops::{Deref, DerefMut};

use profiler_model::ThreadState;
use profiler_python::{GilAddresses, PyThreadState};

use crate::roster::{KernelThread, OnKernelThread};

/// A Python thread. It dereferences to its kernel thread.
#[derive(Debug)]
pub struct Thread {
    /// Its kernel thread.
    pub kernel: KernelThread,
    /// Its thread state.
    pub python: PyThreadState,
    /// The interpreter, as an index into [`ThreadTable::interpreters`](super::ThreadTable::interpreters).
    pub interpreter: usize,
    /// Whether the list of its interpreter had its thread state when that was read. A thread of C code that calls Python
    /// now and then (`PyGILState_Ensure`) has a new thread state in each call, mostly at the same address: between
    /// calls it stays known, so that its clocks are read on and the next call is noticed.
    pub is_listed: bool,
}

impl Thread {
    /// The state of the thread at the last look; a futex inside the structure of `gil` is the GIL's.
    pub fn state(&self, gil: Option<&GilAddresses>) -> ThreadState {
        match (self.activity.futex(), gil) {
            (Some(futex), Some(gil)) if (gil.start..gil.end).contains(&futex) => ThreadState::WaitingForGil,
            _ => self.kernel.state(),
        }
    }
}

impl Deref for Thread {
    type Target = KernelThread;

    fn deref(&self) -> &KernelThread {
        &self.kernel
    }
}

impl DerefMut for Thread {
    fn deref_mut(&mut self) -> &mut KernelThread {
        &mut self.kernel
    }
}

impl OnKernelThread for Thread {
    fn kernel(&self) -> &KernelThread {
        &self.kernel
    }

    fn kernel_mut(&mut self) -> &mut KernelThread {
        &mut self.kernel
    }
}
