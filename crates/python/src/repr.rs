//! Values as Python writes them (`repr`), read from outside: numbers, strings, bytes and the built-in
//! containers, NumPy's scalars; of everything else its type and its address. No code of the target runs, so
//! what a class says of its instances itself is not shown.
//!
//! Everything is bounded: the length of the text, how deep containers are followed, and how many objects are
//! read for one value. True only of memory that stands still.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use profiler_memory::{ReadError, ReadMemory};
use profiler_model::RemoteAddr;
use rustc_hash::FxHashMap;

use crate::numpy::{self, Scalar};
use crate::strings::{read_code_points, read_start, read_string, surrogate_escape};
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

/// The longest name of a type that is read.
const MAX_TYPE_NAME: usize = 256;

/// The most types that are remembered. A program has some thousand.
const MAX_TYPES: usize = 4096;

/// The most attributes of a class that its module is looked for among: deleted ones count as well.
const MAX_CLASS_ATTRIBUTES: u32 = 4096;

/// Stands in the text of a container for what cannot be read of it.
const UNREADABLE: &str = "<not read>";

/// Flags of types: `Py_TPFLAGS_HEAPTYPE`, `Py_TPFLAGS_UNICODE_SUBCLASS` and `Py_TPFLAGS_TYPE_SUBCLASS`.
const HEAP_TYPE: u64 = 1 << 9;
const IS_STR: u64 = 1 << 28;
const IS_TYPE: u64 = 1 << 31;

/// How much of a value is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReprLimits {
    /// The most characters of its text.
    pub characters: usize,
}

/// What a type's instances are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    None,
    Bool,
    Int,
    Float,
    Complex,
    Str,
    Bytes,
    List,
    Tuple,
    Dict,
    Set,
    FrozenSet,
    Cell,
    Scalar(Scalar),
    Array,
    Other,
}

impl Kind {
    /// The kind of a type that is built in or comes from a C extension: nobody can redefine those.
    fn of_static(name: &str) -> Self {
        match name {
            "NoneType" => Kind::None,
            "bool" => Kind::Bool,
            "int" => Kind::Int,
            "float" => Kind::Float,
            "complex" => Kind::Complex,
            "str" => Kind::Str,
            "bytes" => Kind::Bytes,
            "list" => Kind::List,
            "tuple" => Kind::Tuple,
            "dict" => Kind::Dict,
            "set" => Kind::Set,
            "frozenset" => Kind::FrozenSet,
            "cell" => Kind::Cell,
            "numpy.ndarray" => Kind::Array,
            _ => name.strip_prefix("numpy.").and_then(Scalar::of_name).map_or(Kind::Other, Kind::Scalar),
        }
    }
}

/// A type.
#[derive(Debug)]
struct Type {
    kind: Kind,
    /// With its module.
    name: String,
}

/// Reads values.
#[derive(Debug)]
pub struct Values<'a, M> {
    pub(crate) memory: &'a M,
    pub(crate) offsets: &'a Offsets,
    limits: ReprLimits,
    types: RefCell<FxHashMap<RemoteAddr, Arc<Type>>>,
    /// Objects left for the value that is being read.
    objects: Cell<u32>,
}

/// A text that stops growing at its limit.
struct Text {
    text: String,
    left: usize,
    is_cut: bool,
}

impl Text {
    fn push(&mut self, part: &str) {
        for char in part.chars() {
            if self.left == 0 {
                self.is_cut = true;
                return;
            }
            self.left -= 1;
            self.text.push(char);
        }
    }
}

impl<'a, M: ReadMemory> Values<'a, M> {
    /// Reads values from `memory`.
    pub fn new(memory: &'a M, offsets: &'a Offsets, limits: ReprLimits) -> Self {
        let limits = ReprLimits { characters: limits.characters.min(MAX_TEXT) };
        Values { memory, offsets, limits, types: RefCell::default(), objects: Cell::new(0) }
    }

    /// The value of the object at `at`; `None` where it cannot be read or is no object. A text that is too
    /// long is cut, and ends in three points.
    pub fn repr(&self, at: RemoteAddr) -> Option<String> {
        self.objects.set(MAX_OBJECTS);
        let mut text = Text { text: String::new(), left: self.limits.characters, is_cut: false };
        self.value(at, 0, &mut text).ok()?;
        if text.is_cut {
            text.text.push_str("...");
        }
        Some(text.text)
    }

    /// Whether the object is a cell: what variables lie in that several functions share.
    pub(crate) fn is_cell(&self, at: RemoteAddr) -> Result<bool, ReadError> {
        Ok(self.type_of(at)?.kind == Kind::Cell)
    }

