//! CPython 3.6 to 3.12, which do not describe themselves: one table of offsets for each.
//!
//! 3.6 is written out; every later version is the one before it with some fields changed, so what a
//! version brought can be read off it. `cargo xtask check-offsets` recomputes all of it from the headers
//! of real interpreters. 3.13 and later have no table: see [`crate::debug_offsets`].
//!
//! The numbers hold for 64-bit Linux in release and debug builds' shared layout (`--with-trace-refs`, which
//! puts two pointers before every object, is not supported).

use profiler_memory::Field;

use crate::ValueOffsets;
use crate::offsets::{
    BytesOffsets, CodeOffsets, DictOffsets, Executing, FrameLayout, FrameOffsets, GilOffsets,
    InstructionPointer, InterpreterOffsets, LineTableFormat, LongOffsets, ManagedAttributes, ObjectOffsets,
    Offsets, OffsetsError, RuntimeOffsets, StackRoot, ThreadOffsets, UnicodeOffsets, Version,
};

/// `PY_RELEASE_LEVEL_GAMMA`, the first release candidate: layouts still change before it, not after.
const FIRST_FROZEN_RELEASE: u8 = 0xC0;

/// The offsets of a version that does not describe itself.
///
/// # Errors
/// When there is no table for the version, or it is a pre-release whose layout was still moving.
pub fn offsets_for(version: Version) -> Result<Offsets, OffsetsError> {
    check_frozen(version)?;
    let table = match (version.major, version.minor) {
        (3, 6) => python_3_6(),
        (3, 7) => python_3_7(version.micro),
        (3, 8) => python_3_8(),
        (3, 9) => python_3_9(),
        (3, 10) => python_3_10(),
        (3, 11) => python_3_11(),
        (3, 12) => python_3_12(),
        _ => return Err(OffsetsError::UnknownVersion(version)),
    };
    let values = ValueOffsets::of_minor(version.minor);
    Ok(Offsets { version, values, ..table }.with_sizes())
}

/// Refuses alphas and betas: fields moved between them, and no table says where.
pub(crate) fn check_frozen(version: Version) -> Result<(), OffsetsError> {
    if version.release < FIRST_FROZEN_RELEASE {
        return Err(OffsetsError::PreRelease(version));
    }
    Ok(())
}

fn python_3_6() -> Offsets {
    Offsets {
        version: Version { major: 3, minor: 6, micro: 0, release: 0xF0 },
        free_threaded: false,
        // There is no runtime structure: the head of the list is a variable of its own.
        runtime: RuntimeOffsets { interpreters_head: Field::at(0), gil: None, gc_collecting: None },
        interpreter: InterpreterOffsets {
            next: Field::at(0),
            id: None,
            threads_head: Field::at(8),
            gil: None,
            gc_collecting: None,
            modules: Field::at(16),
            code_count: None,
        },
        // Separate variables in 3.6, so this is 3.7's structure and not used.
        gil: GilOffsets {
            last_holder: Field::at(8),
            locked: Field::at(16),
            switch_number: Field::at(24),
            enabled: None,
            code_count: None,
            size: 208,
        },
        thread: ThreadOffsets {
            next: Field::at(8),
            interpreter: Field::at(16),
            frame: Field::at(24),
            cframe_current_frame: None,
            thread_id: Field::at(152),
            native_thread_id: None,
            datastack_chunk: None,
            datastack_top: None,
            base_frame: None,
            size: 0,
        },
        frame: FrameOffsets {
            layout: FrameLayout::Objects,
            previous: Field::at(24),
            code: Field::at(32),
            code_tag_bits: 0,
            instruction: 120,
            instruction_pointer: InstructionPointer::ByteOffset,
            is_entry: None,
            owner: None,
            bytecode_copy: None,
            shim_owners: &[],
            root: StackRoot::Any,
            executing: Some(Executing { mark: Field::at(132), value: 1 }),
            size: 0,
        },
        code: CodeOffsets {
            filename: Field::at(96),
            name: Field::at(104),
            qualname: None,
            first_line: Field::at(36),
            line_table: Field::at(112),
            line_table_format: LineTableFormat::Lnotab,
            version: None,
            bytecode: None,
            bytecode_copies: None,
            bytecode_units: None,
            size: 0,
        },
        object: ObjectOffsets {
            object_type: Field::at(8),
            type_name: Field::at(24),
            type_flags: Field::at(168),
            type_basic_size: Field::at(32),
            type_dict_offset: Field::at(288),
            type_cached_keys: Field::at(856),
            managed_attributes: ManagedAttributes::None,
        },
        unicode: UnicodeOffsets {
            length: Field::at(16),
            state: Field::at(32),
            kind_shift: 2,
            ascii_data: 48,
            compact_data: 72,
            data: Field::at(72),
        },
        bytes: BytesOffsets { length: Field::at(16), data: 32 },
        dict: DictOffsets {
            keys: Field::at(32),
            values: Field::at(40),
            index_slots: Some(Field::at(8)),
            log2_index_slots: None,
            log2_index_bytes: None,
            kind: None,
            entry_count: Field::at(32),
            indices: 40,
            values_start: 0,
        },
        long: LongOffsets { size: Field::at(16), tag_bits: 0, digits: 24 },
        generators: None,
        values: ValueOffsets::of_minor(6),
    }
}

