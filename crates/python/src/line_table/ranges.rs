//! `co_linetable` of 3.10 (PEP 626): pairs of (bytes of bytecode, change of the line before them), where
//! the change -128 marks bytes that belong to no line.

use profiler_model::Position;

use super::{Cursor, LineEntry, line_only};

const NO_LINE: i8 = -128;

/// The entry at the cursor, and the cursor moved behind it.
pub(super) fn next_entry(table: &[u8], cursor: &mut Cursor) -> Option<LineEntry> {
    let [length, change, ..] = table.get(cursor.at..)? else { return None };
    cursor.at += 2;
    let position = match *change as i8 {
        // The line that changes are counted from stays what it was.
        NO_LINE => Position::default(),
        change => {
            cursor.line = cursor.line.saturating_add(i32::from(change));
            line_only(cursor.line)
        }
    };
    Some(cursor.entry(u32::from(*length), position))
}
