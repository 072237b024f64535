//! Whatever the bytes are, compiling and walking end within their limits.

use proptest::collection::vec;
use proptest::prelude::*;

use profiler_memory::Snapshot;

use super::*;
use crate::test_image::{Frames, with_frames, with_frames_and_code};

/// The rows are in order, and each has a rule that is there.
fn check(table: &UnwindTable) {
    assert!(table.rows().windows(2).all(|pair| pair[0].start < pair[1].start));
    let rules = table.rules().len() as u64;
    assert!(table.rows().iter().all(|row| row.rule == UnwindRow::NO_RULE || u64::from(row.rule) < rules));
}

/// Instructions that mostly are some: their opcodes are the common ones.
fn instructions() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![any::<u8>(), 0_u8..0x18, 0x40_u8..0x44, 0x80_u8..0x91], 0..60)
}

proptest! {
    #[test]
    fn random_frames_compile_within_limits(bytes in vec(any::<u8>(), 0..400)) {
        check(&table(&with_frames(&bytes)));
    }

    #[test]
    fn random_instructions_compile_and_walk_within_limits(
        functions in vec((0_u64..0x100, 0_u32..0x80, instructions()), 1..8),
        general in prop::array::uniform16(prop_oneof![Just(0x1000_u64), 0x1000_u64..0x1200, any::<u64>()]),
        at in 0_u64..0x100,
        stack in vec(prop_oneof![any::<u64>(), BIAS + CODE..BIAS + CODE + 0x100, 0x1000_u64..0x1200], 64),
        code in vec(any::<u8>(), 0x100),
    ) {
        let frames = functions.iter().fold(Frames::new(), |frames, (start, length, instructions)| {
            frames.function(*start, *length, instructions)
        });
        let file = with_frames_and_code(&frames.bytes(), &code);
        let image = ElfImage::parse(file.as_slice()).unwrap();
        let table = compile(&image, None, functions.iter().map(|(start, ..)| CODE + start + 7..CODE + start + 90));
        check(&table);
        let mut memory = Snapshot::new();
        let bytes: Vec<u8> = stack.iter().flat_map(|word| word.to_le_bytes()).collect();
        memory.insert(RemoteAddr::new(0x1000), &bytes);
        memory.insert(RemoteAddr::new(BIAS + CODE), &code);
        let mut frames = Vec::new();
        let registers = UnwindRegisters::new(general, BIAS + CODE + at);
        let end = walk(registers, &memory, &modules(&file), |_| Some(&table), &mut frames);
        prop_assert!(frames.len() <= 16_384);
        prop_assert!(frames.len() < 16_384 || end == UnwindEnd::TooDeep);
    }

    #[test]
    fn random_headers_are_read_within_limits(
        mut file in Just(with_frames(&Frames::new().function(0, 16, &[]).bytes())),
        changes in vec((0_usize..0x1100, any::<u8>()), 0..40),
    ) {
        for (at, byte) in changes {
            file[at] = byte;
        }
        if let Ok(image) = ElfImage::parse(file.as_slice()) {
            check(&compile(&image, None, [CODE..CODE + 64, 0..u64::MAX, u64::MAX..u64::MAX]));
            modules(&file);
        }
    }
}
