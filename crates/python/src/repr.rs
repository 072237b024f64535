//! Values as Python writes them (`repr`), read from outside: numbers, strings, bytes and the built-in
//! containers, NumPy's scalars; of everything else its type and its address. No code of the target runs, so
//! what a class says of its instances itself is not shown.
//!
//! Everything is bounded: the length of the text, how deep containers are followed, and how many objects are
//! read for one value. True only of memory that stands still.

mod text;
mod types;

use std::cell::Cell;

use profiler_memory::{ReadError, ReadMemory};
use profiler_model::RemoteAddr;

use self::text::{Text, escaped};
use self::types::{Kind, Types};
use crate::numpy::{self, Scalar};
use crate::strings::{read_code_points, read_start, surrogate_escape};
use crate::{Offsets, dict, number_text};

/// How deep containers in containers are followed.
const MAX_DEPTH: u32 = 4;

/// The most objects that are read for one value: more than fit the text, but for empty ones.
const MAX_OBJECTS: u32 = 256;

/// The most items of one container. Each takes three characters at least.
const MAX_ITEMS: u64 = 128;

/// The most digits of an integer, 30 bits each, that are converted: some 580 decimal digits.
const MAX_INTEGER_DIGITS: u64 = 64;

/// The longest text of any value, however much is asked for.
const MAX_TEXT: usize = 4096;

/// Stands in the text of a container for what cannot be read of it.
const UNREADABLE: &str = "<not read>";

/// How much of a value is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReprLimits {
    /// The most characters of its text.
    pub characters: usize,
}

/// Reads values.
#[derive(Debug)]
pub struct Values<'a, M> {
    pub(crate) memory: &'a M,
    pub(crate) offsets: &'a Offsets,
    limits: ReprLimits,
    types: Types<'a, M>,
    /// Objects left for the value that is being read.
    objects: Cell<u32>,
}

impl<'a, M: ReadMemory> Values<'a, M> {
    /// Reads values from `memory`.
    pub fn new(memory: &'a M, offsets: &'a Offsets, limits: ReprLimits) -> Self {
        let limits = ReprLimits { characters: limits.characters.min(MAX_TEXT) };
        Values { memory, offsets, limits, types: Types::new(memory, offsets), objects: Cell::new(0) }
    }

    /// The value of the object at `at`; `None` where it cannot be read or is no object. A text that is too
    /// long is cut, and ends in three points.
    pub fn repr(&self, at: RemoteAddr) -> Option<String> {
        self.objects.set(MAX_OBJECTS);
        let mut text = Text::with_limit(self.limits.characters);
        self.value(at, 0, &mut text).ok()?;
        Some(text.finish())
    }

    /// Whether the object is a cell: what variables lie in that several functions share.
    pub(crate) fn is_cell(&self, at: RemoteAddr) -> Result<bool, ReadError> {
        Ok(self.types.of_object(at)?.kind == Kind::Cell)
    }

    /// Whether the object's type is one of these, which are built in.
    pub(crate) fn is_one_of(&self, at: RemoteAddr, names: &[&str]) -> Result<bool, ReadError> {
        Ok(names.contains(&&*self.types.of_object(at)?.name))
    }

    /// The name of an asyncio task: a string, or a number where it was not given one.
    pub(crate) fn task_name(&self, at: RemoteAddr, longest: usize) -> Result<String, ReadError> {
        match self.types.of_object(at)?.kind {
            Kind::Int => Ok(format!("Task-{}", self.integer(at)?)),
            _ => match read_start(self.memory, self.offsets, at, longest) {
                Ok((name, true)) => Ok(name),
                Ok((start, false)) => Ok(start + "..."),
                Err(_) => Err(ReadError::Unmapped(at)),
            },
        }
    }

    /// The items of the tuple at `at`, which may not have more than `limit`.
    pub(crate) fn tuple(&self, at: RemoteAddr, limit: u64) -> Result<Vec<RemoteAddr>, ReadError> {
        let count = self.memory.field(at, self.offsets.values.item_count)? as u64;
        if count > limit {
            return Err(ReadError::TooLong { at, length: count, limit });
        }
        self.pointers(at.offset(self.offsets.values.tuple_items.into()), count)
    }

    fn pointers(&self, at: RemoteAddr, count: u64) -> Result<Vec<RemoteAddr>, ReadError> {
        let bytes = self.memory.bytes(at, count.saturating_mul(8), (count as usize).saturating_mul(8))?;
        Ok(bytes.as_chunks().0.iter().map(|bytes| RemoteAddr::new(u64::from_le_bytes(*bytes))).collect())
    }

