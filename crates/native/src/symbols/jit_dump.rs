//! jitdump files (`jit-PID.dump`): binary records of compiled functions, with lines, moves and timestamps. The format is the
//! one of `tools/perf/Documentation/jitdump-specification.txt` of Linux.

use std::sync::Arc;

use super::code_map::{CodeMap, JitFunction, JitLine};
use super::function_name::{FunctionName, MAX_SYMBOL_BYTES};
use super::problem::SymbolProblem;

/// What a file starts with, on a little-endian machine.
const MAGIC: u32 = 0x4a69_5444;

/// How many bytes the head of the file has at least.
const FILE_HEADER_BYTES: usize = 40;

/// The most bytes of the head of the file.
const MAX_FILE_HEADER_BYTES: u64 = 4096;

/// How many bytes the head of a record has: its kind, its size and its time.
const RECORD_HEADER_BYTES: usize = 16;

/// The most bytes of a record of lines; a longer one is skipped.
const MAX_LINES_BYTES: u64 = 16 << 20;

/// The most lines that are kept of all functions.
const MAX_LINES: usize = 2 << 20;

/// The most bytes of a file name.
const MAX_FILE_BYTES: usize = 4096;

/// The kinds of records.
const CODE_LOAD: u32 = 0;
const CODE_MOVE: u32 = 1;
const CODE_DEBUG_INFO: u32 = 2;
const CODE_CLOSE: u32 = 3;

/// The functions of a jitdump file. The file grows while it is read: its bytes come in pieces of any size.
#[derive(Clone, Debug, Default)]
pub struct JitDump {
    map: CodeMap,
    /// Bytes of a record that is not complete yet.
    partial: Vec<u8>,
    /// How many bytes of the current record are skipped.
    skipped: u64,
    has_header: bool,
    is_ended: bool,
    /// The lines of the function at this address, which is loaded next.
    next_lines: Option<(u64, Vec<JitLine>)>,
    lines: usize,
    refused: u64,
}

impl JitDump {
    /// Reads the next bytes of the file.
    ///
    /// # Errors
    /// If it is no jitdump file of a little-endian machine, or the size of a record is impossible. Nothing more can be read of
    /// it then; what was read stays.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), SymbolProblem> {
        while !self.is_ended && !bytes.is_empty() {
            let skipped = self.skipped.min(bytes.len() as u64);
            self.skipped -= skipped;
            bytes = &bytes[skipped as usize..];
            let wanted = self.wanted_bytes()?;
            let taken = bytes.len().min(wanted.saturating_sub(self.partial.len()));
            self.partial.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.partial.len() >= self.wanted_bytes()? {
                self.read_partial()?;
            }
        }
        Ok(())
    }

    /// The function at an address in memory, as of the last record that was read.
    pub fn lookup(&self, address: u64) -> Option<&JitFunction> {
        self.map.find(address)
    }

    /// Whether the compiler has closed the file.
    pub fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// How many records were invalid, too large or too many.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// How many bytes are needed to read on: as far as is known, the current record without the code of a function.
    fn wanted_bytes(&mut self) -> Result<usize, SymbolProblem> {
        if !self.has_header {
            return Ok(FILE_HEADER_BYTES);
        }
        let Some((kind, size)) = record_header(&self.partial) else { return Ok(RECORD_HEADER_BYTES) };
        if size < RECORD_HEADER_BYTES as u64 {
            self.is_ended = true;
            return Err(SymbolProblem::JitDump);
        }
        Ok(read_bytes(kind, size) as usize)
    }

    fn read_partial(&mut self) -> Result<(), SymbolProblem> {
        let record = std::mem::take(&mut self.partial);
        if !self.has_header {
            self.has_header = true;
            self.skipped = file_header(&record).inspect_err(|_| self.is_ended = true)?;
            return Ok(());
        }
        let Some((kind, size)) = record_header(&record) else { return Ok(()) };
        self.skipped = size - record.len() as u64;
        let fields = Fields { rest: &record[RECORD_HEADER_BYTES..] };
        let is_taken = match kind {
            CODE_LOAD => self.load(fields).is_some(),
            CODE_MOVE => self.move_code(fields).is_some(),
            CODE_DEBUG_INFO => size <= MAX_LINES_BYTES && self.hold_lines(fields).is_some(),
            CODE_CLOSE => {
                self.is_ended = true;
                true
            }
            _ => true,
        };
        self.refused += u64::from(!is_taken);
        Ok(())
    }

    fn load(&mut self, mut fields: Fields<'_>) -> Option<()> {
        let lines = self.next_lines.take();
        fields.skip(16)?;
        let (start, size, index) = (fields.wide()?, fields.wide()?, fields.wide()?);
        let name = Arc::new(FunctionName::plain(&fields.text(MAX_SYMBOL_BYTES)));
        let lines =
            lines.filter(|(address, _)| *address == start).map(|(_, lines)| lines).unwrap_or_default();
        let function = JitFunction { start, size, name, index: Some(index), lines: lines.into() };
        self.map.insert(function).then_some(())
    }

    fn move_code(&mut self, mut fields: Fields<'_>) -> Option<()> {
        fields.skip(16)?;
        let (old, new) = (fields.wide()?, fields.wide()?);
        let (size, index) = (fields.wide()?, fields.wide()?);
        let function = self.map.remove(old, index)?;
        self.map.insert(JitFunction { start: new, size, ..function }).then_some(())
    }

    fn hold_lines(&mut self, mut fields: Fields<'_>) -> Option<()> {
        let (start, count) = (fields.wide()?, fields.wide()?);
        let (mut lines, mut file) = (Vec::new(), Arc::<str>::default());
        for _ in 0..count {
            let (address, line) = (fields.wide()?, fields.number()?);
            fields.skip(4)?;
            let name = fields.text(MAX_FILE_BYTES);
            // A file name of one byte, 0xff, stands for the one before.
            if name != "\u{fffd}" && *name != *file {
                file = name.into();
            }
            if self.lines >= MAX_LINES {
                return None;
            }
            self.lines += 1;
            lines.push(JitLine { offset: address.checked_sub(start)?, file: Arc::clone(&file), line });
        }
        lines.sort_by_key(|line| line.offset);
        self.next_lines = Some((start, lines));
        Some(())
    }
}

