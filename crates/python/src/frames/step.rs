//! What a walk finds at one place: a frame, or the mark of a call from C into Python.

use profiler_memory::Field;
use profiler_model::RemoteAddr;

use super::WalkError;
use super::circle::Circle;
use super::raw_frame::RawFrame;
use crate::{FrameOffsets, InstructionPointer};

/// What stands at an address.
pub(super) struct Step {
    /// The frame of a Python function; `None` for the mark of a call from C into Python.
    pub frame: Option<RawFrame>,
    pub owner: Option<u8>,
    /// The caller's place.
    pub previous: RemoteAddr,
}

/// One frame of a walk that was copied elsewhere. A field that the version does not have is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopiedFrame {
    /// Where it lies.
    pub place: RemoteAddr,
    /// Its code object, without its tag; null for a shim.
    pub code: RemoteAddr,
    /// The eight bytes where its instruction begins.
    pub instruction: u64,
    /// Which copy of its bytecode it runs.
    pub bytecode_copy: u32,
    /// Its owner.
    pub owner: u8,
    /// Its mark that C called it.
    pub is_entry: u8,
}

impl CopiedFrame {
    pub(super) fn step(&self, offsets: &FrameOffsets) -> Result<Step, WalkError> {
        let owner = offsets.owner.map(|_| self.owner);
        let previous = RemoteAddr::NULL;
        if owner.is_some_and(|owner| offsets.shim_owners.contains(&owner)) {
            return Ok(Step { frame: None, owner, previous });
        }
        check_code(self.code, self.code)?;
        let frame = RawFrame {
            code: self.code,
            instruction: instruction(offsets, &self.instruction.to_le_bytes(), 0),
            bytecode_copy: offsets.bytecode_copy.map_or(0, |_| self.bytecode_copy),
            is_entry: is_entry(offsets, || self.is_entry),
        };
        Ok(Step { frame: Some(frame), owner, previous })
    }
}

/// Checks that a frame can lie here, and that the walk has not been here before.
pub(super) fn check_place(place: RemoteAddr, circle: &mut Circle) -> Result<(), WalkError> {
    if place != place.without_tag(3) {
        return Err(WalkError::BadPointer(place));
    }
    if circle.closes_with(place) { Err(WalkError::Circle) } else { Ok(()) }
}

/// Checks that `code` is a pointer; `tagged` is what was read.
pub(super) fn check_code(code: RemoteAddr, tagged: RemoteAddr) -> Result<(), WalkError> {
    let is_pointer = !code.is_null() && code == code.without_tag(3);
    if is_pointer { Ok(()) } else { Err(WalkError::BadPointer(tagged)) }
}

/// The instruction that stands in these bytes of a frame, from `at` on.
pub(super) fn instruction(offsets: &FrameOffsets, bytes: &[u8], at: u32) -> u64 {
    match offsets.instruction_pointer {
        InstructionPointer::ByteOffset | InstructionPointer::UnitOffset => {
            Field::<i32>::at(at).get(bytes).unwrap_or(-1) as i64 as u64
        }
        InstructionPointer::PreviousUnit | InstructionPointer::Current => {
            Field::<u64>::at(at).get(bytes).unwrap_or(0)
        }
    }
}

/// Whether a frame itself says that C called it. Frame objects have no mark: until 3.10 every call of a Python
/// function runs in an evaluation loop of its own.
pub(super) fn is_entry(offsets: &FrameOffsets, mark: impl FnOnce() -> u8) -> bool {
    match (offsets.is_entry, offsets.owner) {
        (Some(_), _) => mark() == 1,
        (None, Some(_)) => false,
        (None, None) => true,
    }
}
