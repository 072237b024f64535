//! Line tables of all three formats: every entry, and positions that must agree with the entries.
#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler_python::{LineTable, LineTableFormat};

fuzz_target!(|input: &[u8]| {
    let Some((head, bytes)) = input.split_first_chunk::<5>() else { return };
    let format = match head[0] % 3 {
        0 => LineTableFormat::Lnotab,
        1 => LineTableFormat::LineRanges,
        _ => LineTableFormat::Locations,
    };
    let first_line = i32::from_le_bytes([head[1], head[2], head[3], head[4]]);
    let table = LineTable::new(format, first_line, bytes);
    let mut end = 0;
    for entry in table.entries() {
        assert!(entry.start == end && entry.end >= entry.start, "{entry:?} after {end}");
        if entry.end > entry.start {
            assert_eq!(table.position(Some(entry.start)), entry.position);
        }
        end = entry.end;
    }
    table.position(None);
    table.position(Some(u32::MAX));
});