/// How many bytes of a record are read: all but the code of a function, and nothing of records that are of no use.
fn read_bytes(kind: u32, size: u64) -> u64 {
    let header = RECORD_HEADER_BYTES as u64;
    match kind {
        CODE_LOAD => size.min(header + 40 + MAX_SYMBOL_BYTES as u64),
        CODE_MOVE => size.min(header + 48),
        CODE_DEBUG_INFO if size <= MAX_LINES_BYTES => size,
        _ => header,
    }
}

/// The kind and size of a record.
fn record_header(record: &[u8]) -> Option<(u32, u64)> {
    let mut fields = Fields { rest: record.get(..RECORD_HEADER_BYTES)? };
    Some((fields.number()?, u64::from(fields.number()?)))
}

/// How many bytes of the head of the file come after those that are known.
fn file_header(header: &[u8]) -> Result<u64, SymbolProblem> {
    let mut fields = Fields { rest: header };
    let (magic, _version, size) = (fields.number(), fields.number(), fields.number());
    let size = size.map(u64::from).filter(|size| magic == Some(MAGIC) && *size <= MAX_FILE_HEADER_BYTES);
    size.and_then(|size| size.checked_sub(FILE_HEADER_BYTES as u64)).ok_or(SymbolProblem::JitDump)
}

/// The fields of a record that are not read yet.
struct Fields<'a> {
    rest: &'a [u8],
}