    fn value(&self, at: RemoteAddr, depth: u32, text: &mut Text) -> Result<(), ReadError> {
        let Some(left) = self.objects.get().checked_sub(1) else {
            text.is_cut = true;
            return Ok(());
        };
        self.objects.set(left);
        let object_type = self.types.of_object(at)?;
        let body = at.offset(self.offsets.values.body.into());
        match object_type.kind {
            Kind::None => text.push("None"),
            Kind::Bool => text.push(if self.integer(at)? == "0" { "False" } else { "True" }),
            Kind::Int => text.push(&self.integer(at)?),
            Kind::Float => text.push(&number_text::float(self.double(body)?)),
            Kind::Complex => {
                text.push(&number_text::complex(self.double(body)?, self.double(body.offset(8))?));
            }
            Kind::Str => self.string(at, text)?,
            Kind::Bytes => self.bytes(at, text)?,
            Kind::List | Kind::Tuple => self.sequence(at, object_type.kind, depth, text)?,
            Kind::Set | Kind::FrozenSet => self.set(at, object_type.kind, depth, text)?,
            Kind::Dict => self.dict(at, depth, text)?,
            Kind::Scalar(scalar) => self.scalar(scalar, at, body, text)?,
            Kind::Array => self.array(body, text)?,
            Kind::Cell | Kind::Other => text.push(&format!("<{} object at {at}>", object_type.name)),
        }
        Ok(())
    }

    fn double(&self, at: RemoteAddr) -> Result<f64, ReadError> {
        self.memory.scalar(at).map(f64::from_bits)
    }

    fn integer(&self, at: RemoteAddr) -> Result<String, ReadError> {
        let long = &self.offsets.long;
        let size: i64 = self.memory.field(at, long.size)?;
        // See `LongOffsets::size`.
        let (count, is_negative) = match long.tag_bits {
            0 => (size.unsigned_abs(), size < 0),
            bits => (size as u64 >> bits.min(63), size & 0b11 == 2),
        };
        if count > MAX_INTEGER_DIGITS {
            let bits = count.saturating_mul(30);
            return Ok(format!("<int of up to {bits} bits>"));
        }
        let limit = MAX_INTEGER_DIGITS as usize * 4;
        let bytes = self.memory.bytes(at.offset(long.digits.into()), count * 4, limit)?;
        let digits: Vec<u32> = bytes.as_chunks().0.iter().map(|digit| u32::from_le_bytes(*digit)).collect();
        Ok(number_text::integer(&digits, is_negative))
    }

    fn string(&self, at: RemoteAddr, text: &mut Text) -> Result<(), ReadError> {
        let Ok((content, is_whole)) = read_code_points(self.memory, self.offsets, at, text.left) else {
            return Err(ReadError::Unmapped(at));
        };
        let has = |char: char| content.contains(&u32::from(char));
        let quote = if has('\'') && !has('"') { '"' } else { '\'' };
        text.push(quote.encode_utf8(&mut [0; 4]));
        for code in content {
            match char::from_u32(code) {
                Some(char) => text.push(&escaped(char, quote)),
                None => text.push(&surrogate_escape(code)),
            }
        }
        if is_whole {
            text.push(quote.encode_utf8(&mut [0; 4]));
        }
        text.is_cut |= !is_whole;
        Ok(())
    }

    fn bytes(&self, at: RemoteAddr, text: &mut Text) -> Result<(), ReadError> {
        let offsets = &self.offsets.bytes;
        let length = self.memory.field(at, offsets.length)? as u64;
        let start = length.min(text.left as u64);
        let content = self.memory.bytes(at.offset(offsets.data.into()), start, MAX_TEXT)?;
        let quote = if content.contains(&b'\'') && !content.contains(&b'"') { '"' } else { '\'' };
        text.push(&format!("b{quote}"));
        for byte in &content {
            match byte {
                b' '..=b'~' | b'\n' | b'\r' | b'\t' => text.push(&escaped(char::from(*byte), quote)),
                _ => text.push(&format!("\\x{byte:02x}")),
            }
        }
        if start == length {
            text.push(quote.encode_utf8(&mut [0; 4]));
        }
        text.is_cut |= start < length;
        Ok(())
    }

    fn sequence(&self, at: RemoteAddr, kind: Kind, depth: u32, text: &mut Text) -> Result<(), ReadError> {
        let offsets = &self.offsets.values;
        let count = self.memory.field(at, offsets.item_count)?.max(0) as u64;
        let (open, close) = if kind == Kind::List { ("[", "]") } else { ("(", ")") };
        if depth >= MAX_DEPTH && count > 0 {
            text.push(&format!("{open}...{close}"));
            return Ok(());
        }
        let start = match kind {
            Kind::List => self.memory.field(at, offsets.list_items)?,
            _ => at.offset(offsets.tuple_items.into()),
        };
        let items = self.pointers(start, count.min(MAX_ITEMS))?;
        text.push(open);
        self.items(&items, depth, text);
        if items.len() as u64 == count {
            text.push(if kind == Kind::Tuple && count == 1 { ",)" } else { close });
        } else {
            text.is_cut = true;
        }
        Ok(())
    }

