//! Python's dictionaries, walked in foreign memory, and lookups of names in them. Nothing is hashed: the
//! entries stand one after another in the order of their insertion, and are few.

use profiler_memory::{Field, ReadError, ReadMemory, ReadRequest, Scalar};
use profiler_model::RemoteAddr;

use crate::{DictOffsets, Offsets};

/// The largest logarithm of the size of a table's index that is believed: beyond it, every limit of entries
/// is exceeded.
const MAX_LOG2_INDEX_BYTES: u8 = 32;

/// The longest name that is looked up.
const MAX_NAME_BYTES: usize = 32;

/// How many keys are fetched in one batch: enough for the attributes of most objects.
const KEYS_AT_ONCE: usize = 128;

/// Bytes of a string that precede its characters, at most.
const MAX_STRING_HEAD_BYTES: usize = 96;

const POINTER: usize = 8;

/// One entry of a dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The key object.
    pub(crate) key: RemoteAddr,
    /// The value object.
    pub(crate) value: RemoteAddr,
}

/// The living entries of the dictionary at `dict`, which may not have more than `limit`, deleted ones included.
pub(crate) fn entries(
    memory: &impl ReadMemory,
    offsets: &Offsets,
    dict: RemoteAddr,
    limit: u32,
) -> Result<Vec<Entry>, ReadError> {
    let keys = memory.field(dict, offsets.dict.keys)?;
    let values = memory.field(dict, offsets.dict.values)?;
    if values.is_null() {
        key_entries(memory, &offsets.dict, keys, Wanted::AllUpTo(limit)).map(living)
    } else {
        split_entries(memory, offsets, keys, values, limit)
    }
}

/// How many entries are wanted.
#[derive(Clone, Copy)]
enum Wanted {
    /// All, which may not be more than this.
    AllUpTo(u32),
    /// The first so many.
    First(u32),
}

/// The living ones of the first `count` entries of the dictionary at `dict`.
pub(crate) fn first_entries(
    memory: &impl ReadMemory,
    offsets: &Offsets,
    dict: RemoteAddr,
    count: u32,
) -> Result<Vec<Entry>, ReadError> {
    let keys = memory.field(dict, offsets.dict.keys)?;
    let values = memory.field(dict, offsets.dict.values)?;
    let entries = key_entries(memory, &offsets.dict, keys, Wanted::First(count))?;
    if values.is_null() { Ok(living(entries)) } else { with_values(memory, offsets, entries, values) }
}

/// The living entries of attributes whose keys are shared and whose values are their own.
pub(crate) fn split_entries(
    memory: &impl ReadMemory,
    offsets: &Offsets,
    keys: RemoteAddr,
    values: RemoteAddr,
    limit: u32,
) -> Result<Vec<Entry>, ReadError> {
    let entries = key_entries(memory, &offsets.dict, keys, Wanted::AllUpTo(limit))?;
    with_values(memory, offsets, entries, values)
}

/// Entries of shared keys with the values that stand apart from them.
fn with_values(
    memory: &impl ReadMemory,
    offsets: &Offsets,
    mut entries: Vec<Entry>,
    values: RemoteAddr,
) -> Result<Vec<Entry>, ReadError> {
    let start = values.offset(offsets.dict.values_start.into());
    let length = entries.len() * POINTER;
    let bytes = memory.bytes(start, length as u64, length)?;
    for (entry, value) in entries.iter_mut().zip(bytes.as_chunks().0) {
        entry.value = RemoteAddr::new(u64::from_le_bytes(*value));
    }
    Ok(living(entries))
}

fn living(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.retain(|entry| !entry.key.is_null() && !entry.value.is_null());
    entries
}

/// All entries of a keys object as they stand there, deleted ones included.
fn key_entries(
    memory: &impl ReadMemory,
    dict: &DictOffsets,
    keys: RemoteAddr,
    wanted: Wanted,
) -> Result<Vec<Entry>, ReadError> {
    let count_at = keys.offset(dict.entry_count.offset().into());
    let index_bytes = index_bytes(memory, dict, keys)?;
    // Keys that are all strings know their hash themselves; other entries keep it before the key.
    let hash_bytes = match optional(memory, keys, dict.kind)? {
        None | Some(0) => POINTER,
        Some(_) => 0,
    };
    let entry_bytes = hash_bytes + 2 * POINTER;
    let count: i64 = memory.scalar(count_at)?;
    // A negative count becomes a huge one, which is beyond the limit.
    let count = match wanted {
        Wanted::AllUpTo(limit) if count as u64 > u64::from(limit) => {
            return Err(ReadError::TooLong { at: count_at, length: count as u64, limit: limit.into() });
        }
        Wanted::AllUpTo(_) => count as u64,
        Wanted::First(most) => (count as u64).min(most.into()),
    };
    let start = keys.offset(u64::from(dict.indices).wrapping_add(index_bytes));
    let length = count as usize * entry_bytes;
    let bytes = memory.bytes(start, length as u64, length)?;
    let key = Field::at(hash_bytes as u32);
    let value = Field::at((hash_bytes + POINTER) as u32);
    let entry = |bytes| Some(Entry { key: key.get(bytes)?, value: value.get(bytes)? });
    Ok(bytes.chunks_exact(entry_bytes).filter_map(entry).collect())
}

