//! `co_lnotab`, to 3.9: pairs of (bytes of bytecode, change of the line). The bytes of a pair lie on the
//! line before its change, what follows the last pair on the last line.

use super::{Cursor, LineEntry, line_only};

/// The entry at the cursor, and the cursor moved behind it.
pub(super) fn next_entry(table: &[u8], cursor: &mut Cursor) -> Option<LineEntry> {
    let position = line_only(cursor.line);
    match table.get(cursor.at..)? {
        [length, change, ..] => {
            cursor.at += 2;
            // Signed since 3.6: code is not always in the order of its lines.
            cursor.line = cursor.line.saturating_add(i32::from(*change as i8));
            Some(cursor.entry(u32::from(*length), position))
        }
        // The bytecode's length is not told here, so the last entry is open. Once only: `at` moves beyond
        // the table.
        _ => {
            cursor.at = table.len() + 1;
            Some(cursor.entry(u32::MAX, position))
        }
    }
}
