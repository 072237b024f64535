//! The variables of a frame: which there are, by its code object, and where each one's value is.
//!
//! What they are worth is for [`Values`](crate::Values). All of this is true only of memory that stands still:
//! see [`BatchedReader`](profiler_memory::BatchedReader) for a way to get such.

use profiler_memory::{ReadError, ReadMemory};
use profiler_model::{RemoteAddr, Variable};

use crate::repr::Values;
use crate::strings::{read_bytes, read_string};
use crate::value_offsets::{CELL, FREE};
use crate::{RawFrame, VariableLayout};

/// The most variables of a frame. CPython's instructions can name more, but no one writes that many; a frame
/// that claims more is not what it seems.
pub const MAX_VARIABLES: u64 = 1024;

/// Stands for a name that cannot be read.
const UNREADABLE_NAME: &str = "?";

/// `CO_VARARGS` and `CO_VARKEYWORDS`.
const STAR_FLAGS: [i32; 2] = [4, 8];

/// A variable before its name and value are read.
struct Slot {
    name: RemoteAddr,
    place: RemoteAddr,
    is_cell: bool,
    is_argument: bool,
}

/// The variables of `frame`, which lies at `place`, parameters first. Variables without a value, not yet or
/// not any more, are left out.
///
/// # Errors
/// When the frame or its code object cannot be read, or have more variables than [`MAX_VARIABLES`].
pub fn variables<M: ReadMemory>(
    values: &Values<'_, M>,
    place: RemoteAddr,
    frame: &RawFrame,
) -> Result<Vec<Variable>, ReadError> {
    let slots = slots(values, place, frame.code)?;
    let mut variables: Vec<Variable> = Vec::with_capacity(slots.len());
    for slot in slots {
        let name = read_string(values.memory, values.offsets, slot.name);
        let (address, value) = match slot_value(values, &slot) {
            Ok(None) => continue,
            Ok(Some(address)) => (address, values.repr(address)),
            Err(_) => (RemoteAddr::NULL, None),
        };
        let name = name.unwrap_or_else(|_| UNREADABLE_NAME.to_owned());
        variables.push(Variable { name, address, is_argument: slot.is_argument, value });
    }
    variables.sort_by_key(|variable| !variable.is_argument);
    Ok(variables)
}

/// Where the value is that the variable has.
fn slot_value<M: ReadMemory>(values: &Values<'_, M>, slot: &Slot) -> Result<Option<RemoteAddr>, ReadError> {
    let tagged: RemoteAddr = values.memory.scalar(slot.place)?;
    let mut value = tagged.without_tag(values.offsets.frame.code_tag_bits);
    if !value.is_null() && slot.is_cell && values.is_cell(value)? {
        value = values.memory.scalar(value.offset(values.offsets.values.body.into()))?;
    }
    Ok((!value.is_null()).then_some(value))
}

/// All variables that the code object names, in the order in which they lie in the frame.
fn slots<M: ReadMemory>(
    values: &Values<'_, M>,
    place: RemoteAddr,
    code: RemoteAddr,
) -> Result<Vec<Slot>, ReadError> {
    let (memory, offsets) = (values.memory, &values.offsets.values);
    let arguments = argument_count(values, code)?;
    let mut slots: Vec<Slot> = Vec::new();
    let mut add = |name: RemoteAddr, is_cell: bool, is_argument: bool| {
        let place = place.offset(u64::from(offsets.frame_variables) + 8 * slots.len() as u64);
        slots.push(Slot { name, place, is_cell, is_argument });
    };
    match offsets.variables {
        VariableLayout::Together { names, kinds } => {
            let names = values.tuple(memory.field(code, names)?, MAX_VARIABLES)?;
            let kinds = memory.field(code, kinds)?;
            let kinds = read_bytes(memory, values.offsets, kinds, MAX_VARIABLES as usize)?;
            for (index, (name, kind)) in names.into_iter().zip(kinds).enumerate() {
                add(name, kind & (CELL | FREE) != 0, index < arguments);
            }
        }
        VariableLayout::Apart { locals, shared, outer } => {
            let names = values.tuple(memory.field(code, locals)?, MAX_VARIABLES)?;
            let parameters = names.get(..arguments).unwrap_or_default().to_vec();
            for (index, name) in names.into_iter().enumerate() {
                add(name, false, index < arguments);
            }
            for names in [shared, outer] {
                for name in values.tuple(memory.field(code, names)?, MAX_VARIABLES)? {
                    // A parameter that inner functions share has moved here; names are interned.
                    add(name, true, parameters.contains(&name));
                }
            }
        }
    }
    Ok(slots)
}

/// How many parameters the function has, `*args` and `**kwargs` included: they are its first variables.
fn argument_count<M: ReadMemory>(values: &Values<'_, M>, code: RemoteAddr) -> Result<usize, ReadError> {
    let offsets = &values.offsets.values;
    let counts = [offsets.arguments, offsets.keyword_arguments];
    let flags = values.memory.field(code, offsets.code_flags)?;
    let mut sum = STAR_FLAGS.iter().filter(|flag| flags & **flag != 0).count();
    for count in counts {
        let count: i32 = values.memory.field(code, count)?;
        sum = sum.saturating_add(usize::try_from(count).unwrap_or_default());
    }
    Ok(sum)
}
