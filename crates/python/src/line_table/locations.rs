//! `co_linetable` of 3.11 and later (PEP 657): entries of a head byte `1CCCCLLL` (code C; the entry covers
//! L + 1 code units) and what the code asks for: changes of the line, columns, the end.
//!
//! An entry without a location (code 15) leaves the line that later changes are counted from alone. To
//! reset it there, as another profiler does, makes a fifth of all lines wrong.

use profiler_model::Position;

use super::{Cursor, LineEntry, line_number, line_only};

/// Bytes of a code unit.
const CODE_UNIT: u32 = 2;

/// The entry at the cursor, and the cursor moved behind it. An entry that is cut short is none.
pub(super) fn next_entry(table: &[u8], cursor: &mut Cursor) -> Option<LineEntry> {
    let mut reader = Reader { table, at: cursor.at };
    let head = reader.byte()?;
    let position = match (head >> 3) & 0b1111 {
        code @ 0..=9 => {
            let second = reader.byte()?;
            let column = u32::from(code) << 3 | u32::from(second >> 4);
            on_line(cursor.line, column, column + u32::from(second & 0b1111))
        }
        code @ 10..=12 => {
            let line = cursor.line.saturating_add(i32::from(code - 10));
            let position = on_line(line, reader.byte()?.into(), reader.byte()?.into());
            cursor.line = line;
            position
        }
        13 => {
            cursor.line = cursor.line.saturating_add(reader.signed()?);
            Position { end_line: line_number(cursor.line), ..line_only(cursor.line) }
        }
        14 => {
            let line = cursor.line.saturating_add(reader.signed()?);
            let end_line = line.saturating_add_unsigned(reader.unsigned()?);
            let column = reader.unsigned()?.checked_sub(1);
            let end_column = reader.unsigned()?.checked_sub(1);
            cursor.line = line;
            Position { line: line_number(line), end_line: line_number(end_line), column, end_column }
        }
        _ => Position::default(),
    };
    cursor.at = reader.at;
    Some(cursor.entry((u32::from(head & 0b111) + 1) * CODE_UNIT, position))
}

fn on_line(line: i32, column: u32, end_column: u32) -> Position {
    let line = line_number(line);
    Position { line, end_line: line, column: Some(column), end_column: Some(end_column) }
}

struct Reader<'a> {
    table: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.table.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// Six bits a byte, lowest first; bit 6 says that more follow. Bits beyond 32 are lost, as in CPython;
    /// every byte is consumed all the same.
    fn unsigned(&mut self) -> Option<u32> {
        let mut value = 0u32;
        let mut shift = 0u32;
        loop {
            let byte = self.byte()?;
            value |= u32::from(byte & 0b11_1111).checked_shl(shift).unwrap_or(0);
            if byte & 0b100_0000 == 0 {
                return Some(value);
            }
            shift = shift.saturating_add(6);
        }
    }

    /// The sign is the lowest bit.
    fn signed(&mut self) -> Option<i32> {
        let value = self.unsigned()?;
        let magnitude = (value >> 1) as i32;
        Some(if value & 1 == 1 { -magnitude } else { magnitude })
    }
}
