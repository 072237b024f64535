//! The types of objects: what their instances are, and their names.

use std::cell::RefCell;
use std::sync::Arc;

use profiler_memory::{ReadError, ReadMemory};
use profiler_model::RemoteAddr;
use rustc_hash::FxHashMap;

use crate::numpy::Scalar;
use crate::strings::{read_start, read_string};
use crate::{Offsets, dict};

/// The longest name of a type that is read.
const MAX_TYPE_NAME: usize = 256;

/// The most types that are remembered. A program has some thousand.
const MAX_TYPES: usize = 4096;

/// The most attributes of a class that its module is looked for among: deleted ones count as well.
const MAX_CLASS_ATTRIBUTES: u32 = 4096;

/// Flags of types: `Py_TPFLAGS_HEAPTYPE`, `Py_TPFLAGS_UNICODE_SUBCLASS` and `Py_TPFLAGS_TYPE_SUBCLASS`.
const HEAP_TYPE: u64 = 1 << 9;
const IS_STR: u64 = 1 << 28;
const IS_TYPE: u64 = 1 << 31;

/// What a type's instances are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
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

/// A type of the target.
#[derive(Debug)]
pub(super) struct Type {
    pub kind: Kind,
    /// Its name with its module.
    pub name: String,
}

/// Reads types, each of them once.
#[derive(Debug)]
pub(super) struct Types<'a, M> {
    memory: &'a M,
    offsets: &'a Offsets,
    known: RefCell<FxHashMap<RemoteAddr, Arc<Type>>>,
}

impl<'a, M: ReadMemory> Types<'a, M> {
    /// Reads types from `memory`.
    pub fn new(memory: &'a M, offsets: &'a Offsets) -> Self {
        Types { memory, offsets, known: RefCell::default() }
    }

    /// The type of the object at `at`.
    pub fn of_object(&self, at: RemoteAddr) -> Result<Arc<Type>, ReadError> {
        if at != at.without_tag(3) {
            return Err(ReadError::Unmapped(at));
        }
        let object_type = self.memory.field(at, self.offsets.object.object_type)?;
        self.read(object_type)
    }

    /// The type at `at`.
    pub fn read(&self, at: RemoteAddr) -> Result<Arc<Type>, ReadError> {
        if let Some(known) = self.known.borrow().get(&at) {
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
        let mut types = self.known.borrow_mut();
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