impl Fields<'_> {
    fn number(&mut self) -> Option<u32> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u32::from_le_bytes(*bytes))
    }

    fn wide(&mut self) -> Option<u64> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u64::from_le_bytes(*bytes))
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        self.rest = self.rest.get(length..)?;
        Some(())
    }

    /// Text that ends with a zero byte, at most `limit` bytes of it.
    fn text(&mut self, limit: usize) -> String {
        let end = self.rest.iter().position(|byte| *byte == 0).unwrap_or(self.rest.len());
        let text = String::from_utf8_lossy(&self.rest[..end.min(limit)]).into_owned();
        self.rest = self.rest.get(end + 1..).unwrap_or_default();
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [MAGIC, 1, 40, 62, 0, 7] {
            bytes.extend_from_slice(&u32::to_le_bytes(number));
        }
        bytes.resize(FILE_HEADER_BYTES, 0);
        bytes
    }

    fn record(kind: u32, body: &[u8]) -> Vec<u8> {
        let size = (RECORD_HEADER_BYTES + body.len()) as u32;
        [&kind.to_le_bytes()[..], &size.to_le_bytes(), &[0; 8], body].concat()
    }

    fn wide(numbers: &[u64]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    fn load(start: u64, index: u64, name: &str, code: usize) -> Vec<u8> {
        let fields = wide(&[0, start, start, code as u64, index]);
        record(CODE_LOAD, &[&fields[..], name.as_bytes(), &[0], &vec![0x90; code]].concat())
    }

    fn lines(start: u64, lines: &[(u64, u32, &[u8])]) -> Vec<u8> {
        let mut body = wide(&[start, lines.len() as u64]);
        for (address, line, file) in lines {
            body.extend(wide(&[*address]));
            body.extend([line.to_le_bytes(), [0; 4]].concat());
            body.extend(file.iter().chain(&[0]));
        }
        record(CODE_DEBUG_INFO, &body)
    }

    fn moved(old: u64, new: u64, size: u64, index: u64) -> Vec<u8> {
        record(CODE_MOVE, &wide(&[0, new, old, new, size, index]))
    }

    fn file() -> Vec<u8> {
        [
            header(),
            lines(0x1000, &[(0x1000, 10, b"a.jl"), (0x1008, 11, b"\xff"), (0x1010, 5, b"b.jl")]),
            load(0x1000, 1, "first", 0x20),
            record(4, &[0; 24]),
            load(0x2000, 2, "second", 0x40),
        ]
        .concat()
    }

    fn name_at(dump: &JitDump, address: u64) -> Option<&str> {
        dump.lookup(address).map(|function| &*function.name.display)
    }

    #[test]
    fn functions_and_lines_are_read() {
        let mut dump = JitDump::default();
        dump.feed(&file()).unwrap();
        assert_eq!(
            [0x1000, 0x2000, 0x203f, 0x2040].map(|at| name_at(&dump, at)),
            [Some("first"), Some("second"), Some("second"), None]
        );
        let first = dump.lookup(0x1009).unwrap();
        let place = |at| first.location(at).map(|(file, line)| (&**file, line));
        assert_eq!(
            [0x1007, 0x1009, 0x101f].map(place),
            [Some(("a.jl", 10)), Some(("a.jl", 11)), Some(("b.jl", 5))]
        );
        assert_eq!(dump.lookup(0x2000).unwrap().location(0x2000), None);
        assert_eq!(dump.refused(), 0);
    }

    #[test]
    fn moved_code_keeps_its_name_and_lines() {
        let mut dump = JitDump::default();
        dump.feed(&[file(), moved(0x1000, 0x5000, 0x20, 1)].concat()).unwrap();
        assert_eq!([0x1000, 0x5008].map(|at| name_at(&dump, at)), [None, Some("first")]);
        assert_eq!(dump.lookup(0x5008).unwrap().location(0x5008).unwrap().1, 11);
        dump.feed(&moved(0x9000, 0x9100, 8, 1)).unwrap();
        assert_eq!(dump.refused(), 1);
    }

    #[test]
    fn nothing_is_read_after_the_file_was_closed() {
        let mut dump = JitDump::default();
        dump.feed(&[file(), record(CODE_CLOSE, &[]), load(0x3000, 3, "late", 8)].concat()).unwrap();
        assert!(dump.is_ended());
        assert_eq!(name_at(&dump, 0x3000), None);
    }

    #[test]
    fn files_of_other_formats_are_refused() {
        assert_eq!(JitDump::default().feed(&[7; 64]), Err(SymbolProblem::JitDump));
        let mut impossible = header();
        impossible.extend(wide(&[0, 0]));
        assert_eq!(JitDump::default().feed(&impossible), Err(SymbolProblem::JitDump));
    }

    #[test]
    fn records_beyond_the_limits_are_skipped() {
        let mut dump = JitDump::default();
        let name = "n".repeat(1 << 20);
        dump.feed(&[header(), load(0x1000, 1, &name, 16), load(0x2000, 2, "after", 8)].concat()).unwrap();
        assert!(dump.lookup(0x1000).unwrap().name.symbol.len() <= MAX_SYMBOL_BYTES);
        assert_eq!(name_at(&dump, 0x2000), Some("after"));
        let huge = [&CODE_DEBUG_INFO.to_le_bytes()[..], &(u32::MAX).to_le_bytes(), &[0; 8]].concat();
        dump.feed(&huge).unwrap();
        assert!(dump.partial.is_empty());
        assert_eq!(dump.refused(), 1);
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_read_the_same(size in 1usize..90) {
            let mut dump = JitDump::default();
            file().chunks(size).for_each(|piece| dump.feed(piece).unwrap());
            prop_assert_eq!([0x1000, 0x2000].map(|at| name_at(&dump, at)), [Some("first"), Some("second")]);
        }

        #[test]
        fn changed_files_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
            let mut bytes = file();
            for (at, value) in flips {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let mut dump = JitDump::default();
            let _ended_or_read = dump.feed(&bytes);
            let _any = dump.lookup(0x1000);
        }
    }
}
