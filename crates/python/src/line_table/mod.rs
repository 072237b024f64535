//! Which line (and, from 3.11, which columns) an instruction belongs to. Three formats, each in its own
//! file, decoded entry by entry from the bytes that the code object keeps; nothing is expanded.
//!
//! The answers are CPython's own: those of `co_positions()` (3.11+), `co_lines()` (3.10) and
//! `PyCode_Addr2Line` (to 3.9).

mod lnotab;
mod locations;
mod ranges;

use profiler_model::Position;

use crate::LineTableFormat;

/// A place to start decoding is kept for every so many bytes of a table. Most tables are shorter and need
/// none; in a long one, a lookup decodes at most so many bytes.
const CHECKPOINT_SPACING: usize = 256;

/// The line table of one code object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineTable {
    format: LineTableFormat,
    first_line: i32,
    bytes: Box<[u8]>,
    /// Ascending, without the start of the table.
    checkpoints: Box<[Cursor]>,
}

/// A run of instructions with one position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineEntry {
    /// The offset of its first byte in the bytecode.
    pub start: u32,
    /// The offset after its last byte; may equal `start`.
    pub end: u32,
    /// The position; without a line where the compiler made instructions that belong to none.
    pub position: Position,
}

/// The state between two entries: all that the decoders keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor {
    /// Index of the next entry in the table's bytes.
    at: usize,
    /// Where in the bytecode the next entry starts.
    offset: u32,
    /// What the next entry's line is counted from.
    line: i32,
}

impl LineTable {
    /// A line table of the given format; `first_line` is the code's `co_firstlineno`.
    pub fn new(format: LineTableFormat, first_line: i32, bytes: impl Into<Box<[u8]>>) -> Self {
        let mut table = LineTable { format, first_line, bytes: bytes.into(), checkpoints: Box::default() };
        if table.bytes.len() > CHECKPOINT_SPACING {
            table.checkpoints = table.place_checkpoints();
        }
        table
    }

    /// The position of the instruction at `offset` bytes into the bytecode. `None` stands for code that has
    /// not started: that is on its first line.
    pub fn position(&self, offset: Option<u32>) -> Position {
        let Some(offset) = offset else { return line_only(self.first_line) };
        let reached = self.checkpoints.partition_point(|checkpoint| checkpoint.offset <= offset);
        let start = reached.checked_sub(1).map_or(self.start(), |last| self.checkpoints[last]);
        self.entries_from(start)
            .find(|entry| offset < entry.end)
            .map_or(Position::default(), |entry| entry.position)
    }

    /// All entries, in the order of the bytecode. A table that is cut short ends early.
    pub fn entries(&self) -> impl Iterator<Item = LineEntry> + '_ {
        self.entries_from(self.start())
    }

    fn start(&self) -> Cursor {
        Cursor { at: 0, offset: 0, line: self.first_line }
    }

    fn entries_from(&self, mut cursor: Cursor) -> impl Iterator<Item = LineEntry> + '_ {
        std::iter::from_fn(move || self.next_entry(&mut cursor))
    }

    fn next_entry(&self, cursor: &mut Cursor) -> Option<LineEntry> {
        match self.format {
            LineTableFormat::Lnotab => lnotab::next_entry(&self.bytes, cursor),
            LineTableFormat::LineRanges => ranges::next_entry(&self.bytes, cursor),
            LineTableFormat::Locations => locations::next_entry(&self.bytes, cursor),
        }
    }

    fn place_checkpoints(&self) -> Box<[Cursor]> {
        let mut checkpoints = Vec::with_capacity(self.bytes.len() / CHECKPOINT_SPACING);
        let mut cursor = self.start();
        let mut next_at = CHECKPOINT_SPACING;
        while self.next_entry(&mut cursor).is_some() {
            if cursor.at >= next_at && cursor.at < self.bytes.len() {
                checkpoints.push(cursor);
                next_at = cursor.at + CHECKPOINT_SPACING;
            }
        }
        checkpoints.into()
    }
}

impl Cursor {
    /// The entry of `length` bytes of bytecode at the cursor, which moves behind it.
    fn entry(&mut self, length: u32, position: Position) -> LineEntry {
        let start = self.offset;
        // Only a table that lies reaches the end of the numbers: a real one describes less than 4 GiB.
        self.offset = start.saturating_add(length);
        LineEntry { start, end: self.offset, position }
    }
}

/// A position of one line and no columns.
fn line_only(line: i32) -> Position {
    let line = line_number(line);
    Position { line, end_line: None, column: None, end_column: None }
}

/// CPython says "no line" by a negative number. Line 0 exists: the start of a module is on it.
fn line_number(line: i32) -> Option<u32> {
    u32::try_from(line).ok()
}

#[cfg(test)]
mod tests;
