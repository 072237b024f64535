//! The GIL's state, as three numbers, and what two readings of it prove.

use profiler_memory::{Field, ReadError, ReadMemory, ReadRequest};
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
    /// The count of its interpreter's code objects, see [`profiler_python::CodeCount`], where it was read and proves anything.
    pub code_count: Option<u64>,
    /// How often it passed from one thread to another; 0 where that is not told.
    switches: u64,
}

impl GilState {
    /// From the fields; on 3.6 without symbols nothing tells the number of switches.
    fn new(last_holder: RemoteAddr, locked: i32, switches: Option<u64>) -> Self {
        GilState {
            last_holder,
            locked: locked == 1,
            exists: locked != -1,
            code_count: None,
            switches: switches.unwrap_or(0),
        }
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
const MAX_SPAN: usize = 320;

/// Memory that holds all fields of a GIL.
#[derive(Debug)]
pub struct GilSpan {
    at: RemoteAddr,
    length: usize,
    bytes: [u8; MAX_SPAN],
    /// The count of code objects.
    count: [u8; size_of::<u64>()],
}

impl GilSpan {
    /// Where the fields of `gil` lie; `None` where they lie too far apart.
    pub fn of(gil: &GilAddresses) -> Option<Self> {
        let places = [Some(gil.last_holder), Some(gil.locked), gil.switch_number];
        let at = places.into_iter().flatten().min()?;
        let last = places.into_iter().flatten().max()?;
        let length = last.checked_distance_from(at)? as usize + size_of::<u64>();
        (length <= MAX_SPAN).then_some(GilSpan {
            at,
            length,
            bytes: [0; MAX_SPAN],
            count: [0; size_of::<u64>()],
        })
    }

    /// The request that fills it, but for the count of code objects.
    pub fn request(&mut self) -> ReadRequest<'_> {
        ReadRequest::new(self.at, &mut self.bytes[..self.length])
    }

    /// The requests that fill all of it.
    pub fn requests(&mut self, gil: &GilAddresses) -> Vec<ReadRequest<'_>> {
        let mut requests = vec![ReadRequest::new(self.at, &mut self.bytes[..self.length])];
        if let Some(place) = gil.code_count
            && let Some(into) = self.count.get_mut(..place.bytes as usize)
        {
            requests.push(ReadRequest::new(place.at, into));
        }
        requests
    }

    /// The state that was read.
    pub fn state(&self, gil: &GilAddresses) -> GilState {
        let offset = |place: RemoteAddr| place.checked_distance_from(self.at).unwrap_or(0) as u32;
        let state = GilState::new(
            Field::at(offset(gil.last_holder)).get(&self.bytes).unwrap_or_default(),
            Field::at(offset(gil.locked)).get(&self.bytes).unwrap_or_default(),
            gil.switch_number.and_then(|place| Field::at(offset(place)).get(&self.bytes)),
        );
        let code_count = Some(u64::from_le_bytes(self.count)).filter(|count| *count != 0);
        GilState { code_count, ..state }
    }
}

/// Reads the GIL's state.
///
/// # Errors
/// When it cannot be read.
pub fn read(memory: &impl ReadMemory, gil: &GilAddresses) -> Result<GilState, ReadError> {
    match GilSpan::of(gil) {
        Some(mut span) => {
            let request = span.request();
            memory.read(request.at, request.into)?;
            Ok(span.state(gil))
        }
        None => {
            let switches = gil.switch_number.map(|place| memory.scalar(place)).transpose()?;
            Ok(GilState::new(memory.scalar(gil.last_holder)?, memory.scalar(gil.locked)?, switches))
        }
    }
}
