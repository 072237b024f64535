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

mod numbers;
#[cfg(test)]
mod tests;

use profiler_memory::Field;

use self::numbers::{ENTRIES, MAX_OBJECT_BYTES, Numbers};
use crate::GeneratorOffsets;
use crate::offsets::{
    BytesOffsets, CodeCount, CodeOffsets, DictOffsets, FrameLayout, FrameOffsets, GilOffsets,
    InstructionPointer, InterpreterOffsets, LineTableFormat, LongOffsets, ManagedAttributes, ObjectOffsets,
    Offsets, OffsetsError, RuntimeOffsets, StackRoot, ThreadOffsets, UnicodeOffsets,
};
use crate::value_offsets::{ValueOffsets, VariableLayout};
use crate::versions::check_frozen;

/// What the structure starts with.
pub const COOKIE: &[u8; 8] = b"xdebugpy";

/// Bytes that hold the structure of every version known here: what to read before [`parse`].
pub const MAX_DEBUG_OFFSETS_BYTES: usize = COOKIE.len() + ENTRIES.len() * 8;

/// Reads and checks the debug offsets in `bytes`, which start with the cookie and should be
/// [`MAX_DEBUG_OFFSETS_BYTES`] long.
///
/// # Errors
/// When they are no debug offsets, of an unknown version, or hold anything that cannot be.
pub fn parse(bytes: &[u8]) -> Result<Offsets, OffsetsError> {
    let numbers = &Numbers::new(bytes.strip_prefix(COOKIE).ok_or(OffsetsError::NoCookie)?)?;
    let version = numbers.version();
    if version.major != 3 || !(13..=15).contains(&version.minor) {
        return Err(OffsetsError::UnknownVersion(version));
    }
    check_frozen(version)?;
    let free_threaded = match numbers.number("free_threaded")? {
        0 => false,
        1 => true,
        value => return Err(OffsetsError::Implausible { field: "free_threaded", value }),
    };
    let state =
        |name: &'static str| -> Result<u32, OffsetsError> { numbers.field::<u64>(name).map(Field::offset) };
    let offsets = Offsets {
        version,
        free_threaded,
        runtime: RuntimeOffsets {
            interpreters_head: numbers.field("runtime_state.interpreters_head")?,
            gil: None,
            gc_collecting: None,
        },
        interpreter: InterpreterOffsets {
            next: numbers.field("interpreter_state.next")?,
            id: Some(numbers.field("interpreter_state.id")?),
            threads_head: numbers.field("interpreter_state.threads_head")?,
            gil: Some(numbers.field("interpreter_state.ceval_gil")?),
            gc_collecting: Some(Field::at(
                state("interpreter_state.gc")? + numbers.field::<i32>("gc.collecting")?.offset(),
            )),
            modules: numbers.field("interpreter_state.imports_modules")?,
            code_count: code_count(numbers, free_threaded)?,
        },
        gil: gil(numbers, free_threaded)?,
        thread: thread(numbers)?,
        frame: frame(numbers, free_threaded)?,
        code: code(numbers, free_threaded)?,
        object: object(numbers, free_threaded)?,
        unicode: unicode(numbers, free_threaded)?,
        bytes: BytesOffsets {
            length: numbers.field("bytes_object.ob_size")?,
            data: numbers.field::<u8>("bytes_object.ob_sval")?.offset(),
        },
        dict: dict(numbers)?,
        long: LongOffsets {
            size: numbers.field("long_object.lv_tag")?,
            tag_bits: 3,
            digits: numbers.field::<u32>("long_object.ob_digit")?.offset(),
        },
        // Only asyncio's tasks need them.
        generators: generators(numbers)?,
        values: values(numbers)?,
    };
    Ok(offsets.with_sizes())
}

/// The GIL's fields, described relative to the interpreter that it is embedded in.
fn gil(numbers: &Numbers<'_>, free_threaded: bool) -> Result<GilOffsets, OffsetsError> {
    // Two condition variables (48 bytes) and mutexes (40) follow the number of switches.
    const LOCKS_BYTES: u32 = 2 * (48 + 40);
    let base = numbers.field::<u64>("interpreter_state.gil_runtime_state")?.offset();
    let within = |name: &'static str, absolute: u32| {
        let value = u64::from(absolute);
        absolute.checked_sub(base).ok_or(OffsetsError::Implausible { field: name, value })
    };
    let holder = "interpreter_state.gil_runtime_state_holder";
    let last_holder = within(holder, numbers.field::<u64>(holder)?.offset())?;
    let lock = "interpreter_state.gil_runtime_state_locked";
    let locked = within(lock, numbers.field::<i32>(lock)?.offset())?;
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
        // The only one that is described relative to the GIL itnumbers.
        enabled: if free_threaded { Some(numbers.field(enabled)?) } else { None },
        code_count: code_count(numbers, free_threaded)?.and_then(|count| count.relative_to(base)),
        size,
    })
}

