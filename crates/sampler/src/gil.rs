//! The GIL's state, as three numbers, and what two readings of it prove.

use profiler_memory::{ReadError, ReadMemory, ReadRequest};
use profiler_model::RemoteAddr;
use profiler_python::GilAddresses;

/// The GIL's state at an instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GilState {
    /// The thread state that holds it, or held it last.
    pub last_holder: RemoteAddr,
    /// Whether it is held.
    pub locked: bool,
    /// Whether it exists: 3.6 makes it with the second thread only.
    pub exists: bool,
    /// How often it passed from one thread to another; 0 where that is not told.
    switches: u64,
}

impl GilState {
    /// The thread state that holds the GIL now.
    pub fn holder(&self) -> Option<RemoteAddr> {
        self.locked.then_some(self.last_holder)
    }

    /// Whether no thread but [`GilState::last_holder`] can have held the GIL between this reading and a
    /// later one. (The last holder itself can have let it go and taken it again without a trace.)
    pub fn nobody_else_took_it(&self, later: &GilState) -> bool {
        self.last_holder == later.last_holder && self.switches == later.switches
    }
}

/// A place into which the GIL's state is read as part of a batch.
#[derive(Debug, Default)]
pub struct GilReading {
    last_holder: [u8; 8],
    locked: [u8; 4],
    switches: [u8; 8],
}

impl GilReading {
    /// How many requests [`GilReading::requests`] makes.
    pub const REQUESTS: usize = 3;

    /// The requests that fill this reading. On 3.6 without symbols nothing tells the number of switches;
    /// the last request then reads the holder again.
    pub fn requests(&mut self, gil: &GilAddresses) -> [ReadRequest<'_>; Self::REQUESTS] {
        [
            ReadRequest::new(gil.last_holder, &mut self.last_holder),
            ReadRequest::new(gil.locked, &mut self.locked),
            ReadRequest::new(gil.switch_number.unwrap_or(gil.last_holder), &mut self.switches),
        ]
    }

    /// The state that was read.
    pub fn state(&self, gil: &GilAddresses) -> GilState {
        GilState {
            last_holder: RemoteAddr::new(u64::from_le_bytes(self.last_holder)),
            locked: i32::from_le_bytes(self.locked) == 1,
            exists: i32::from_le_bytes(self.locked) != -1,
            switches: if gil.switch_number.is_some() { u64::from_le_bytes(self.switches) } else { 0 },
        }
    }
}

/// Reads the GIL's state.
///
/// # Errors
/// When it cannot be read.
pub fn read(memory: &impl ReadMemory, gil: &GilAddresses) -> Result<GilState, ReadError> {
    let mut reading = GilReading::default();
    let filled = memory.read_batch(&mut reading.requests(gil))?;
    if filled < GilReading::REQUESTS {
        return Err(ReadError::Unmapped(gil.last_holder));
    }
    Ok(reading.state(gil))
}