/// Brought `_PyRuntime` and interpreter numbers.
fn python_3_7(micro: u8) -> Offsets {
    let mut offsets = python_3_6();
    offsets.runtime = RuntimeOffsets {
        interpreters_head: Field::at(24),
        gil: Some(1264),
        gc_collecting: Some(Field::at(632)),
    };
    // To 3.7.3 the structure was compiled without the second condition variable and mutex
    // (FORCE_SWITCHING, 88 bytes at its end); what lies before it did not move.
    offsets.gil.size = if micro < 4 { 120 } else { 208 };
    offsets.interpreter.id = Some(Field::at(16));
    offsets.interpreter.modules = Field::at(40);
    offsets.thread.thread_id = Field::at(176);
    offsets.frame.instruction = 104;
    offsets.frame.executing = Some(Executing { mark: Field::at(116), value: 1 });
    offsets
}

/// Brought positional-only arguments, whose count moved the fields of code objects.
fn python_3_8() -> Offsets {
    let mut offsets = python_3_7(u8::MAX);
    offsets.runtime = RuntimeOffsets {
        interpreters_head: Field::at(32),
        gil: Some(1152),
        gc_collecting: Some(Field::at(544)),
    };
    offsets.interpreter.modules = Field::at(56);
    offsets.code.first_line = Field::at(40);
    offsets.code.filename = Field::at(104);
    offsets.code.name = Field::at(112);
    offsets.code.line_table = Field::at(120);
    offsets.object.type_cached_keys = Field::at(872);
    offsets
}

/// Moved the collector's state into the interpreter.
fn python_3_9() -> Offsets {
    let mut offsets = python_3_8();
    offsets.runtime =
        RuntimeOffsets { interpreters_head: Field::at(32), gil: Some(352), gc_collecting: None };
    offsets.interpreter.id = Some(Field::at(24));
    offsets.interpreter.gc_collecting = Some(Field::at(816));
    offsets.interpreter.modules = Field::at(856);
    offsets.object.type_cached_keys = Field::at(864);
    offsets
}

/// Brought line ranges (PEP 626) and counts instructions in units.
fn python_3_10() -> Offsets {
    let mut offsets = python_3_9();
    offsets.frame.instruction = 96;
    // `f_state`, where 0 is FRAME_EXECUTING.
    offsets.frame.executing = Some(Executing { mark: Field::at(108), value: 0 });
    offsets.frame.instruction_pointer = InstructionPointer::UnitOffset;
    offsets.code.line_table_format = LineTableFormat::LineRanges;
    offsets.object.type_cached_keys = Field::at(872);
    offsets
}

/// Brought interpreter frames on the data stack, reached through the `_PyCFrame` of the innermost C call;
/// locations with columns; bytecode inside the code object; values without a dictionary.
fn python_3_11() -> Offsets {
    let mut offsets = python_3_10();
    offsets.runtime =
        RuntimeOffsets { interpreters_head: Field::at(40), gil: Some(360), gc_collecting: None };
    offsets.interpreter = InterpreterOffsets {
        next: Field::at(0),
        id: Some(Field::at(48)),
        threads_head: Field::at(16),
        gil: None,
        gc_collecting: Some(Field::at(848)),
        modules: Field::at(888),
        code_count: None,
    };
    offsets.thread.frame = Field::at(56);
    offsets.thread.cframe_current_frame = Some(Field::at(8));
    offsets.thread.thread_id = Field::at(152);
    offsets.thread.native_thread_id = Some(Field::at(160));
    offsets.thread.datastack_chunk = Some(Field::at(296));
    offsets.thread.datastack_top = Some(Field::at(304));
    offsets.frame = FrameOffsets {
        layout: FrameLayout::Interpreter,
        previous: Field::at(48),
        code: Field::at(32),
        code_tag_bits: 0,
        instruction: 56,
        instruction_pointer: InstructionPointer::PreviousUnit,
        is_entry: Some(Field::at(68)),
        owner: Some(Field::at(69)),
        bytecode_copy: None,
        shim_owners: &[],
        // RETURN_GENERATOR, RETURN_VALUE, YIELD_VALUE.
        root: StackRoot::NotSuspended(&[75, 83, 86]),
        executing: None,
        size: 0,
    };
    offsets.code = CodeOffsets {
        filename: Field::at(112),
        name: Field::at(120),
        qualname: Some(Field::at(128)),
        first_line: Field::at(72),
        line_table: Field::at(136),
        line_table_format: LineTableFormat::Locations,
        version: None,
        bytecode: Some(184),
        bytecode_copies: None,
        bytecode_units: Some(Field::at(16)),
        size: 0,
    };
    offsets.object.managed_attributes =
        ManagedAttributes::ValuesOrDict { values_before: 32, dict_before: 24 };
    offsets.dict = DictOffsets {
        index_slots: None,
        log2_index_slots: Some(Field::at(8)),
        log2_index_bytes: Some(Field::at(9)),
        kind: Some(Field::at(10)),
        entry_count: Field::at(24),
        indices: 32,
        ..offsets.dict
    };
    offsets
}

