//! Code objects: what a frame's function is called, where it is defined, and on which line an instruction
//! is. Reading one costs several reads, so callers keep them by address and compare the [`CodeHead`] to
//! know that the object at the address is still the same.

use std::ops::Range;
use std::sync::Arc;

use profiler_memory::{Field, ReadError, ReadMemory};
use profiler_model::{Position, RemoteAddr};

use crate::strings::{StringError, read_bytes, read_string};
use crate::{LineTable, Offsets};

/// The longest line table that is read. Tables grow with the code: generated parsers reach a few hundred
/// KiB, and profilers that stop at 64 KiB lose exactly their frames. A lying length costs this much once.
pub const MAX_LINE_TABLE_BYTES: usize = 16 << 20;

/// The most bytes of a code object that identify it: the fields lie within 84 of each other in all versions.
pub const MAX_CODE_HEAD_BYTES: usize = 128;

/// Most names and paths, and the line tables of small functions, fit into this many bytes with their heads.
const USUAL_STRING_BYTES: usize = 160;

/// How long the name of a type may be that is compared: `code`, its end, and no more.
const CODE_TYPE_NAME: &[u8; 5] = b"code\0";

/// A function's code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeObject {
    /// `co_name`.
    pub name: Arc<str>,
    /// `co_qualname` (3.11+): the name with its classes and functions.
    pub qualified_name: Option<Arc<str>>,
    /// `co_filename`.
    pub file: Arc<str>,
    /// `co_firstlineno`, where it is a line.
    pub first_line: Option<u32>,
    /// The line table, where it could be read.
    pub line_table: Option<LineTable>,
    /// The bytes that identify the object as it was when it was read.
    pub head: CodeHead,
}

/// Why a code object could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Its own memory could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its name or file could not be read.
    #[error("the code object's name or file: {0}")]
    Name(#[from] StringError),
    /// The object became another one while it was read.
    #[error("the code object at {0} changed while it was read")]
    Changed(RemoteAddr),
    /// The object is no code object.
    #[error("the object at {0} is no code object")]
    NotCode(RemoteAddr),
}

impl CodeObject {
    /// Reads the code object at `address`. That there is one is for the caller to know, by comparing the
    /// object's type with [`code_type`].
    ///
    /// # Errors
    /// When it, its name or its file cannot be read, or when it changes meanwhile. A line table that cannot
    /// be read is no error: the function keeps its name, and has no lines.
    pub fn read(memory: &impl ReadMemory, offsets: &Offsets, address: RemoteAddr) -> Result<Self, CodeError> {
        let head = CodeHead::read(memory, offsets, address)?;
        let fields = head.fields(offsets).ok_or(CodeError::NotCode(address))?;
        let string = |at| read_string(memory, offsets, at).map(Arc::from);
        let name = string(fields.name)?;
        let file = string(fields.filename)?;
        let qualified_name = fields.qualname.map(string).transpose()?;
        let line_table = read_bytes(memory, offsets, fields.line_table, MAX_LINE_TABLE_BYTES)
            .ok()
            .map(|bytes| LineTable::new(offsets.code.line_table_format, fields.first_line, bytes));
        // The strings were reached through pointers that may have been freed meanwhile.
        if CodeHead::read(memory, offsets, address)? != head {
            return Err(CodeError::Changed(address));
        }
        let first_line = u32::try_from(fields.first_line).ok();
        Ok(CodeObject { name, qualified_name, file, first_line, line_table, head })
    }

    /// What the function is shown as: its qualified name where it has one.
    pub fn function(&self) -> &Arc<str> {
        self.qualified_name.as_ref().unwrap_or(&self.name)
    }

    /// Whether this is no function but the code that 3.13 and later put on the stack below `__init__` when a
    /// call of a class was specialised (`_Py_InitCleanup`, which checks what `__init__` returned). Its owner is
    /// the thread, as that of any frame; what tells it apart is that it names no file and starts on line 0.
    pub fn is_shim(&self) -> bool {
        const INIT_CLEANUP: &str = "__init__";
        self.first_line == Some(0) && &*self.name == INIT_CLEANUP && &*self.file == INIT_CLEANUP
    }

    /// The position of the instruction at `offset` bytes into the bytecode; `None` where it has not started.
    pub fn position(&self, offset: Option<u32>) -> Position {
        match (&self.line_table, offset) {
            (Some(table), _) => table.position(offset),
            (None, None) => Position { line: self.first_line, ..Position::default() },
            (None, Some(_)) => Position::default(),
        }
    }
}