/// How many bytes the index slots take that precede the entries.
fn index_bytes(memory: &impl ReadMemory, dict: &DictOffsets, keys: RemoteAddr) -> Result<u64, ReadError> {
    if let Some(log2) = optional(memory, keys, dict.log2_index_bytes)? {
        let too_long =
            ReadError::TooLong { at: keys, length: log2.into(), limit: MAX_LOG2_INDEX_BYTES.into() };
        return if log2 <= MAX_LOG2_INDEX_BYTES { Ok(1 << log2) } else { Err(too_long) };
    }
    let slots = optional(memory, keys, dict.index_slots)?.unwrap_or(0) as u64;
    let slot_bytes = match slots {
        0..0x100 => 1,
        0x100..0x1_0000 => 2,
        0x1_0000..0x1_0000_0000 => 4,
        _ => 8,
    };
    Ok(slots.wrapping_mul(slot_bytes))
}

fn optional<T: Scalar>(
    memory: &impl ReadMemory,
    base: RemoteAddr,
    field: Option<Field<T>>,
) -> Result<Option<T>, ReadError> {
    field.map(|field| memory.field(base, field)).transpose()
}

/// The entry whose key is the ASCII string `name`.
pub(crate) fn find(
    memory: &impl ReadMemory,
    offsets: &Offsets,
    entries: &[Entry],
    name: &str,
) -> Result<Option<Entry>, ReadError> {
    let Some(wanted) = NameInMemory::new(offsets, name) else { return Ok(None) };
    let mut buffers = [[0u8; MAX_STRING_HEAD_BYTES + MAX_NAME_BYTES]; KEYS_AT_ONCE];
    let mut rest = entries;
    while !rest.is_empty() {
        let pairs = rest.iter().zip(&mut buffers);
        let mut requests: Vec<ReadRequest> =
            pairs.map(|(entry, buffer)| ReadRequest::new(entry.key, &mut buffer[..wanted.length])).collect();
        let (asked, done) = (requests.len(), memory.read_batch(&mut requests)?);
        let mut read = rest.iter().zip(&buffers).take(done);
        if let Some((entry, _)) = read.find(|(_, buffer)| wanted.is_at(&buffer[..])) {
            return Ok(Some(*entry));
        }
        // One that could not be read is shorter than the name and ends where its memory ends.
        let skip = if done < asked { done + 1 } else { done };
        rest = rest.get(skip..).unwrap_or_default();
    }
    Ok(None)
}

/// A name as it lies in memory: a compact ASCII string, which all names in the standard library are.
struct NameInMemory<'a> {
    offsets: &'a Offsets,
    name: &'a [u8],
    length: usize,
}

impl<'a> NameInMemory<'a> {
    fn new(offsets: &'a Offsets, name: &'a str) -> Option<Self> {
        let length = offsets.unicode.ascii_data as usize + name.len();
        let fits = name.is_ascii() && length <= MAX_STRING_HEAD_BYTES + MAX_NAME_BYTES;
        fits.then_some(NameInMemory { offsets, name: name.as_bytes(), length })
    }

    fn is_at(&self, string: &[u8]) -> bool {
        // kind 1, compact, ascii: see `UnicodeOffsets::kind_shift`.
        const COMPACT_ASCII: u32 = 0b1_1001;
        let unicode = &self.offsets.unicode;
        let state = unicode.state.get(string).and_then(|state| state.checked_shr(unicode.kind_shift));
        state.is_some_and(|state| state & 0b1_1111 == COMPACT_ASCII)
            && unicode.length.get(string) == i64::try_from(self.name.len()).ok()
            && string.get(unicode.ascii_data as usize..self.length) == Some(self.name)
    }
}
