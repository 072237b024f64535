//! The attributes of an instance: where its type says that they are, or where the interpreter keeps them for
//! it. Attributes of the class, slots and properties are not found here.

use profiler_memory::{ReadError, ReadMemory};
use profiler_model::RemoteAddr;

use crate::dict::{self, Entry};
use crate::{ManagedAttributes, Offsets};

/// The most attributes that an instance may have, deleted ones included. A module, which is an instance too,
/// has some hundred, a thread fewer.
const MAX_ATTRIBUTES: u32 = 4096;

/// `Py_TPFLAGS_MANAGED_DICT`: the interpreter decides where the attributes are.
const MANAGED_DICT: u64 = 1 << 4;

/// `Py_TPFLAGS_INLINE_VALUES`: they may follow the object.
const INLINE_VALUES: u64 = 1 << 2;

/// Where the attributes of one instance are.
enum Attributes {
    None,
    Dict(RemoteAddr),
    /// Values whose keys are those of the type.
    Values {
        keys: RemoteAddr,
        values: RemoteAddr,
    },
}

/// The attributes that the instance at `instance` has of its own.
pub(crate) fn attributes(
    memory: &impl ReadMemory,
    offsets: &Offsets,
    instance: RemoteAddr,
) -> Result<Vec<Entry>, ReadError> {
    match locate(memory, offsets, instance)? {
        Attributes::None => Ok(Vec::new()),
        Attributes::Dict(dict) if dict.is_null() => Ok(Vec::new()),
        Attributes::Dict(dict) => dict::entries(memory, offsets, dict, MAX_ATTRIBUTES),
        Attributes::Values { keys, values } => {
            dict::split_entries(memory, offsets, keys, values, MAX_ATTRIBUTES)
        }
    }
}

fn locate(
    memory: &impl ReadMemory,
    offsets: &Offsets,
    instance: RemoteAddr,
) -> Result<Attributes, ReadError> {
    let object_type = memory.field(instance, offsets.object.object_type)?;
    let flags = memory.field(object_type, offsets.object.type_flags)?;
    let managed = offsets.object.managed_attributes;
    if managed == ManagedAttributes::None || flags & MANAGED_DICT == 0 {
        let offset = memory.field(object_type, offsets.object.type_dict_offset)?;
        // Zero: there is no dictionary. Negative: it lies behind items of variable number; neither modules
        // nor threads have such.
        return match u64::try_from(offset) {
            Ok(0) | Err(_) => Ok(Attributes::None),
            Ok(offset) => memory.scalar(instance.offset(offset)).map(Attributes::Dict),
        };
    }
    let before = |bytes: u32| memory.scalar::<RemoteAddr>(instance.offset(u64::from(bytes).wrapping_neg()));
    let own_values = |values| {
        let keys = memory.field(object_type, offsets.object.type_cached_keys)?;
        Ok(Attributes::Values { keys, values })
    };
    match managed {
        ManagedAttributes::None => Ok(Attributes::None),
        ManagedAttributes::ValuesOrDict { values_before, dict_before } => {
            let values = before(values_before)?;
            if values.is_null() { before(dict_before).map(Attributes::Dict) } else { own_values(values) }
        }
        ManagedAttributes::Tagged { before: pointer_before } => {
            let pointer = before(pointer_before)?;
            let is_values = pointer.as_u64() & 1 == 1;
            if is_values { own_values(pointer.offset(1)) } else { Ok(Attributes::Dict(pointer)) }
        }
        ManagedAttributes::Inline { dict_before } => {
            let dict = before(dict_before)?;
            if !dict.is_null() || flags & INLINE_VALUES == 0 {
                return Ok(Attributes::Dict(dict));
            }
            let size = memory.field(object_type, offsets.object.type_basic_size)?;
            own_values(instance.offset(size as u64))
        }
    }
}
