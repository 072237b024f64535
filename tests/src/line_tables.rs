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

/// Compares all code objects of the stream.
///
/// # Errors
/// When the stream is none, ends early or cannot be read.
pub fn compare(mut stream: impl Read) -> Result<Comparison> {
    let magic: [u8; 7] = array(&mut stream)?;
    ensure!(&magic == b"LINES1\n", "this is no stream of line tables");
    let [minor, numbers] = array(&mut stream)?;
    ensure!(numbers == 1 || numbers == 4, "{numbers} numbers per position");
    let format = match minor {
        ..=9 => LineTableFormat::Lnotab,
        10 => LineTableFormat::LineRanges,
        _ => LineTableFormat::Locations,
    };
    let position_bytes = u32::from(numbers) * size_of::<i32>() as u32;
    let mut comparison = Comparison::default();
    loop {
        let first_line = i32::from_le_bytes(array(&mut stream)?);
        let [table_length, units] = [u32(&mut stream)?, u32(&mut stream)?];
        if first_line == -1 {
            (comparison.files, comparison.files_refused) = (table_length, units);
            return Ok(comparison);
        }
        let table = LineTable::new(format, first_line, bytes(&mut stream, table_length)?);
        let positions = bytes(&mut stream, units * position_bytes)?;
        comparison.compare_code(&table, positions.chunks(position_bytes as usize));
    }
}

impl Comparison {
    fn compare_code<'a>(&mut self, table: &LineTable, positions: impl Iterator<Item = &'a [u8]>) {
        for (unit, theirs) in (0..).zip(positions.map(position)) {
            let ours = table.position(Some(unit * UNIT));
            self.units += 1;
            if ours != theirs {
                self.different += 1;
                if self.examples.len() < MAX_EXAMPLES {
                    self.examples.push(Difference { code: self.codes, unit, theirs, ours });
                }
            }
        }
        self.codes += 1;
    }
}

fn position(numbers: &[u8]) -> Position {
    let numbers = numbers.as_chunks().0.iter();
    let mut numbers = numbers.map(|number| u32::try_from(i32::from_le_bytes(*number)).ok());
    let mut next = || numbers.next().flatten();
    Position { line: next(), end_line: next(), column: next(), end_column: next() }
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
