//! Whether a walk has come to the root of the stack.

use profiler_memory::{ReadError, ReadMemory};
use profiler_model::RemoteAddr;

use super::step::Step;
use crate::{Offsets, StackRoot};

/// `owner` of the frame of a generator, 3.11 and later (`FRAME_OWNED_BY_GENERATOR`).
const OWNED_BY_GENERATOR: u8 = 1;

/// `owner` of a frame that is a part of its frame object, 3.11 and later (`FRAME_OWNED_BY_FRAME_OBJECT`).
const OWNED_BY_FRAME_OBJECT: u8 = 2;

/// The greatest offset in bytes of a compiled function's frame in its bytecode: it never moves from the beginning. A
/// generator's first `yield` comes after at least three instructions of two bytes.
const MAX_COMPILED_OFFSET: u32 = 2;

/// The greatest distance in bytes, in a frame object, from the field `f_frame` to the frame that the object holds.
const MAX_F_FRAME_DISTANCE: usize = 96;

/// Whether `last`, which lies at `place`, is the outermost frame. `end` is where it says that its caller is, and `base` the
/// sentinel at the root, if the version has one.
///
/// # Errors
/// When bytecode or the frame cannot be read.
pub(super) fn is_root(
    memory: &impl ReadMemory,
    offsets: &Offsets,
    base: Option<RemoteAddr>,
    (place, last): (RemoteAddr, &Step),
    end: RemoteAddr,
) -> Result<bool, ReadError> {
    match offsets.frame.root {
        StackRoot::Any => Ok(true),
        StackRoot::NotSuspended(opcodes) => Ok(!is_suspended(memory, last, opcodes)?),
        StackRoot::Shim => Ok(last.frame.is_none() || is_compiled(memory, offsets, place, last)?),
        StackRoot::BaseFrame => Ok(Some(end) == base),
    }
}

/// Whether a frame is that of a generator which stands at one of these opcodes. It says where its bytecode is, which
/// lasts as long as the generator, and in which these opcodes are never replaced.
fn is_suspended(memory: &impl ReadMemory, step: &Step, opcodes: &[u8]) -> Result<bool, ReadError> {
    match step.frame {
        Some(frame) if step.owner == Some(OWNED_BY_GENERATOR) => {
            let opcode: u8 = memory.scalar(RemoteAddr::new(frame.instruction))?;
            Ok(opcodes.contains(&opcode))
        }
        _ => Ok(false),
    }
}

/// Whether a frame is that of a compiled function, below which there is no shim. CPython itself runs no frame that
/// belongs to a frame object. A generator that it runs may have no caller for an instruction or two when it is entered, at its
/// beginning, and when it is left, further on: so a frame that says that it is a generator's must lie in a frame object.
fn is_compiled(
    memory: &impl ReadMemory,
    offsets: &Offsets,
    place: RemoteAddr,
    step: &Step,
) -> Result<bool, ReadError> {
    match (step.owner, step.frame) {
        (Some(OWNED_BY_FRAME_OBJECT), Some(_)) => Ok(true),
        (Some(OWNED_BY_GENERATOR), Some(frame)) => {
            let offset = frame.instruction_offset(memory, offsets)?;
            let is_at_its_beginning = offset.is_some_and(|offset| offset <= MAX_COMPILED_OFFSET);
            Ok(is_at_its_beginning && lies_in_frame_object(memory, place)?)
        }
        _ => Ok(false),
    }
}

/// Whether a frame lies in a frame object: that has the frame's address (`f_frame`) shortly before it. A generator, in which its
/// frame lies, does not have it.
fn lies_in_frame_object(memory: &impl ReadMemory, place: RemoteAddr) -> Result<bool, ReadError> {
    let mut before = [0u8; MAX_F_FRAME_DISTANCE];
    memory.read(RemoteAddr::new(place.as_u64().wrapping_sub(before.len() as u64)), &mut before)?;
    Ok(before.chunks_exact(8).any(|word| word == place.as_u64().to_le_bytes()))
}
