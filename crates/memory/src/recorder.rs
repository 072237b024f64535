//! Notes everything that is read through it, so that exactly the memory a walk needs can be stored.

use std::cell::RefCell;

use profiler_model::RemoteAddr;

use crate::{ReadError, ReadMemory, Snapshot};

/// Passes reads on and keeps what they returned.
#[derive(Debug)]
pub struct Recorder<M> {
    memory: M,
    seen: RefCell<Snapshot>,
}

impl<M: ReadMemory> Recorder<M> {
    /// A recorder in front of `memory`.
    pub fn new(memory: M) -> Self {
        Recorder { memory, seen: RefCell::default() }
    }

    /// Everything that was read so far.
    pub fn into_snapshot(self) -> Snapshot {
        self.seen.into_inner()
    }
}

impl<M: ReadMemory> ReadMemory for Recorder<M> {
    fn read(&self, at: RemoteAddr, into: &mut [u8]) -> Result<(), ReadError> {
        self.memory.read(at, into)?;
        self.seen.borrow_mut().insert(at, into);
        Ok(())
    }
}
