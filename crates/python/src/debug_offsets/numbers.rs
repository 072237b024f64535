//! The numbers of a `_Py_DebugOffsets`: which there are in each version, and what values they can have.

use profiler_memory::{Field, Scalar};

use crate::offsets::{OffsetsError, Version};

/// Each number after the cookie, in order: the first minor version that has it, and `structure.field` as
/// CPython names them.
pub(super) const ENTRIES: &[(u8, &str)] = &[
    (13, "version"),
    (13, "free_threaded"),
    (13, "runtime_state.size"),
    (13, "runtime_state.finalizing"),
    (13, "runtime_state.interpreters_head"),
    (13, "interpreter_state.size"),
    (13, "interpreter_state.id"),
    (13, "interpreter_state.next"),
    (13, "interpreter_state.threads_head"),
    (14, "interpreter_state.threads_main"),
    (13, "interpreter_state.gc"),
    (13, "interpreter_state.imports_modules"),
    (13, "interpreter_state.sysdict"),
    (13, "interpreter_state.builtins"),
    (13, "interpreter_state.ceval_gil"),
    (13, "interpreter_state.gil_runtime_state"),
    (13, "interpreter_state.gil_runtime_state_enabled"),
    (13, "interpreter_state.gil_runtime_state_locked"),
    (13, "interpreter_state.gil_runtime_state_holder"),
    (14, "interpreter_state.code_object_generation"),
    (14, "interpreter_state.tlbc_generation"),
    (13, "thread_state.size"),
    (13, "thread_state.prev"),
    (13, "thread_state.next"),
    (13, "thread_state.interp"),
    (13, "thread_state.current_frame"),
    (15, "thread_state.base_frame"),
    (15, "thread_state.last_profiled_frame"),
    (15, "thread_state.last_profiled_frame_seq"),
    (13, "thread_state.thread_id"),
    (13, "thread_state.native_thread_id"),
    (13, "thread_state.datastack_chunk"),
    (13, "thread_state.status"),
    (15, "thread_state.holds_gil"),
    (15, "thread_state.gil_requested"),
    (15, "thread_state.current_exception"),
    (15, "thread_state.exc_state"),
    (15, "err_stackitem.exc_value"),
    (13, "interpreter_frame.size"),
    (13, "interpreter_frame.previous"),
    (13, "interpreter_frame.executable"),
    (13, "interpreter_frame.instr_ptr"),
    (13, "interpreter_frame.localsplus"),
    (13, "interpreter_frame.owner"),
    (14, "interpreter_frame.stackpointer"),
    (14, "interpreter_frame.tlbc_index"),
    (13, "code_object.size"),
    (13, "code_object.filename"),
    (13, "code_object.name"),
    (13, "code_object.qualname"),
    (13, "code_object.linetable"),
    (13, "code_object.firstlineno"),
    (13, "code_object.argcount"),
    (13, "code_object.localsplusnames"),
    (13, "code_object.localspluskinds"),
    (13, "code_object.co_code_adaptive"),
    (14, "code_object.co_tlbc"),
    (13, "pyobject.size"),
    (13, "pyobject.ob_type"),
    (13, "type_object.size"),
    (13, "type_object.tp_name"),
    (13, "type_object.tp_repr"),
    (13, "type_object.tp_flags"),
    (15, "type_object.tp_basicsize"),
    (15, "type_object.tp_dictoffset"),
    (15, "heap_type_object.size"),
    (15, "heap_type_object.ht_cached_keys"),
    (13, "tuple_object.size"),
    (13, "tuple_object.ob_item"),
    (13, "tuple_object.ob_size"),
    (13, "list_object.size"),
    (13, "list_object.ob_item"),
    (13, "list_object.ob_size"),
    (14, "set_object.size"),
    (14, "set_object.used"),
    (14, "set_object.table"),
    (14, "set_object.mask"),
    (13, "dict_object.size"),
    (13, "dict_object.ma_keys"),
    (13, "dict_object.ma_values"),
    (13, "float_object.size"),
    (13, "float_object.ob_fval"),
    (13, "long_object.size"),
    (13, "long_object.lv_tag"),
    (13, "long_object.ob_digit"),
    (13, "bytes_object.size"),
    (13, "bytes_object.ob_size"),
    (13, "bytes_object.ob_sval"),
    (13, "unicode_object.size"),
    (13, "unicode_object.state"),
    (13, "unicode_object.length"),
    (13, "unicode_object.asciiobject_size"),
    (15, "unicode_object.compactunicodeobject_size"),
    (13, "gc.size"),
    (13, "gc.collecting"),
    (15, "gc.frame"),
    (15, "gc.generation_stats_size"),
    (15, "gc.generation_stats"),
    (14, "gen_object.size"),
    (14, "gen_object.gi_name"),
    (14, "gen_object.gi_iframe"),
    (14, "gen_object.gi_frame_state"),
];

