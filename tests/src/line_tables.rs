//! Compares our line tables with the positions that an interpreter gives for its own code: reads the stream
//! of `tests/data/dump_lines.py`, which describes it, one code object at a time.

use std::io::Read;

use anyhow::{Context, Result, ensure};
use profiler_model::Position;
use profiler_python::{LineTable, LineTableFormat};

/// The program that writes the stream.
pub const SCRIPT: &str = include_str!("../data/dump_lines.py");

/// Bytes of a code unit.
const UNIT: u32 = 2;

/// Differences that are kept to be shown; all are counted.
const MAX_EXAMPLES: usize = 10;

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Files that the interpreter compiled.
    pub files: u32,
    /// Files that it refused to compile: tests of the compiler's errors.
    pub files_refused: u32,
    /// Files of which the code came from the interpreter's own cache.
    pub files_cached: u32,
    /// Code objects compared.
    pub codes: u64,
    /// Code units compared.
    pub units: u64,
    /// Code units of which our position differs.
    pub different: u64,
    /// Some of them.
    pub examples: Vec<Difference>,
}

/// A code unit of which our position differs.
#[derive(Debug)]
pub struct Difference {
    /// The code object's number in the stream.
    pub code: u64,
    /// The unit's number in the code object.
    pub unit: u32,
    /// What the interpreter says.
    pub theirs: Position,
    /// What we say.
    pub ours: Position,
}

/// Code units in a row with the same position.
#[derive(Debug)]
struct PositionRun {
    units: u32,
    position: Position,
}

/// Compares all code objects of the stream.
///
/// # Errors
/// When the stream is none, ends early or cannot be read.
pub fn compare(mut stream: impl Read) -> Result<Comparison> {
    let magic: [u8; 7] = array(&mut stream)?;
    ensure!(&magic == b"LINES2\n", "this is no stream of line tables");
    let [minor, numbers] = array(&mut stream)?;
    ensure!(numbers == 1 || numbers == 4, "{numbers} numbers per position");
    let format = match minor {
        ..=9 => LineTableFormat::Lnotab,
        10 => LineTableFormat::LineRanges,
        _ => LineTableFormat::Locations,
    };
    let run_bytes = u32::from(1 + numbers) * size_of::<i32>() as u32;
    let mut comparison = Comparison::default();
    loop {
        let first_line = i32::from_le_bytes(array(&mut stream)?);
        let counts = [u32(&mut stream)?, u32(&mut stream)?, u32(&mut stream)?];
        if first_line == -1 {
            [comparison.files, comparison.files_refused, comparison.files_cached] = counts;
            return Ok(comparison);
        }
        let [table_length, units, runs] = counts;
        let table = LineTable::new(format, first_line, bytes(&mut stream, table_length)?);
        let runs = bytes(&mut stream, runs * run_bytes)?;
        let compared = comparison.compare_code(&table, runs.chunks(run_bytes as usize).map(run));
        ensure!(compared == units, "positions of {compared} code units, not of {units}");
    }
}

impl Comparison {
    /// Compares the positions of one code object; returns of how many code units.
    fn compare_code(&mut self, table: &LineTable, runs: impl Iterator<Item = PositionRun>) -> u32 {
        let mut entries = table.entries().peekable();
        let mut unit = 0;
        for run in runs {
            let end = unit + run.units;
            while unit < end {
                while entries.next_if(|entry| entry.end <= unit * UNIT).is_some() {}
                let entry_end = entries.peek().map_or(end, |entry| entry.end.div_ceil(UNIT));
                let until = end.min(entry_end);
                self.compare_run(table, unit, until, run.position);
                unit = until;
            }
        }
        self.codes += 1;
        self.units += u64::from(unit);
        unit
    }

    /// Compares units of one entry, which the interpreter gives the same position. A look-up finds the first entry that
    /// ends after the unit: where it finds the same for the first and the last of them, it does for all.
    fn compare_run(&mut self, table: &LineTable, unit: u32, until: u32, theirs: Position) {
        let at = |unit: u32| table.position(Some(unit * UNIT));
        let differs = [unit, until - 1].into_iter().find(|&unit| at(unit) != theirs);
        let Some(unit) = differs else { return };
        self.different += u64::from(until - unit);
        if self.examples.len() < MAX_EXAMPLES {
            self.examples.push(Difference { code: self.codes, unit, theirs, ours: at(unit) });
        }
    }
}

/// Reads the number of units and their position.
fn run(numbers: &[u8]) -> PositionRun {
    let mut numbers =
        numbers.as_chunks().0.iter().map(|number| u32::try_from(i32::from_le_bytes(*number)).ok());
    let mut next = || numbers.next().flatten();
    let units = next().unwrap_or(0);
    let position = Position { line: next(), end_line: next(), column: next(), end_column: next() };
    PositionRun { units, position }
}

fn array<const N: usize>(stream: &mut impl Read) -> Result<[u8; N]> {
    let mut array = [0; N];
    stream.read_exact(&mut array).context("the stream ends early")?;
    Ok(array)
}

fn u32(stream: &mut impl Read) -> Result<u32> {
    Ok(u32::from_le_bytes(array(stream)?))
}

fn bytes(stream: &mut impl Read, length: u32) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes).context("the stream ends early")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream of one code object of two lines on 3.10, of which the interpreter says these lines.
    fn stream(lines: [i32; 2]) -> Vec<u8> {
        let mut stream = b"LINES2\n\x0a\x01".to_vec();
        let mut put = |numbers: &[i32]| numbers.iter().for_each(|number| stream.extend(number.to_le_bytes()));
        put(&[7, 4, 5, 2]);
        // Two units of the first line, three of the next.
        put(&[i32::from_le_bytes([4, 0, 6, 1])]);
        put(&[2, lines[0], 3, lines[1]]);
        put(&[-1, 1, 0, 0]);
        stream
    }

    #[test]
    fn every_unit_of_a_wrong_line_counts_as_different() {
        let right = compare(stream([7, 8]).as_slice()).expect("a stream");
        assert_eq!((right.units, right.different, right.codes), (5, 0, 1));
        let wrong = compare(stream([7, 9]).as_slice()).expect("a stream");
        assert_eq!((wrong.different, wrong.examples[0].unit), (3, 2));
    }

    #[test]
    fn a_run_across_two_entries_is_compared_with_both() {
        let mut across = stream([7, 8]);
        // All five units on the first line: the runs are 2 and 3 of line 7.
        let at = across.len() - 4 * size_of::<i32>() - size_of::<i32>();
        across[at..at + 4].copy_from_slice(&7i32.to_le_bytes());
        assert_eq!(compare(across.as_slice()).expect("a stream").different, 3);
    }
}