    /// Whether the object's type is one of these, which are built in.
    pub(crate) fn is_one_of(&self, at: RemoteAddr, names: &[&str]) -> Result<bool, ReadError> {
        Ok(names.contains(&&*self.type_of(at)?.name))
    }

    /// The name of an asyncio task: a string, or a number where it was not given one.
    pub(crate) fn task_name(&self, at: RemoteAddr, longest: usize) -> Result<String, ReadError> {
        match self.type_of(at)?.kind {
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
        let object_type = self.type_of(at)?;
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
        let item_type = self.read_type(item_type)?;
        let name = item_type.name.strip_prefix("numpy.").unwrap_or(&item_type.name);
        text.push(&format!("<ndarray ({}{comma}) {name}>", shape.join(", ")));
        Ok(())
    }

    /// The type of the object at `at`.
    fn type_of(&self, at: RemoteAddr) -> Result<Arc<Type>, ReadError> {
        if at != at.without_tag(3) {
            return Err(ReadError::Unmapped(at));
        }
        let object_type = self.memory.field(at, self.offsets.object.object_type)?;
        self.read_type(object_type)
    }

    fn read_type(&self, at: RemoteAddr) -> Result<Arc<Type>, ReadError> {
        if let Some(known) = self.types.borrow().get(&at) {
            return Ok(Arc::clone(known));
        }
        let object = &self.offsets.object;
        let flags = self.memory.field(at, object.type_flags)?;
        // What a type's own type makes are types: nothing else has such a one.
        let metatype = self.memory.field(at, object.object_type)?;
        if self.memory.field(metatype, object.type_flags)? & IS_TYPE == 0 {
            return Err(ReadError::Unmapped(at));
        }
        let name = self.c_string(self.memory.field(at, object.type_name)?)?;
        let found = if flags & HEAP_TYPE == 0 {
            Type { kind: Kind::of_static(&name), name }
        } else {
            let name = self.qualified_name(at).unwrap_or(name);
            let name = match self.module_of(at)?.as_deref() {
                Some(module) if module != "builtins" => format!("{module}.{name}"),
                _ => name,
            };
            Type { kind: Kind::Other, name }
        };
        let found = Arc::new(found);
        let mut types = self.types.borrow_mut();
        if types.len() < MAX_TYPES {
            types.insert(at, Arc::clone(&found));
        }
        Ok(found)
    }

    /// `ht_qualname` of a class: its name with the classes and functions that it was made in.
    fn qualified_name(&self, class: RemoteAddr) -> Option<String> {
        // It stands before `ht_cached_keys`.
        let at = self.offsets.object.type_cached_keys.offset().checked_sub(8)?;
        let name = self.memory.scalar(class.offset(at.into())).ok()?;
        let (name, is_whole) = read_start(self.memory, self.offsets, name, MAX_TYPE_NAME).ok()?;
        is_whole.then_some(name)
    }

    /// `__module__` of a class.
    fn module_of(&self, class: RemoteAddr) -> Result<Option<String>, ReadError> {
        let attributes = self.memory.field(class, self.offsets.values.type_dict)?;
        if attributes.is_null() {
            return Ok(None);
        }
        let entries = dict::entries(self.memory, self.offsets, attributes, MAX_CLASS_ATTRIBUTES)?;
        let Some(module) = dict::find(self.memory, self.offsets, &entries, "__module__")? else {
            return Ok(None);
        };
        // A property of this name is none that can be read.
        let its_type = self.memory.field(module.value, self.offsets.object.object_type)?;
        if self.memory.field(its_type, self.offsets.object.type_flags)? & IS_STR == 0 {
            return Ok(None);
        }
        Ok(read_string(self.memory, self.offsets, module.value).ok())
    }

    fn c_string(&self, at: RemoteAddr) -> Result<String, ReadError> {
        /// Memory is readable in units of this, at least.
        const PIECE: u64 = 64;
        let mut text = Vec::new();
        while text.len() < MAX_TYPE_NAME {
            let here = at.offset(text.len() as u64);
            let mut piece = [0; PIECE as usize];
            let piece = &mut piece[..(PIECE - here.as_u64() % PIECE) as usize];
            self.memory.read(here, piece)?;
            let end = piece.iter().position(|byte| *byte == 0);
            text.extend_from_slice(&piece[..end.unwrap_or(piece.len())]);
            if end.is_some() {
                break;
            }
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// A character in a string as Python writes it.
fn escaped(char: char, quote: char) -> String {
    match char {
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        '\\' => "\\\\".to_owned(),
        _ if char == quote => format!("\\{char}"),
        _ if (char as u32) < 0x20 || (0x7F..=0xA0).contains(&(char as u32)) => {
            format!("\\x{:02x}", char as u32)
        }
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => {
            format!("\\u{:04x}", char as u32)
        }
        _ => char.to_string(),
    }
}
