//! Corner cases by hand, and arbitrary bytes. That real tables are read right is the business of the
//! end-to-end test `lines`, which compares every instruction of the standard library.

use proptest::prelude::*;

use super::*;

const FORMATS: [LineTableFormat; 3] =
    [LineTableFormat::Lnotab, LineTableFormat::LineRanges, LineTableFormat::Locations];

fn lines(table: &LineTable, offsets: impl IntoIterator<Item = u32>) -> Vec<Option<u32>> {
    offsets.into_iter().map(|offset| table.position(Some(offset)).line).collect()
}

/// Head byte of an entry of [`LineTableFormat::Locations`].
fn head(code: u8, units: u8) -> u8 {
    0x80 | code << 3 | (units - 1)
}

#[test]
fn code_that_has_not_started_is_on_its_first_line() {
    for format in FORMATS {
        let table = LineTable::new(format, 7, []);
        assert_eq!(table.position(None).line, Some(7));
        assert_eq!(LineTable::new(format, -1, []).position(None).line, None);
    }
}

#[test]
fn lnotab_counts_up_and_down_and_ends_open() {
    let down_3 = -3i8 as u8;
    let table = LineTable::new(LineTableFormat::Lnotab, 10, [0, 2, 4, 5, 2, down_3]);
    assert_eq!(
        lines(&table, [0, 3, 4, 5, 6, 1_000_000]),
        [Some(12), Some(12), Some(17), Some(17), Some(14), Some(14)]
    );
}

#[test]
fn lnotab_splits_what_does_not_fit_a_byte() {
    let table = LineTable::new(LineTableFormat::Lnotab, 1, [255, 0, 45, 127, 0, 127, 0, 46]);
    assert_eq!(lines(&table, [0, 299, 300]), [Some(1), Some(1), Some(301)]);
}

#[test]
fn an_empty_lnotab_is_all_first_line_and_other_empty_tables_know_nothing() {
    assert_eq!(lines(&LineTable::new(LineTableFormat::Lnotab, 3, []), [0, 8]), [Some(3), Some(3)]);
    assert_eq!(lines(&LineTable::new(LineTableFormat::LineRanges, 3, []), [0]), [None]);
    assert_eq!(lines(&LineTable::new(LineTableFormat::Locations, 3, []), [0]), [None]);
}

#[test]
fn ranges_without_a_line_leave_the_count_alone() {
    let none = -128i8 as u8;
    let back = -1i8 as u8;
    let table = LineTable::new(LineTableFormat::LineRanges, 5, [4, 1, 2, none, 0, 3, 2, back, 6, none]);
    assert_eq!(lines(&table, [0, 2, 4, 6, 8, 14]), [Some(6), Some(6), None, Some(8), None, None]);
}

#[test]
fn locations_without_a_line_leave_the_count_alone() {
    let table = LineTable::new(
        LineTableFormat::Locations,
        40,
        // No location (twice, before anything else and in between), one line further, short form.
        [head(15, 1), head(11, 2), 4, 9, head(15, 8), head(0, 1), 0x25, head(13, 1), 0b111],
    );
    let at = |offset| table.position(Some(offset));
    let columns = |line, column, end_column| Position {
        line: Some(line),
        end_line: Some(line),
        column: Some(column),
        end_column: Some(end_column),
    };
    assert_eq!(at(0), Position::default());
    assert_eq!(at(2), columns(41, 4, 9));
    assert_eq!(at(5), columns(41, 4, 9));
    assert_eq!(at(6), Position::default());
    assert_eq!(at(22), columns(41, 2, 7));
    assert_eq!(at(24), Position { line: Some(38), end_line: Some(38), ..Position::default() });
    assert_eq!(at(26), Position::default());
}

#[test]
fn long_locations_span_lines_and_may_lack_columns() {
    // +100 lines (sign bit 0: 200 = 0b11_001000), 2 more to the end, column 69 + 1, no end column.
    let table = LineTable::new(
        LineTableFormat::Locations,
        1,
        [head(14, 1), 0b100_1000, 0b11, 2, 0b100_0110, 0b1, 0, head(12, 1), 0, 3],
    );
    let expected = Position { line: Some(101), end_line: Some(103), column: Some(69), end_column: None };
    assert_eq!(table.position(Some(0)), expected);
    assert_eq!(table.position(Some(2)).line, Some(103));
}

#[test]
fn a_table_cut_short_knows_what_comes_before_the_cut() {
    let table = LineTable::new(LineTableFormat::Locations, 1, [head(10, 1), 0, 1, head(14, 1), 0b100_1000]);
    assert_eq!(lines(&table, [0, 2]), [Some(1), None]);
    assert_eq!(lines(&LineTable::new(LineTableFormat::LineRanges, 1, [2, 1, 2]), [0, 2]), [Some(2), None]);
    assert_eq!(lines(&LineTable::new(LineTableFormat::Lnotab, 1, [2, 1, 2]), [0, 2]), [Some(1), Some(2)]);
}

proptest! {
    #[test]
    fn arbitrary_tables_never_panic_and_lookups_agree_with_entries(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        first_line: i32,
        offsets in proptest::collection::vec(0u32..70_000, 20),
    ) {
        for format in FORMATS {
            let table = LineTable::new(format, first_line, bytes.clone());
            let entries: Vec<LineEntry> = table.entries().collect();
            prop_assert!(entries.len() <= bytes.len() + 1);
            prop_assert!(entries.windows(2).all(|pair| pair[0].end == pair[1].start));
            for offset in &offsets {
                let entry = entries.iter().find(|entry| (entry.start..entry.end).contains(offset));
                let expected = entry.map_or(Position::default(), |entry| entry.position);
                prop_assert_eq!(table.position(Some(*offset)), expected);
            }
        }
    }
}