/// 3.13 does not describe it, so there it is only known of the one interpreter that has exactly this size.
fn code_count(numbers: &Numbers<'_>, free_threaded: bool) -> Result<Option<CodeCount>, OffsetsError> {
    const SIZE_IN_3_13: u64 = 194_968;
    const NEXT_VERSION_IN_3_13: u32 = 17_000;
    if numbers.version().minor >= 14 {
        return Ok(Some(CodeCount::Freed(numbers.field("interpreter_state.code_object_generation")?)));
    }
    let is_known = !free_threaded && numbers.number("interpreter_state.size")? == SIZE_IN_3_13;
    Ok(is_known.then_some(CodeCount::Next(Field::at(NEXT_VERSION_IN_3_13))))
}

fn thread(numbers: &Numbers<'_>) -> Result<ThreadOffsets, OffsetsError> {
    Ok(ThreadOffsets {
        next: numbers.field("thread_state.next")?,
        interpreter: numbers.field("thread_state.interp")?,
        frame: numbers.field("thread_state.current_frame")?,
        cframe_current_frame: None,
        thread_id: numbers.field("thread_state.thread_id")?,
        native_thread_id: Some(numbers.field("thread_state.native_thread_id")?),
        datastack_chunk: Some(numbers.field("thread_state.datastack_chunk")?),
        // Not described; follows the chunk.
        datastack_top: Some(numbers.neighbour("thread_state.datastack_chunk", 8)?),
        base_frame: match numbers.version().minor {
            15.. => Some(numbers.field("thread_state.base_frame")?),
            _ => None,
        },
        size: 0,
    })
}

fn frame(numbers: &Numbers<'_>, free_threaded: bool) -> Result<FrameOffsets, OffsetsError> {
    let minor = numbers.version().minor;
    let copies = free_threaded && minor >= 14;
    Ok(FrameOffsets {
        layout: FrameLayout::Interpreter,
        previous: numbers.field("interpreter_frame.previous")?,
        code: numbers.field("interpreter_frame.executable")?,
        // `Py_TAG_BITS` of `_PyStackRef`, which `f_executable` is since 3.14.
        code_tag_bits: match (minor, free_threaded) {
            (..=13, _) => 0,
            (14, true) => 1,
            _ => 2,
        },
        instruction: numbers.field::<u64>("interpreter_frame.instr_ptr")?.offset(),
        instruction_pointer: InstructionPointer::Current,
        is_entry: None,
        owner: Some(numbers.field("interpreter_frame.owner")?),
        bytecode_copy: if copies { Some(numbers.field("interpreter_frame.tlbc_index")?) } else { None },
        // 3.13: FRAME_OWNED_BY_CSTACK; 3.14: FRAME_OWNED_BY_INTERPRETER and FRAME_OWNED_BY_CSTACK;
        // 3.15: FRAME_OWNED_BY_INTERPRETER.
        shim_owners: if minor == 14 { &[3, 4] } else { &[3] },
        executing: None,
        root: if minor >= 15 { StackRoot::BaseFrame } else { StackRoot::Shim },
        size: 0,
    })
}

fn code(numbers: &Numbers<'_>, free_threaded: bool) -> Result<CodeOffsets, OffsetsError> {
    let copies = free_threaded && numbers.version().minor >= 14;
    Ok(CodeOffsets {
        filename: numbers.field("code_object.filename")?,
        name: numbers.field("code_object.name")?,
        qualname: Some(numbers.field("code_object.qualname")?),
        first_line: numbers.field("code_object.firstlineno")?,
        line_table: numbers.field("code_object.linetable")?,
        line_table_format: LineTableFormat::Locations,
        // Not described; five numbers of variables and cells stand between the two.
        version: Some(numbers.neighbour("code_object.firstlineno", 24)?),
        bytecode: Some(numbers.field::<u16>("code_object.co_code_adaptive")?.offset()),
        bytecode_copies: if copies { Some(numbers.field("code_object.co_tlbc")?) } else { None },
        // `ob_size` has the same place in every object that has one.
        bytecode_units: Some(numbers.field("bytes_object.ob_size")?),
        size: 0,
    })
}

fn object(numbers: &Numbers<'_>, free_threaded: bool) -> Result<ObjectOffsets, OffsetsError> {
    let described = numbers.version().minor >= 15;
    // `PyHeapTypeObject` is not described before 3.15; its start is a type, which is.
    let cached_keys = if free_threaded { 896 } else { 880 };
    Ok(ObjectOffsets {
        object_type: numbers.field("pyobject.ob_type")?,
        type_name: numbers.field("type_object.tp_name")?,
        type_flags: numbers.field("type_object.tp_flags")?,
        type_basic_size: match described {
            true => numbers.field("type_object.tp_basicsize")?,
            false => numbers.neighbour("type_object.tp_name", 8)?,
        },
        type_dict_offset: match described {
            true => numbers.field("type_object.tp_dictoffset")?,
            false => numbers.neighbour("type_object.tp_flags", 120)?,
        },
        type_cached_keys: match described {
            true => numbers.field("heap_type_object.ht_cached_keys")?,
            false => Field::at(cached_keys),
        },
        managed_attributes: ManagedAttributes::Inline { dict_before: if free_threaded { 8 } else { 24 } },
    })
}