    /// Items with commas between them.
    fn items(&self, items: &[RemoteAddr], depth: u32, text: &mut Text) {
        for (index, item) in items.iter().enumerate() {
            if text.is_cut {
                return;
            }
            if index > 0 {
                text.push(", ");
            }
            self.item(*item, depth, text);
        }
    }

    fn item(&self, at: RemoteAddr, depth: u32, text: &mut Text) {
        if self.value(at, depth + 1, text).is_err() {
            text.push(UNREADABLE);
        }
    }

    fn set(&self, at: RemoteAddr, kind: Kind, depth: u32, text: &mut Text) -> Result<(), ReadError> {
        let offsets = &self.offsets.values;
        let used = self.memory.field(at, offsets.set_used)?.max(0) as u64;
        let (open, close) = match (kind, used) {
            (Kind::Set, 0) => ("set(", ")"),
            (Kind::Set, _) => ("{", "}"),
            (_, 0) => ("frozenset(", ")"),
            (_, _) => ("frozenset({", "})"),
        };
        if depth >= MAX_DEPTH && used > 0 {
            text.push(&format!("{open}...{close}"));
            return Ok(());
        }
        let items = if used > 0 { self.set_items(at)? } else { Vec::new() };
        text.push(open);
        self.items(&items, depth, text);
        if items.len() as u64 == used {
            text.push(close);
        } else {
            text.is_cut = true;
        }
        Ok(())
    }

    pub(crate) fn set_items(&self, at: RemoteAddr) -> Result<Vec<RemoteAddr>, ReadError> {
        let offsets = &self.offsets.values;
        let entries = self.memory.field(at, offsets.set_mask)?.max(0) as u64 + 1;
        let table = self.memory.field(at, offsets.set_table)?;
        // A table is at least as large as the set, and mostly two to five times.
        let words = self.pointers(table, entries.min(8 * MAX_ITEMS) * 2)?;
        // What was removed left a mark with a hash that no object has.
        let living =
            words.as_chunks().0.iter().filter(|[key, hash]| !key.is_null() && hash.as_u64() != u64::MAX);
        Ok(living.map(|[key, _]| *key).take(MAX_ITEMS as usize).collect())
    }

    fn dict(&self, at: RemoteAddr, depth: u32, text: &mut Text) -> Result<(), ReadError> {
        let used = self.memory.field(at, self.offsets.values.dict_used)?.max(0) as u64;
        if used == 0 {
            text.push("{}");
            return Ok(());
        }
        if depth >= MAX_DEPTH {
            text.push("{...}");
            return Ok(());
        }
        let mut entries = dict::first_entries(self.memory, self.offsets, at, 2 * MAX_ITEMS as u32)?;
        entries.truncate(MAX_ITEMS as usize);
        text.push("{");
        for (index, entry) in entries.iter().enumerate() {
            if text.is_cut {
                return Ok(());
            }
            if index > 0 {
                text.push(", ");
            }
            self.item(entry.key, depth, text);
            text.push(": ");
            self.item(entry.value, depth, text);
        }
        if entries.len() as u64 == used {
            text.push("}");
        } else {
            text.is_cut = true;
        }
        Ok(())
    }

    /// A scalar of NumPy, written as NumPy 2 does: with its type, which NumPy 1 leaves out.
    fn scalar(
        &self,
        scalar: Scalar,
        at: RemoteAddr,
        body: RemoteAddr,
        text: &mut Text,
    ) -> Result<(), ReadError> {
        if let Some(content) = scalar.read(self.memory, body)? {
            text.push(&content);
            return Ok(());
        }
        text.push(&format!("np.{}(", scalar.name()));
        match scalar {
            Scalar::Bytes => self.bytes(at, text)?,
            _ => self.string(at, text)?,
        }
        if !text.is_cut {
            text.push(")");
        }
        Ok(())
    }

    /// `<ndarray (3, 4) float64>`: what is in it may be changed without the GIL.
    fn array(&self, body: RemoteAddr, text: &mut Text) -> Result<(), ReadError> {
        let (shape, item_type) = numpy::array(self.memory, body, self.offsets.values.body.into())?;
        let shape: Vec<String> = shape.iter().map(u64::to_string).collect();
        let comma = if shape.len() == 1 { "," } else { "" };
        let item_type = self.types.read(item_type)?;
        let name = item_type.name.strip_prefix("numpy.").unwrap_or(&item_type.name);
        text.push(&format!("<ndarray ({}{comma}) {name}>", shape.join(", ")));
        Ok(())
    }
}
