//! One frame of a stack, and where in its bytecode it stands.

use profiler_memory::{ReadError, ReadMemory};
use profiler_model::RemoteAddr;

use crate::{InstructionPointer, Offsets};

/// One frame, as it lies in the target's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RawFrame {
    /// Its code object.
    pub code: RemoteAddr,
    /// The instruction field: an offset or an address, see [`InstructionPointer`].
    pub instruction: u64,
    /// Free-threaded 3.14+: which of its code object's copies of the bytecode `instruction` points into, as
    /// each thread runs its own; 0 is the code object's own bytecode, as everywhere else.
    pub bytecode_copy: u32,
    /// Whether C code called this frame.
    pub is_entry: bool,
}

impl RawFrame {
    /// The offset in bytes of the frame's instruction in the bytecode of its code object; `None` if the frame has not
    /// started or the instruction lies outside.
    ///
    /// # Errors
    /// When the place of the copy that the frame runs cannot be read.
    pub fn instruction_offset(
        &self,
        memory: &impl ReadMemory,
        offsets: &Offsets,
    ) -> Result<Option<u32>, ReadError> {
        let units = u32::try_from(self.instruction as i32).ok();
        match offsets.frame.instruction_pointer {
            InstructionPointer::ByteOffset => Ok(units),
            InstructionPointer::UnitOffset => Ok(units.and_then(|units| units.checked_mul(2))),
            InstructionPointer::PreviousUnit | InstructionPointer::Current => {
                let bytecode = self.bytecode(memory, offsets)?;
                let distance = RemoteAddr::new(self.instruction).checked_distance_from(bytecode);
                Ok(distance.and_then(|distance| u32::try_from(distance).ok()))
            }
        }
    }

    /// Reads the interpreter frame at `place`, which is on no stack: that of a coroutine.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn read(
        memory: &impl ReadMemory,
        offsets: &Offsets,
        place: RemoteAddr,
    ) -> Result<Self, ReadError> {
        let frame = &offsets.frame;
        let tagged: RemoteAddr = memory.field(place, frame.code)?;
        let copy = frame.bytecode_copy.map(|field| memory.field(place, field)).transpose()?;
        Ok(RawFrame {
            code: tagged.without_tag(frame.code_tag_bits),
            instruction: memory.scalar(place.offset(frame.instruction.into()))?,
            bytecode_copy: copy.and_then(|index| u32::try_from(index).ok()).unwrap_or(0),
            is_entry: false,
        })
    }

    /// Where the bytecode is that the frame runs.
    fn bytecode(&self, memory: &impl ReadMemory, offsets: &Offsets) -> Result<RemoteAddr, ReadError> {
        match offsets.code.bytecode_copies {
            // `_PyCodeArray`: how many there are, then a pointer to each.
            Some(copies) if self.bytecode_copy > 0 => {
                let copies = memory.field(self.code, copies)?;
                let index = u64::from(self.bytecode_copy);
                let count: u64 = memory.scalar(copies)?;
                if index >= count {
                    return Err(ReadError::TooLong { at: copies, length: index, limit: count });
                }
                memory.scalar(copies.offset((index + 1) * 8))
            }
            _ => Ok(self.code.offset(u64::from(offsets.code.bytecode.unwrap_or_default()))),
        }
    }
}
