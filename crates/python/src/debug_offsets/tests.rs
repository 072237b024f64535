//! Descriptions of real interpreters, whole and damaged.

use super::numbers::MAX_THREAD_BYTES;
use super::*;
use crate::offsets::Version;

// The start of `_PyRuntime` of real interpreters:
// `objcopy -O binary --only-section=.PyRuntime FILE out; head -c 900 out`; the free-threaded ones are
// what `xtask/src/offsets.c` prints with an argument, compiled with -DPy_GIL_DISABLED=1.
const REAL: [(&[u8], u8, u8, bool); 5] = [
    (include_bytes!("../../tests/data/debug-offsets/3.13.0.bin"), 13, 0, false),
    (include_bytes!("../../tests/data/debug-offsets/3.14.10.bin"), 14, 10, false),
    (include_bytes!("../../tests/data/debug-offsets/3.14.10t.bin"), 14, 10, true),
    (include_bytes!("../../tests/data/debug-offsets/3.15.2.bin"), 15, 2, false),
    (include_bytes!("../../tests/data/debug-offsets/3.15.2t.bin"), 15, 2, true),
];

/// The bytes of 3.14 with the number called `name` replaced.
fn damaged(name: &str, value: u64) -> Vec<u8> {
    let mut bytes = REAL[1].0.to_vec();
    let at = 8 + 8 * Numbers::new(&bytes[8..]).unwrap().position(name).unwrap();
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