/// The type of code objects, given the address of one.
///
/// # Errors
/// When it cannot be read, or when the object's type has another name.
pub fn code_type(
    memory: &impl ReadMemory,
    offsets: &Offsets,
    code: RemoteAddr,
) -> Result<RemoteAddr, CodeError> {
    let object_type = memory.field(code, offsets.object.object_type)?;
    let name_at = memory.field(object_type, offsets.object.type_name)?;
    let mut name = [0u8; CODE_TYPE_NAME.len()];
    memory.read(name_at, &mut name)?;
    if &name == CODE_TYPE_NAME { Ok(object_type) } else { Err(CodeError::NotCode(code)) }
}

/// The bytes of a code object that say what it is: the pointers to its names and line table, and its first
/// line. Small and `Copy`, to be taken with each sample and compared later: an address whose object was freed
/// and is another one's now has other bytes here.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CodeHead {
    length: u8,
    bytes: [u8; MAX_CODE_HEAD_BYTES],
}

struct Fields {
    filename: RemoteAddr,
    name: RemoteAddr,
    qualname: Option<RemoteAddr>,
    first_line: i32,
    line_table: RemoteAddr,
}

impl CodeHead {
    /// Where in a code object these bytes lie. Never more than [`MAX_CODE_HEAD_BYTES`]: of offsets that lie
    /// further apart, which no CPython has, the object then reads as no code object.
    pub fn range(offsets: &Offsets) -> Range<u32> {
        let code = &offsets.code;
        let pointers = [Some(code.filename), Some(code.name), code.qualname, Some(code.line_table)];
        let pointers = pointers.into_iter().flatten().map(|field| field.offset()..field.end());
        let number = code.version.map(|field| field.offset()..field.end());
        let fields = pointers.chain(number);
        let start = fields.clone().map(|field| field.start).fold(code.first_line.offset(), u32::min);
        let end = fields.map(|field| field.end).fold(code.first_line.end(), u32::max);
        start..end.min(start.saturating_add(MAX_CODE_HEAD_BYTES as u32))
    }

    /// A head from the bytes of [`CodeHead::range`]; of a longer slice, its start.
    pub fn new(source: &[u8]) -> Self {
        let length = source.len().min(MAX_CODE_HEAD_BYTES);
        let mut bytes = [0; MAX_CODE_HEAD_BYTES];
        bytes[..length].copy_from_slice(&source[..length]);
        CodeHead { length: length as u8, bytes }
    }

    /// Reads the head of the code object at `address`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(memory: &impl ReadMemory, offsets: &Offsets, address: RemoteAddr) -> Result<Self, ReadError> {
        let range = CodeHead::range(offsets);
        let mut head = CodeHead { length: range.len() as u8, bytes: [0; MAX_CODE_HEAD_BYTES] };
        memory.read(address.offset(range.start.into()), &mut head.bytes[..range.len()])?;
        Ok(head)
    }

    /// Whether no other code object of the same interpreter has ever had these bytes: they hold the number
    /// that each one gets when it is made (3.12+, `co_version`). An object that has them now and had them
    /// before was there all the time, since what was freed does not come back with the same number.
    pub fn is_unique(&self, offsets: &Offsets) -> bool {
        let start = CodeHead::range(offsets).start;
        let number = offsets
            .code
            .version
            .and_then(|field| Field::<u32>::at(field.offset().checked_sub(start)?).get(self.as_bytes()));
        // 0: there are no numbers left.
        number.is_some_and(|number| number != 0)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// Where all that lies of which the names of the code object at `code` are made, mostly: pieces of memory, by
    /// place and length. Longer names and tables go on behind them.
    pub fn places(&self, offsets: &Offsets, code: RemoteAddr) -> impl Iterator<Item = (RemoteAddr, usize)> {
        let object = (code, CodeHead::range(offsets).end as usize);
        let names = self.fields(offsets).map(|fields| {
            [fields.filename, fields.name, fields.line_table, fields.qualname.unwrap_or(fields.name)]
        });
        std::iter::once(object).chain(names.into_iter().flatten().map(|at| (at, USUAL_STRING_BYTES)))
    }

    fn fields(&self, offsets: &Offsets) -> Option<Fields> {
        let code = &offsets.code;
        let start = CodeHead::range(offsets).start;
        let pointer = |field: Field<RemoteAddr>| -> Option<RemoteAddr> {
            Field::at(field.offset() - start).get(self.as_bytes())
        };
        Some(Fields {
            filename: pointer(code.filename)?,
            name: pointer(code.name)?,
            qualname: match code.qualname {
                Some(field) => Some(pointer(field)?),
                None => None,
            },
            first_line: Field::at(code.first_line.offset() - start).get(self.as_bytes())?,
            line_table: pointer(code.line_table)?,
        })
    }
}

impl std::fmt::Debug for CodeHead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CodeHead(")?;
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}
