//! Memory that lies, for tests: every address can be read, and holds whatever proptest came up with. What
//! walks it must end, and neither panic nor ask for more than its limits.

use profiler_memory::{ReadError, ReadMemory};
use profiler_model::RemoteAddr;
use proptest::prelude::*;

use crate::{
    CodeObject, ManagedAttributes, Offsets, RawFrame, ReprLimits, Values, Version, code_type, offsets_for,
    read_string, thread_names, variables,
};

/// The given words, over and over, at all addresses.
#[derive(Debug)]
struct Hostile {
    words: Vec<u64>,
}

impl ReadMemory for Hostile {
    fn read(&self, at: RemoteAddr, into: &mut [u8]) -> Result<(), ReadError> {
        assert!(into.len() <= crate::MAX_LINE_TABLE_BYTES, "{} bytes at once", into.len());
        for (index, byte) in (0u64..).zip(into) {
            let address = at.as_u64().wrapping_add(index);
            let word = self.words[(address / 8 % self.words.len() as u64) as usize];
            *byte = word.to_le_bytes()[(address % 8) as usize];
        }
        Ok(())
    }
}

/// Mostly what leads further: small numbers, addresses, a name that is looked for.
fn word() -> impl Strategy<Value = u64> {
    let name = u64::from_le_bytes(*b"_active\0");
    prop_oneof![0..64u64, 0x1000..0x2000u64, Just(name), Just(0b1100100), any::<u64>()]
}

fn every_layout() -> impl Iterator<Item = Offsets> {
    let table = |minor| {
        let version = Version { major: 3, minor, micro: 3, release: 0xF0 };
        offsets_for(version).expect("there is a table")
    };
    // Later versions describe themselves; what walks them differs from 3.12 by this.
    let mut inline = table(12);
    inline.object.managed_attributes = ManagedAttributes::Inline { dict_before: 24 };
    inline.dict.values_start = 8;
    (6..=12).map(table).chain([inline])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn walks_through_memory_that_lies_end(words in proptest::collection::vec(word(), 1..200), at: u64) {
        let memory = Hostile { words };
        let at = RemoteAddr::new(at);
        for offsets in every_layout() {
            let _ = read_string(&memory, &offsets, at);
            let _ = CodeObject::read(&memory, &offsets, at);
            let _ = code_type(&memory, &offsets, at);
            let _ = thread_names(&memory, &offsets, at);
            let limits = ReprLimits { characters: 128 };
            let values = Values::new(&memory, &offsets, limits);
            let frame = RawFrame { code: at.without_tag(3), instruction: 0, bytecode_copy: 0, is_entry: false };
            for variable in variables(&values, at, &frame).unwrap_or_default() {
                prop_assert!(variable.value.is_none_or(|value| value.chars().count() <= 128 + 3));
            }
        }
    }
}
