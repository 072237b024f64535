//! The GIL's state, as three numbers, and what two readings of it prove.

use profiler_memory::{Field, ReadError, ReadMemory};
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
    /// From the fields; on 3.6 without symbols nothing tells the number of switches.
    fn new(last_holder: RemoteAddr, locked: i32, switches: Option<u64>) -> Self {
        GilState { last_holder, locked: locked == 1, exists: locked != -1, switches: switches.unwrap_or(0) }
    }

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

/// The fields lie in one structure, and one read gets them all; only 3.6 has separate variables.
const MAX_SPAN: usize = 64;

/// Reads the GIL's state.
///
/// # Errors
/// When it cannot be read.
pub fn read(memory: &impl ReadMemory, gil: &GilAddresses) -> Result<GilState, ReadError> {
    let places = [Some(gil.last_holder), Some(gil.locked), gil.switch_number];
    let (mut first, mut last) = (gil.last_holder, gil.last_holder);
    for place in places.into_iter().flatten() {
        (first, last) = (first.min(place), last.max(place));
    }
    let mut span = [0u8; MAX_SPAN];
    let length = last.checked_distance_from(first).map_or(MAX_SPAN, |distance| distance as usize + 8);
    if length < MAX_SPAN {
        memory.read(first, &mut span[..length])?;
        let offset = |place: RemoteAddr| place.checked_distance_from(first).unwrap_or(0) as u32;
        Ok(GilState::new(
            Field::at(offset(gil.last_holder)).get(&span).unwrap_or_default(),
            Field::at(offset(gil.locked)).get(&span).unwrap_or_default(),
            gil.switch_number.and_then(|place| Field::at(offset(place)).get(&span)),
        ))
    } else {
        let switches = gil.switch_number.map(|place| memory.scalar(place)).transpose()?;
        Ok(GilState::new(memory.scalar(gil.last_holder)?, memory.scalar(gil.locked)?, switches))
    }
}
