//! CPython 3.13 and later describe themselves: `_PyRuntime` starts with a `_Py_DebugOffsets`.
//!
//! The structure is a cookie and then 64-bit numbers, each the size of a structure or the offset of a field
//! in one. Between minor versions numbers were only ever inserted, so one list with the version each
//! appeared in describes all layouts; bug-fix releases do not change it. Nothing in it is believed: every
//! number that is used is checked once against the size of its structure, its own width and what such a
//! structure can plausibly measure.
//!
//! What it does not say either follows from what it does (the neighbour of a described field) or is
//! tabulated here; `cargo xtask check-offsets` compares both with the headers.

use profiler_memory::{Field, Scalar};

use crate::GeneratorOffsets;
use crate::offsets::{
    BytesOffsets, CodeCount, CodeOffsets, DictOffsets, FrameLayout, FrameOffsets, GilOffsets,
    InstructionPointer, InterpreterOffsets, LineTableFormat, LongOffsets, ManagedAttributes, ObjectOffsets,
    Offsets, OffsetsError, RuntimeOffsets, StackRoot, ThreadOffsets, UnicodeOffsets, Version,
};
use crate::value_offsets::{ValueOffsets, VariableLayout};
use crate::versions::check_frozen;

/// What the structure starts with.
pub const COOKIE: &[u8; 8] = b"xdebugpy";

/// Bytes that hold the structure of every version known here: what to read before [`parse`].
pub const MAX_DEBUG_OFFSETS_BYTES: usize = COOKIE.len() + ENTRIES.len() * 8;

