//! How long a thread may stand still for one sample: memory that cannot be read any more when that is over.

use std::cell::Cell;

use profiler_memory::{ReadError, ReadMemory, ReadRequest};
use profiler_model::{Nanos, RemoteAddr, Timestamp};
use profiler_os::clock;

/// The longest stop for a sample. What is not copied by then is lost.
pub const LONGEST_STOP: Nanos = Nanos::from_nanos(2_000_000);

/// After half of that no further thread is looked at during the same stop.
const TIME_FOR_MORE: Nanos = Nanos::from_nanos(LONGEST_STOP.as_nanos() / 2);

/// So much is read without a look at the clock: a tenth of a millisecond.
const READS_AT_ONCE: usize = 128;

/// Until when memory is read.
#[derive(Debug)]
pub struct StopBound {
    began: Timestamp,
    longest: Option<Nanos>,
    is_over: Cell<bool>,
}

impl StopBound {
    /// A stop that begins at `now` and may last so long, or as long as it takes.
    pub fn new(now: Timestamp, longest: Option<Nanos>) -> Self {
        StopBound { began: now, longest, is_over: Cell::new(false) }
    }

    /// Whether something was not read because the time was over.
    pub fn has_cut(&self) -> bool {
        self.is_over.get()
    }

    /// Whether there is time for another thread.
    pub fn has_time_for_more(&self) -> bool {
        self.longest.is_none() || clock::now().since(self.began) < TIME_FOR_MORE
    }

    /// The memory, as long as there is time.
    pub fn memory<'a, M: ReadMemory>(&'a self, memory: &'a M) -> BoundedMemory<'a, M> {
        BoundedMemory { memory, bound: self }
    }

    fn is_over(&self) -> bool {
        let is_over = self.longest.is_some_and(|longest| clock::now().since(self.began) > longest);
        self.is_over.set(self.is_over.get() || is_over);
        is_over
    }
}

/// Memory that can be read for a while.
#[derive(Debug)]
pub struct BoundedMemory<'a, M> {
    memory: &'a M,
    bound: &'a StopBound,
}

impl<M: ReadMemory> ReadMemory for BoundedMemory<'_, M> {
    fn read(&self, at: RemoteAddr, into: &mut [u8]) -> Result<(), ReadError> {
        match self.bound.is_over() {
            true => Err(ReadError::Unmapped(at)),
            false => self.memory.read(at, into),
        }
    }

    fn read_batch(&self, requests: &mut [ReadRequest<'_>]) -> Result<usize, ReadError> {
        let mut filled = 0;
        for some in requests.chunks_mut(READS_AT_ONCE) {
            if self.bound.is_over() {
                break;
            }
            let read = self.memory.read_batch(some)?;
            filled += read;
            if read < some.len() {
                break;
            }
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use profiler_memory::Snapshot;

    use super::*;

    fn memory() -> Snapshot {
        let mut memory = Snapshot::new();
        memory.insert(RemoteAddr::new(0x1000), &[7; 0x1000]);
        memory
    }

    /// Reads so many bytes one by one, in one batch; returns how many were read.
    fn read_batch(memory: &impl ReadMemory, count: usize) -> usize {
        let mut bytes = vec![[0u8; 1]; count];
        let addresses = (0..count as u64).map(|offset| RemoteAddr::new(0x1000 + offset));
        let mut requests: Vec<_> =
            addresses.zip(&mut bytes).map(|(at, into)| ReadRequest::new(at, into)).collect();
        memory.read_batch(&mut requests).unwrap()
    }

    #[test]
    fn nothing_is_read_when_the_time_is_over() {
        let (memory, long_ago) = (memory(), Timestamp::from_nanos(1));
        let bound = StopBound::new(long_ago, Some(LONGEST_STOP));
        assert!(!bound.has_time_for_more() && !bound.has_cut(), "nothing was to be read yet");
        assert!(bound.memory(&memory).read(RemoteAddr::new(0x1000), &mut [0]).is_err());
        assert_eq!(read_batch(&bound.memory(&memory), 1_000), 0);
        assert!(bound.has_cut());
    }

    #[test]
    fn all_is_read_while_there_is_time_or_no_bound() {
        let memory = memory();
        let hour = Some(Nanos::from_nanos(3_600_000_000_000));
        for bound in [StopBound::new(clock::now(), hour), StopBound::new(Timestamp::from_nanos(1), None)] {
            assert_eq!(read_batch(&bound.memory(&memory), 1_000), 1_000);
            assert_eq!(read_batch(&bound.memory(&memory), 0x1001), 0x1000, "up to what cannot be read");
            assert!(!bound.has_cut());
        }
    }
}
