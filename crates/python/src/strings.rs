//! Python's `str` and `bytes` objects, copied out of foreign memory.

use profiler_memory::{ReadError, ReadMemory};
use profiler_model::RemoteAddr;

use crate::Offsets;

/// The longest string that is read whole, in code points. Names and paths stay far below it; what is longer
/// is cut and ends in [`CUT_MARK`], so that a lying length costs no more than 16 KiB.
pub const MAX_STRING_CODE_POINTS: usize = 4096;

/// What a string ends in that was cut.
pub const CUT_MARK: char = '…';

/// Bytes of a string's header that are read at most: debug offsets of a target that lies may claim more.
const MAX_STRING_HEADER_BYTES: usize = 256;

/// Why an object could not be read as a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StringError {
    /// Its memory could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The object has no such form: it is no string, or one whose characters were never made canonical.
    #[error("the object at {0} is no string that can be read")]
    NotAString(RemoteAddr),
}

/// What the head of a string object says: where its characters are, and how many.
struct Form {
    width: usize,
    ascii: bool,
    length: u64,
    characters: RemoteAddr,
}

/// Reads the `str` object at `at`, in whichever of its forms: compact ASCII, compact with one, two or four
/// bytes a character, or with its characters elsewhere. Lone surrogates, which stand for bytes of file names that
/// are no UTF-8, become their escape in Python (`\udc80`), so that two such names stay two; garbage becomes
/// U+FFFD.
///
/// # Errors
/// When it cannot be read or is no string.
pub fn read_string(
    memory: &impl ReadMemory,
    offsets: &Offsets,
    at: RemoteAddr,
) -> Result<String, StringError> {
    let (mut text, is_whole) = read_start(memory, offsets, at, MAX_STRING_CODE_POINTS)?;
    if !is_whole {
        text.push(CUT_MARK);
    }
    Ok(text)
}

/// Reads at most `most` code points of the `str` object at `at`, and tells whether these are all.
///
/// # Errors
/// When it cannot be read or is no string.
pub(crate) fn read_start(
    memory: &impl ReadMemory,
    offsets: &Offsets,
    at: RemoteAddr,
    most: usize,
) -> Result<(String, bool), StringError> {
    let (codes, is_whole) = read_code_points(memory, offsets, at, most)?;
    let mut text = String::with_capacity(codes.len());
    for code in codes {
        match char::from_u32(code) {
            Some(char) => text.push(char),
            None => text.push_str(&surrogate_escape(code)),
        }
    }
    Ok((text, is_whole))
}

/// How a code point that is no character is written: a lone surrogate as in Python.
pub(crate) fn surrogate_escape(code: u32) -> String {
    match code {
        0xd800..=0xdfff => format!("\\u{code:04x}"),
        _ => char::REPLACEMENT_CHARACTER.to_string(),
    }
}

/// Reads at most `most` code points of the `str` object at `at`, which need not be characters, and tells whether
/// these are all.
///
/// # Errors
/// When it cannot be read or is no string.
pub(crate) fn read_code_points(
    memory: &impl ReadMemory,
    offsets: &Offsets,
    at: RemoteAddr,
    most: usize,
) -> Result<(Vec<u32>, bool), StringError> {
    let form = read_form(memory, offsets, at)?;
    let wanted = form.length.min(most.min(MAX_STRING_CODE_POINTS) as u64);
    let limit = MAX_STRING_CODE_POINTS * size_of::<u32>();
    let bytes = memory.bytes(form.characters, wanted * form.width as u64, limit)?;
    Ok((decode(&bytes, form.width, form.ascii), wanted == form.length))
}

fn read_form(memory: &impl ReadMemory, offsets: &Offsets, at: RemoteAddr) -> Result<Form, StringError> {
    let unicode = &offsets.unicode;
    let mut head = [0u8; MAX_STRING_HEADER_BYTES];
    // Not yet the pointer to the characters: a short ASCII string at the end of its page has none.
    let head_end = unicode.state.end().max(unicode.length.end()) as usize;
    let head = head.get_mut(..head_end).ok_or(StringError::NotAString(at))?;
    memory.read(at, head)?;
    let not_a_string = StringError::NotAString(at);
    let state = unicode.state.get(head).ok_or(not_a_string)?;
    let length = unicode.length.get(head).ok_or(not_a_string)?;
    let flags = state.checked_shr(unicode.kind_shift).ok_or(not_a_string)?;
    let (kind, compact, ascii) = (flags & 0b111, flags & 0b1000 != 0, flags & 0b1_0000 != 0);
    let width = match kind {
        1 | 2 | 4 if !ascii || kind == 1 => kind as usize,
        _ => return Err(not_a_string),
    };
    let characters = match (compact, ascii) {
        (true, true) => at.offset(u64::from(unicode.ascii_data)),
        (true, false) => at.offset(u64::from(unicode.compact_data)),
        (false, _) => memory.field(at, unicode.data)?,
    };
    Ok(Form { width, ascii, length: u64::try_from(length).map_err(|_| not_a_string)?, characters })
}

fn decode(bytes: &[u8], width: usize, ascii: bool) -> Vec<u32> {
    match width {
        1 if ascii => String::from_utf8_lossy(bytes).chars().map(u32::from).collect(),
        1 => bytes.iter().map(|byte| u32::from(*byte)).collect(),
        2 => bytes.as_chunks().0.iter().map(|pair| u16::from_le_bytes(*pair).into()).collect(),
        _ => bytes.as_chunks().0.iter().map(|four| u32::from_le_bytes(*four)).collect(),
    }
}

/// Reads the content of the `bytes` object at `at`, which may not be longer than `limit`.
///
/// # Errors
/// When it cannot be read, or is longer.
pub fn read_bytes(
    memory: &impl ReadMemory,
    offsets: &Offsets,
    at: RemoteAddr,
    limit: usize,
) -> Result<Vec<u8>, ReadError> {
    let length = memory.field(at, offsets.bytes.length)?;
    // A negative length becomes a huge one, which is beyond every limit.
    memory.bytes(at.offset(u64::from(offsets.bytes.data)), length as u64, limit)
}