fn unicode(numbers: &Numbers<'_>, free_threaded: bool) -> Result<UnicodeOffsets, OffsetsError> {
    let ascii = "unicode_object.asciiobject_size";
    let ascii_data = numbers.field::<u64>(ascii)?.offset();
    let compact = "unicode_object.compactunicodeobject_size";
    let data: Field<_> = match numbers.version().minor {
        // A compact string adds `utf8_length` and `utf8` to an ASCII one.
        ..=14 => numbers.neighbour(ascii, 16)?,
        _ => numbers.field(compact)?,
    };
    Ok(UnicodeOffsets {
        length: numbers.field("unicode_object.length")?,
        state: numbers.field("unicode_object.state")?,
        // The interned state takes two bits, but a byte of its own in free-threaded builds since 3.14.
        kind_shift: if free_threaded && numbers.version().minor >= 14 { 8 } else { 2 },
        ascii_data,
        compact_data: data.offset(),
        data,
    })
}

/// `None` where they are not described (before 3.14), or not as they can be.
fn generators(numbers: &Numbers<'_>) -> Result<Option<GeneratorOffsets>, OffsetsError> {
    match described_generators(numbers) {
        Ok(generators) => Ok(Some(generators)),
        Err(OffsetsError::Truncated) => Err(OffsetsError::Truncated),
        Err(_) => Ok(None),
    }
}

fn described_generators(numbers: &Numbers<'_>) -> Result<GeneratorOffsets, OffsetsError> {
    let is_first = numbers.version().minor == 14;
    Ok(GeneratorOffsets {
        frame: numbers.field::<u64>("gen_object.gi_iframe")?.offset(),
        state: numbers.field("gen_object.gi_frame_state")?,
        // `enum _framestate`: signed in 3.14, and not any more.
        delegating: if is_first { &[0xFF] } else { &[2, 3] },
        created: if is_first { 0xFD } else { 0 },
        executing: if is_first { 0 } else { 4 },
        ended: if is_first { &[1, 4] } else { &[5] },
        stack_pointer: numbers.field("interpreter_frame.stackpointer")?,
        // 3.15 keeps an index above it.
        awaited_depth: if is_first { 1 } else { 2 },
    })
}

fn values(numbers: &Numbers<'_>) -> Result<ValueOffsets, OffsetsError> {
    let arguments: Field<i32> = numbers.field("code_object.argcount")?;
    let float = "float_object.ob_fval";
    Ok(ValueOffsets {
        frame_variables: numbers.field::<u64>("interpreter_frame.localsplus")?.offset(),
        arguments,
        // Not described: the flags stand before the numbers of parameters, positional-only ones between.
        keyword_arguments: numbers.neighbour("code_object.argcount", 8)?,
        code_flags: Field::at(arguments.offset().saturating_sub(4)),
        variables: VariableLayout::Together {
            names: numbers.field("code_object.localsplusnames")?,
            kinds: numbers.field("code_object.localspluskinds")?,
        },
        type_dict: numbers.neighbour("type_object.tp_flags", 96)?,
        // A float is a head and its value.
        body: numbers.field::<u64>(float)?.offset(),
        item_count: numbers.field("tuple_object.ob_size")?,
        tuple_items: numbers.field::<u64>("tuple_object.ob_item")?.offset(),
        list_items: numbers.field("list_object.ob_item")?,
        set_used: match numbers.version().minor {
            14.. => numbers.field("set_object.used")?,
            // Not described: the number of entries, deleted ones included, follows the head.
            _ => Field::at(numbers.field::<u64>(float)?.offset() + 8),
        },
        set_mask: match numbers.version().minor {
            14.. => numbers.field("set_object.mask")?,
            _ => Field::at(numbers.field::<u64>(float)?.offset() + 16),
        },
        set_table: match numbers.version().minor {
            14.. => numbers.field("set_object.table")?,
            _ => Field::at(numbers.field::<u64>(float)?.offset() + 24),
        },
        // A dictionary's size follows the head.
        dict_used: Field::at(numbers.field::<u64>(float)?.offset()),
    })
}

fn dict(numbers: &Numbers<'_>) -> Result<DictOffsets, OffsetsError> {
    Ok(DictOffsets {
        keys: numbers.field("dict_object.ma_keys")?,
        values: numbers.field("dict_object.ma_values")?,
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