/// `_PyRuntimeState` and `PyInterpreterState` measure some 350 KB in 3.15, most of it static objects and
/// small integers. Sixteen times that is no longer plausible.
const MAX_STATE_BYTES: u64 = 6 << 20;
/// `PyThreadState` measures under 1 KB.
pub(super) const MAX_THREAD_BYTES: u64 = 64 << 10;
/// All other structures measure under 1 KB; the collector's is the largest.
pub(super) const MAX_OBJECT_BYTES: u64 = 8 << 10;

fn number_at(bytes: &[u8], index: usize) -> Result<u64, OffsetsError> {
    Field::<u64>::at(index as u32 * 8).get(bytes).ok_or(OffsetsError::Truncated)
}

/// The most that a structure can plausibly measure.
fn plausible_size(structure: &str) -> u64 {
    match structure {
        "runtime_state" | "interpreter_state" => MAX_STATE_BYTES,
        "thread_state" => MAX_THREAD_BYTES,
        _ => MAX_OBJECT_BYTES,
    }
}

/// The numbers after the cookie, by name.
pub(super) struct Numbers<'a> {
    bytes: &'a [u8],
    version: Version,
}

impl<'a> Numbers<'a> {
    /// The numbers in these bytes, which follow the cookie. The first of them is the version.
    ///
    /// # Errors
    /// When there is none.
    pub fn new(bytes: &'a [u8]) -> Result<Self, OffsetsError> {
        Ok(Numbers { bytes, version: Version::from_hex(number_at(bytes, 0)?) })
    }

    /// The version of the interpreter.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Where `name` stands in this version, `None` where it has no such number.
    pub fn position(&self, name: &str) -> Option<usize> {
        ENTRIES.iter().filter(|(since, _)| *since <= self.version.minor).position(|(_, entry)| *entry == name)
    }

    pub fn number(&self, name: &'static str) -> Result<u64, OffsetsError> {
        let index = self.position(name).ok_or(OffsetsError::UnknownVersion(self.version))?;
        number_at(self.bytes, index)
    }

    /// The size of the structure of field `name`, checked.
    pub fn structure_size(&self, name: &'static str) -> Result<u64, OffsetsError> {
        let structure = name.split('.').next().unwrap_or_default();
        let index = ENTRIES
            .iter()
            .filter(|(since, _)| *since <= self.version.minor)
            .position(|(_, entry)| entry.strip_suffix(".size") == Some(structure));
        let size = number_at(self.bytes, index.ok_or(OffsetsError::UnknownVersion(self.version))?)?;
        if size == 0 || size > plausible_size(structure) {
            return Err(OffsetsError::Implausible { field: name, value: size });
        }
        Ok(size)
    }

    /// A field's offset: aligned for its width and inside its structure.
    pub fn field<T: Scalar>(&self, name: &'static str) -> Result<Field<T>, OffsetsError> {
        self.neighbour(name, 0)
    }

    /// The field that lies `distance` bytes after the described field `name`, checked like it.
    pub fn neighbour<T: Scalar>(&self, name: &'static str, distance: u64) -> Result<Field<T>, OffsetsError> {
        let value = self.number(name)?;
        let implausible = OffsetsError::Implausible { field: name, value };
        let offset = value.checked_add(distance).ok_or(implausible)?;
        let end = offset.checked_add(T::WIDTH as u64).ok_or(implausible)?;
        if offset % T::WIDTH as u64 != 0 || end > self.structure_size(name)? {
            return Err(implausible);
        }
        u32::try_from(offset).map(Field::at).map_err(|_| implausible)
    }
}