/// Each number after the cookie, in order: the first minor version that has it, and `structure.field` as
/// CPython names them.
const ENTRIES: &[(u8, &str)] = &[
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
const MAX_THREAD_BYTES: u64 = 64 << 10;
/// All other structures measure under 1 KB; the collector's is the largest.
const MAX_OBJECT_BYTES: u64 = 8 << 10;

/// Reads and checks the debug offsets in `bytes`, which start with the cookie and should be
/// [`MAX_DEBUG_OFFSETS_BYTES`] long.
///
/// # Errors
/// When they are no debug offsets, of an unknown version, or hold anything that cannot be.
pub fn parse(bytes: &[u8]) -> Result<Offsets, OffsetsError> {
    let numbers = bytes.strip_prefix(COOKIE).ok_or(OffsetsError::NoCookie)?;
    let version = Version::from_hex(number_at(numbers, 0)?);
    if version.major != 3 || !(13..=15).contains(&version.minor) {
        return Err(OffsetsError::UnknownVersion(version));
    }
    check_frozen(version)?;
    let described = Described { numbers, version };
    let free_threaded = match described.number("free_threaded")? {
        0 => false,
        1 => true,
        value => return Err(OffsetsError::Implausible { field: "free_threaded", value }),
    };
    let state =
        |name: &'static str| -> Result<u32, OffsetsError> { described.field::<u64>(name).map(Field::offset) };
    let offsets = Offsets {
        version,
        free_threaded,
        runtime: RuntimeOffsets {
            interpreters_head: described.field("runtime_state.interpreters_head")?,
            gil: None,
            gc_collecting: None,
        },
        interpreter: InterpreterOffsets {
            next: described.field("interpreter_state.next")?,
            id: Some(described.field("interpreter_state.id")?),
            threads_head: described.field("interpreter_state.threads_head")?,
            gil: Some(described.field("interpreter_state.ceval_gil")?),
            gc_collecting: Some(Field::at(
                state("interpreter_state.gc")? + described.field::<i32>("gc.collecting")?.offset(),
            )),
            modules: described.field("interpreter_state.imports_modules")?,
            code_count: described.code_count(free_threaded)?,
        },
        gil: described.gil(free_threaded)?,
        thread: described.thread()?,
        frame: described.frame(free_threaded)?,
        code: described.code(free_threaded)?,
        object: described.object(free_threaded)?,
        unicode: described.unicode(free_threaded)?,
        bytes: BytesOffsets {
            length: described.field("bytes_object.ob_size")?,
            data: described.field::<u8>("bytes_object.ob_sval")?.offset(),
        },
        dict: described.dict()?,
        long: LongOffsets {
            size: described.field("long_object.lv_tag")?,
            tag_bits: 3,
            digits: described.field::<u32>("long_object.ob_digit")?.offset(),
        },
        // Only asyncio's tasks need them.
        generators: described.generators()?,
        values: described.values()?,
    };
    Ok(offsets.with_sizes())
}

fn number_at(numbers: &[u8], index: usize) -> Result<u64, OffsetsError> {
    Field::<u64>::at(index as u32 * 8).get(numbers).ok_or(OffsetsError::Truncated)
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
struct Described<'a> {
    numbers: &'a [u8],
    version: Version,
}

impl Described<'_> {
    /// Where `name` stands in this version, `None` where it has no such number.
    fn position(&self, name: &str) -> Option<usize> {
        ENTRIES.iter().filter(|(since, _)| *since <= self.version.minor).position(|(_, entry)| *entry == name)
    }

    fn number(&self, name: &'static str) -> Result<u64, OffsetsError> {
        let index = self.position(name).ok_or(OffsetsError::UnknownVersion(self.version))?;
        number_at(self.numbers, index)
    }

    /// The size of the structure of field `name`, checked.
    fn structure_size(&self, name: &'static str) -> Result<u64, OffsetsError> {
        let structure = name.split('.').next().unwrap_or_default();
        let index = ENTRIES
            .iter()
            .filter(|(since, _)| *since <= self.version.minor)
            .position(|(_, entry)| entry.strip_suffix(".size") == Some(structure));
        let size = number_at(self.numbers, index.ok_or(OffsetsError::UnknownVersion(self.version))?)?;
        if size == 0 || size > plausible_size(structure) {
            return Err(OffsetsError::Implausible { field: name, value: size });
        }
        Ok(size)
    }

    /// A field's offset: aligned for its width and inside its structure.
    fn field<T: Scalar>(&self, name: &'static str) -> Result<Field<T>, OffsetsError> {
        self.neighbour(name, 0)
    }

    /// The field that lies `distance` bytes after the described field `name`, checked like it.
    fn neighbour<T: Scalar>(&self, name: &'static str, distance: u64) -> Result<Field<T>, OffsetsError> {
        let value = self.number(name)?;
        let implausible = OffsetsError::Implausible { field: name, value };
        let offset = value.checked_add(distance).ok_or(implausible)?;
        let end = offset.checked_add(T::WIDTH as u64).ok_or(implausible)?;
        if offset % T::WIDTH as u64 != 0 || end > self.structure_size(name)? {
            return Err(implausible);
        }
        u32::try_from(offset).map(Field::at).map_err(|_| implausible)
    }

    /// The GIL's fields, described relative to the interpreter that it is embedded in.
    fn gil(&self, free_threaded: bool) -> Result<GilOffsets, OffsetsError> {
        // Two condition variables (48 bytes) and mutexes (40) follow the number of switches.
        const LOCKS_BYTES: u32 = 2 * (48 + 40);
        let base = self.field::<u64>("interpreter_state.gil_runtime_state")?.offset();
        let within = |name: &'static str, absolute: u32| {
            let value = u64::from(absolute);
            absolute.checked_sub(base).ok_or(OffsetsError::Implausible { field: name, value })
        };
        let holder = "interpreter_state.gil_runtime_state_holder";
        let last_holder = within(holder, self.field::<u64>(holder)?.offset())?;
        let lock = "interpreter_state.gil_runtime_state_locked";
        let locked = within(lock, self.field::<i32>(lock)?.offset())?;
        // `unsigned long switch_number` follows the four bytes of `locked`.
        let switch_number: Field<u64> = Field::at((locked + 4).next_multiple_of(8));
        let size = switch_number.end() + LOCKS_BYTES;
        if last_holder + 8 > size || size > MAX_OBJECT_BYTES as u32 {
            return Err(OffsetsError::Implausible { field: holder, value: u64::from(last_holder) });
        }
        let enabled = "interpreter_state.gil_runtime_state_enabled";
        Ok(GilOffsets {
            last_holder: Field::at(last_holder),
            locked: Field::at(locked),
            switch_number,
            // The only one that is described relative to the GIL itself.
            enabled: if free_threaded { Some(self.field(enabled)?) } else { None },
            code_count: self.code_count(free_threaded)?.and_then(|count| count.relative_to(base)),
            size,
        })
    }

    /// 3.13 does not describe it, so there it is only known of the one interpreter that has exactly this size.
    fn code_count(&self, free_threaded: bool) -> Result<Option<CodeCount>, OffsetsError> {
        const SIZE_IN_3_13: u64 = 194_968;
        const NEXT_VERSION_IN_3_13: u32 = 17_000;
        if self.version.minor >= 14 {
            return Ok(Some(CodeCount::Freed(self.field("interpreter_state.code_object_generation")?)));
        }
        let is_known = !free_threaded && self.number("interpreter_state.size")? == SIZE_IN_3_13;
        Ok(is_known.then_some(CodeCount::Next(Field::at(NEXT_VERSION_IN_3_13))))
    }

    fn thread(&self) -> Result<ThreadOffsets, OffsetsError> {
        Ok(ThreadOffsets {
            next: self.field("thread_state.next")?,
            interpreter: self.field("thread_state.interp")?,
            frame: self.field("thread_state.current_frame")?,
            cframe_current_frame: None,
            thread_id: self.field("thread_state.thread_id")?,
            native_thread_id: Some(self.field("thread_state.native_thread_id")?),
            datastack_chunk: Some(self.field("thread_state.datastack_chunk")?),
            // Not described; follows the chunk.
            datastack_top: Some(self.neighbour("thread_state.datastack_chunk", 8)?),
            base_frame: match self.version.minor {
                15.. => Some(self.field("thread_state.base_frame")?),
                _ => None,
            },
            size: 0,
        })
    }

    fn frame(&self, free_threaded: bool) -> Result<FrameOffsets, OffsetsError> {
        let minor = self.version.minor;
        let copies = free_threaded && minor >= 14;
        Ok(FrameOffsets {
            layout: FrameLayout::Interpreter,
            previous: self.field("interpreter_frame.previous")?,
            code: self.field("interpreter_frame.executable")?,
            // `Py_TAG_BITS` of `_PyStackRef`, which `f_executable` is since 3.14.
            code_tag_bits: match (minor, free_threaded) {
                (..=13, _) => 0,
                (14, true) => 1,
                _ => 2,
            },
            instruction: self.field::<u64>("interpreter_frame.instr_ptr")?.offset(),
            instruction_pointer: InstructionPointer::Current,
            is_entry: None,
            owner: Some(self.field("interpreter_frame.owner")?),
            bytecode_copy: if copies { Some(self.field("interpreter_frame.tlbc_index")?) } else { None },
            // 3.13: FRAME_OWNED_BY_CSTACK; 3.14: FRAME_OWNED_BY_INTERPRETER and FRAME_OWNED_BY_CSTACK;
            // 3.15: FRAME_OWNED_BY_INTERPRETER.
            shim_owners: if minor == 14 { &[3, 4] } else { &[3] },
            executing: None,
            root: if minor >= 15 { StackRoot::BaseFrame } else { StackRoot::Shim },
            size: 0,
        })
    }

    fn code(&self, free_threaded: bool) -> Result<CodeOffsets, OffsetsError> {
        let copies = free_threaded && self.version.minor >= 14;
        Ok(CodeOffsets {
            filename: self.field("code_object.filename")?,
            name: self.field("code_object.name")?,
            qualname: Some(self.field("code_object.qualname")?),
            first_line: self.field("code_object.firstlineno")?,
            line_table: self.field("code_object.linetable")?,
            line_table_format: LineTableFormat::Locations,
            // Not described; five numbers of variables and cells stand between the two.
            version: Some(self.neighbour("code_object.firstlineno", 24)?),
            bytecode: Some(self.field::<u16>("code_object.co_code_adaptive")?.offset()),
            bytecode_copies: if copies { Some(self.field("code_object.co_tlbc")?) } else { None },
            // `ob_size` has the same place in every object that has one.
            bytecode_units: Some(self.field("bytes_object.ob_size")?),
            size: 0,
        })
    }

    fn object(&self, free_threaded: bool) -> Result<ObjectOffsets, OffsetsError> {
        let described = self.version.minor >= 15;
        // `PyHeapTypeObject` is not described before 3.15; its start is a type, which is.
        let cached_keys = if free_threaded { 896 } else { 880 };
        Ok(ObjectOffsets {
            object_type: self.field("pyobject.ob_type")?,
            type_name: self.field("type_object.tp_name")?,
            type_flags: self.field("type_object.tp_flags")?,
            type_basic_size: match described {
                true => self.field("type_object.tp_basicsize")?,
                false => self.neighbour("type_object.tp_name", 8)?,
            },
            type_dict_offset: match described {
                true => self.field("type_object.tp_dictoffset")?,
                false => self.neighbour("type_object.tp_flags", 120)?,
            },
            type_cached_keys: match described {
                true => self.field("heap_type_object.ht_cached_keys")?,
                false => Field::at(cached_keys),
            },
            managed_attributes: ManagedAttributes::Inline { dict_before: if free_threaded { 8 } else { 24 } },
        })
    }

    fn unicode(&self, free_threaded: bool) -> Result<UnicodeOffsets, OffsetsError> {
        let ascii = "unicode_object.asciiobject_size";
        let ascii_data = self.field::<u64>(ascii)?.offset();
        let compact = "unicode_object.compactunicodeobject_size";
        let data: Field<_> = match self.version.minor {
            // A compact string adds `utf8_length` and `utf8` to an ASCII one.
            ..=14 => self.neighbour(ascii, 16)?,
            _ => self.field(compact)?,
        };
        Ok(UnicodeOffsets {
            length: self.field("unicode_object.length")?,
            state: self.field("unicode_object.state")?,
            // The interned state takes two bits, but a byte of its own in free-threaded builds since 3.14.
            kind_shift: if free_threaded && self.version.minor >= 14 { 8 } else { 2 },
            ascii_data,
            compact_data: data.offset(),
            data,
        })
    }

    /// `None` where they are not described (before 3.14), or not as they can be.
    fn generators(&self) -> Result<Option<GeneratorOffsets>, OffsetsError> {
        match self.described_generators() {
            Ok(generators) => Ok(Some(generators)),
            Err(OffsetsError::Truncated) => Err(OffsetsError::Truncated),
            Err(_) => Ok(None),
        }
    }

    fn described_generators(&self) -> Result<GeneratorOffsets, OffsetsError> {
        let is_first = self.version.minor == 14;
        Ok(GeneratorOffsets {
            frame: self.field::<u64>("gen_object.gi_iframe")?.offset(),
            state: self.field("gen_object.gi_frame_state")?,
            // `enum _framestate`: signed in 3.14, and not any more.
            delegating: if is_first { &[0xFF] } else { &[2, 3] },
            created: if is_first { 0xFD } else { 0 },
            executing: if is_first { 0 } else { 4 },
            ended: if is_first { &[1, 4] } else { &[5] },
            stack_pointer: self.field("interpreter_frame.stackpointer")?,
            // 3.15 keeps an index above it.
            awaited_depth: if is_first { 1 } else { 2 },
        })
    }

    fn values(&self) -> Result<ValueOffsets, OffsetsError> {
        let arguments: Field<i32> = self.field("code_object.argcount")?;
        let float = "float_object.ob_fval";
        Ok(ValueOffsets {
            frame_variables: self.field::<u64>("interpreter_frame.localsplus")?.offset(),
            arguments,
            // Not described: the flags stand before the numbers of parameters, positional-only ones between.
            keyword_arguments: self.neighbour("code_object.argcount", 8)?,
            code_flags: Field::at(arguments.offset().saturating_sub(4)),
            variables: VariableLayout::Together {
                names: self.field("code_object.localsplusnames")?,
                kinds: self.field("code_object.localspluskinds")?,
            },
            type_dict: self.neighbour("type_object.tp_flags", 96)?,
            // A float is a head and its value.
            body: self.field::<u64>(float)?.offset(),
            item_count: self.field("tuple_object.ob_size")?,
            tuple_items: self.field::<u64>("tuple_object.ob_item")?.offset(),
            list_items: self.field("list_object.ob_item")?,
            set_used: match self.version.minor {
                14.. => self.field("set_object.used")?,
                // Not described: the number of entries, deleted ones included, follows the head.
                _ => Field::at(self.field::<u64>(float)?.offset() + 8),
            },
            set_mask: match self.version.minor {
                14.. => self.field("set_object.mask")?,
                _ => Field::at(self.field::<u64>(float)?.offset() + 16),
            },
            set_table: match self.version.minor {
                14.. => self.field("set_object.table")?,
                _ => Field::at(self.field::<u64>(float)?.offset() + 24),
            },
            // A dictionary's size follows the head.
            dict_used: Field::at(self.field::<u64>(float)?.offset()),
        })
    }

    fn dict(&self) -> Result<DictOffsets, OffsetsError> {
        Ok(DictOffsets {
            keys: self.field("dict_object.ma_keys")?,
            values: self.field("dict_object.ma_values")?,
            index_slots: None,
            // The keys are not described; they are as in 3.12, and values have a head of 8 bytes since 3.13.
            log2_index_slots: Some(Field::at(8)),
            log2_index_bytes: Some(Field::at(9)),
            kind: Some(Field::at(10)),
            entry_count: Field::at(24),
            indices: 32,
            values_start: 8,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The start of `_PyRuntime` of real interpreters:
    // `objcopy -O binary --only-section=.PyRuntime FILE out; head -c 900 out`; the free-threaded ones are
    // what `xtask/src/offsets.c` prints with an argument, compiled with -DPy_GIL_DISABLED=1.
    const REAL: [(&[u8], u8, u8, bool); 5] = [
        (include_bytes!("../tests/data/debug-offsets/3.13.0.bin"), 13, 0, false),
        (include_bytes!("../tests/data/debug-offsets/3.14.10.bin"), 14, 10, false),
        (include_bytes!("../tests/data/debug-offsets/3.14.10t.bin"), 14, 10, true),
        (include_bytes!("../tests/data/debug-offsets/3.15.2.bin"), 15, 2, false),
        (include_bytes!("../tests/data/debug-offsets/3.15.2t.bin"), 15, 2, true),
    ];

    /// The bytes of 3.14 with the number called `name` replaced.
    fn damaged(name: &str, value: u64) -> Vec<u8> {
        let mut bytes = REAL[1].0.to_vec();
        let described = Described { numbers: &bytes[8..], version: Version::from_hex(0x030E_0AF0) };
        let at = 8 + 8 * described.position(name).unwrap();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        bytes
    }

    #[test]
    fn real_interpreters_are_understood() {
        for (bytes, minor, micro, free_threaded) in REAL {
            let offsets = parse(bytes).unwrap();
            assert_eq!(offsets.version, Version { major: 3, minor, micro, release: 0xF0 });
            assert_eq!(offsets.free_threaded, free_threaded);
            assert_eq!(offsets.gil.enabled.is_some(), free_threaded);
            assert_eq!(offsets.code.bytecode_copies.is_some(), free_threaded);
            assert_eq!(offsets.thread.base_frame.is_some(), minor == 15);
            assert_eq!(offsets.object.object_type.offset(), if free_threaded { 24 } else { 8 });
            assert!(offsets.thread.size <= 512 && offsets.frame.size <= 128 && offsets.code.size <= 256);
        }
    }

    #[test]
    fn numbers_are_read_from_their_place_in_each_version() {
        let frames = REAL.map(|(bytes, ..)| parse(bytes).unwrap().thread.frame.offset());
        assert_eq!(frames, [72; 5]);
        let heads = REAL.map(|(bytes, ..)| parse(bytes).unwrap().runtime.interpreters_head.offset());
        assert_eq!(heads, [632, 808, 808, 936, 936]);
        let collecting =
            REAL.map(|(bytes, ..)| parse(bytes).unwrap().interpreter.gc_collecting.unwrap().offset());
        assert_eq!(collecting, [7600, 7600, 7600, 7512, 7512]);
        let count = |bytes| parse(bytes).unwrap().interpreter.code_count;
        assert_eq!(count(REAL[0].0), Some(CodeCount::Next(Field::at(17_000))));
        assert!(REAL[1..].iter().all(|(bytes, ..)| matches!(count(bytes), Some(CodeCount::Freed(_)))));
    }

    #[test]
    fn what_is_not_described_is_only_known_of_the_interpreter_of_the_known_size() {
        let size = 8 + 8
            * (ENTRIES.iter().filter(|(since, _)| *since <= 13))
                .position(|(_, entry)| *entry == "interpreter_state.size")
                .unwrap();
        let mut bytes = REAL[0].0.to_vec();
        bytes[size..size + 8].copy_from_slice(&(194_968u64 + 8).to_le_bytes());
        assert_eq!(parse(&bytes).unwrap().interpreter.code_count, None);
    }

    #[test]
    fn what_is_cut_short_or_no_description_is_refused() {
        for (bytes, ..) in REAL {
            for length in 0..bytes.len() {
                match parse(&bytes[..length]) {
                    Ok(offsets) => assert_eq!(Ok(offsets), parse(bytes)),
                    Err(error) if length < 8 => assert_eq!(error, OffsetsError::NoCookie),
                    Err(error) => assert_eq!(error, OffsetsError::Truncated),
                }
            }
        }
        assert_eq!(parse(&[0; 900]), Err(OffsetsError::NoCookie));
    }

    #[test]
    fn unknown_versions_are_refused_by_name() {
        let next = Version { major: 3, minor: 16, micro: 0, release: 0xF0 };
        assert_eq!(parse(&damaged("version", 0x0310_00F0)), Err(OffsetsError::UnknownVersion(next)));
        let alpha = Version { major: 3, minor: 15, micro: 0, release: 0xA3 };
        assert_eq!(parse(&damaged("version", 0x030F_00A3)), Err(OffsetsError::PreRelease(alpha)));
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        let cases = [
            ("free_threaded", 2),
            ("thread_state.current_frame", 73),
            ("thread_state.current_frame", 1 << 20),
            ("thread_state.current_frame", u64::MAX),
            ("thread_state.size", 0),
            ("thread_state.size", 1 << 40),
            ("thread_state.datastack_chunk", u64::MAX - 7),
            ("interpreter_state.gil_runtime_state_locked", 0),
            ("interpreter_state.gil_runtime_state_holder", 4096),
            ("code_object.firstlineno", 70),
            ("unicode_object.asciiobject_size", 4096),
        ];
        for (name, value) in cases {
            assert!(
                matches!(parse(&damaged(name, value)), Err(OffsetsError::Implausible { .. })),
                "{name} = {value}"
            );
        }
    }

    #[test]
    fn any_single_damaged_number_is_refused_or_stays_in_bounds() {
        for (bytes, ..) in REAL {
            for at in (16..bytes.len() - 8).step_by(8) {
                for value in [0, 1, 4, 0x1_0000, u64::from(u32::MAX), u64::MAX] {
                    let mut bytes = bytes.to_vec();
                    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
                    let Ok(offsets) = parse(&bytes) else { continue };
                    assert!(u64::from(offsets.thread.size) <= MAX_THREAD_BYTES);
                    assert!(u64::from(offsets.frame.size) <= MAX_OBJECT_BYTES);
                    assert!(u64::from(offsets.gil.size) <= MAX_OBJECT_BYTES);
                }
            }
        }
    }
}