/// Gave each interpreter its GIL, C calls a shim frame instead of a mark, and strings and integers a
/// smaller head.
fn python_3_12() -> Offsets {
    let mut offsets = python_3_11();
    offsets.runtime = RuntimeOffsets { interpreters_head: Field::at(40), gil: None, gc_collecting: None };
    offsets.interpreter = InterpreterOffsets {
        next: Field::at(0),
        id: Some(Field::at(8)),
        threads_head: Field::at(72),
        gil: Some(Field::at(384)),
        gc_collecting: Some(Field::at(312)),
        modules: Field::at(944),
        code_count: None,
    };
    offsets.thread.cframe_current_frame = Some(Field::at(0));
    offsets.thread.thread_id = Field::at(136);
    offsets.thread.native_thread_id = Some(Field::at(144));
    offsets.thread.datastack_chunk = Some(Field::at(232));
    offsets.thread.datastack_top = Some(Field::at(240));
    offsets.frame.code = Field::at(0);
    offsets.frame.previous = Field::at(8);
    offsets.frame.is_entry = None;
    offsets.frame.owner = Some(Field::at(70));
    // FRAME_OWNED_BY_CSTACK.
    offsets.frame.shim_owners = &[3];
    offsets.frame.root = StackRoot::Shim;
    offsets.code.first_line = Field::at(68);
    offsets.code.version = Some(Field::at(92));
    offsets.code.bytecode = Some(192);
    offsets.object.type_cached_keys = Field::at(880);
    offsets.object.managed_attributes = ManagedAttributes::Tagged { before: 24 };
    offsets.unicode =
        UnicodeOffsets { ascii_data: 40, compact_data: 56, data: Field::at(56), ..offsets.unicode };
    offsets.long.tag_bits = 3;
    offsets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(minor: u8, micro: u8) -> Version {
        Version { major: 3, minor, micro, release: 0xF0 }
    }

    #[test]
    fn every_version_to_3_12_has_a_table_that_says_which_it_is() {
        for minor in 6..=12 {
            let offsets = offsets_for(release(minor, 5)).unwrap();
            assert_eq!(offsets.version, release(minor, 5));
            assert!(!offsets.free_threaded);
            assert_eq!(offsets.thread.native_thread_id.is_some(), minor >= 11);
            assert_eq!(offsets.frame.owner.is_some(), minor >= 11);
            assert_eq!(offsets.frame.is_entry.is_some(), minor == 11);
            assert_eq!(offsets.interpreter.gil.is_some(), minor >= 12);
            assert_eq!(offsets.runtime.gil.is_some(), (7..=11).contains(&minor));
        }
    }

    #[test]
    fn sizes_cover_every_field_and_are_small_enough_for_one_read() {
        for minor in 6..=12 {
            let offsets = offsets_for(release(minor, 0)).unwrap();
            let thread = offsets.thread;
            assert!(thread.size >= thread.thread_id.end());
            assert!(thread.datastack_top.is_none_or(|field| thread.size >= field.end()));
            assert!(thread.size <= 512);
            let frame = offsets.frame;
            assert!(frame.size > frame.instruction && frame.size >= frame.previous.end());
            assert!(frame.owner.is_none_or(|field| frame.size >= field.end()));
            assert!(frame.size <= 128);
            assert!(offsets.code.size >= offsets.code.line_table.end() && offsets.code.size <= 256);
        }
    }

    #[test]
    fn the_gil_grew_within_3_7() {
        assert_eq!(offsets_for(release(7, 3)).unwrap().gil.size, 120);
        assert_eq!(offsets_for(release(7, 4)).unwrap().gil.size, 208);
        assert_eq!(offsets_for(release(8, 0)).unwrap().gil.size, 208);
    }

    #[test]
    fn what_has_no_table_is_refused_by_name() {
        for minor in [5, 13, 16] {
            let version = release(minor, 0);
            assert_eq!(offsets_for(version), Err(OffsetsError::UnknownVersion(version)));
        }
        let beta = Version { release: 0xB1, ..release(12, 0) };
        assert_eq!(offsets_for(beta), Err(OffsetsError::PreRelease(beta)));
    }
}
