//! The bytes of a debug section as gimli reads them: owned, shared, and every read counted.

use std::borrow::Cow;
use std::sync::Arc;

use gimli::{Error, LittleEndian, Reader, ReaderOffsetId, Result};

use super::work_meter::WorkMeter;

/// Bytes of text that count as one step.
const BYTES_PER_STEP: usize = 8;

/// A section, shared by all that read from it.
#[derive(Debug)]
struct Content {
    bytes: Vec<u8>,
    /// How many steps a read counts for: more where a few bytes become many in memory.
    steps: u64,
    meter: Arc<WorkMeter>,
}

/// A place in a section, or a part of it.
#[derive(Clone, Debug)]
pub(super) struct SectionReader {
    content: Arc<Content>,
    start: usize,
    end: usize,
}

impl SectionReader {
    /// A reader of a whole section. Each read counts `steps` steps.
    pub(super) fn new(bytes: Vec<u8>, steps: u64, meter: Arc<WorkMeter>) -> Self {
        let end = bytes.len();
        SectionReader { content: Arc::new(Content { bytes, steps, meter }), start: 0, end }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        self.content.bytes.get(self.start..self.end).unwrap_or_default()
    }

    fn end_error(&self) -> Error {
        Error::UnexpectedEof(self.offset_id())
    }

    /// Counts the work of reading `length` bytes. gimli has no error of its own for this, so it is the end of the section; the
    /// meter knows better.
    #[inline]
    fn count(&self, length: usize) -> Result<()> {
        let steps = self.content.steps + (length / BYTES_PER_STEP) as u64;
        if self.content.meter.take(steps) { Ok(()) } else { Err(self.end_error()) }
    }
}

impl Reader for SectionReader {
    type Endian = LittleEndian;
    type Offset = usize;

    fn endian(&self) -> LittleEndian {
        LittleEndian
    }

    #[inline]
    fn len(&self) -> usize {
        self.end - self.start
    }

    fn empty(&mut self) {
        self.end = self.start;
    }

    fn truncate(&mut self, length: usize) -> Result<()> {
        if self.len() < length {
            return Err(self.end_error());
        }
        self.end = self.start + length;
        Ok(())
    }

    fn offset_from(&self, base: &Self) -> usize {
        self.start.saturating_sub(base.start)
    }

    fn offset_id(&self) -> ReaderOffsetId {
        ReaderOffsetId(self.content.bytes.as_ptr().addr() as u64 + self.start as u64)
    }

    fn lookup_offset_id(&self, id: ReaderOffsetId) -> Option<usize> {
        let offset = id.0.checked_sub(self.offset_id().0)?;
        usize::try_from(offset).ok().filter(|offset| *offset <= self.len())
    }

    fn find(&self, byte: u8) -> Result<usize> {
        let found = self.bytes().iter().position(|other| *other == byte);
        self.count(found.unwrap_or(self.len()))?;
        found.ok_or_else(|| self.end_error())
    }

    #[inline]
    fn skip(&mut self, length: usize) -> Result<()> {
        self.count(0)?;
        if self.len() < length {
            return Err(self.end_error());
        }
        self.start += length;
        Ok(())
    }

    fn split(&mut self, length: usize) -> Result<Self> {
        let mut part = self.clone();
        part.truncate(length)?;
        self.skip(length)?;
        Ok(part)
    }

    fn to_slice(&self) -> Result<Cow<'_, [u8]>> {
        self.count(self.len())?;
        Ok(self.bytes().into())
    }

    fn to_string(&self) -> Result<Cow<'_, str>> {
        self.count(self.len())?;
        std::str::from_utf8(self.bytes()).map(Cow::from).map_err(|_| Error::BadUtf8)
    }

    fn to_string_lossy(&self) -> Result<Cow<'_, str>> {
        self.count(self.len())?;
        Ok(String::from_utf8_lossy(self.bytes()))
    }

    #[inline]
    fn read_slice(&mut self, into: &mut [u8]) -> Result<()> {
        self.count(into.len())?;
        let Some(bytes) = self.bytes().get(..into.len()) else { return Err(self.end_error()) };
        into.copy_from_slice(bytes);
        self.start += into.len();
        Ok(())
    }
}
