//! Where CPython keeps what is read: one struct of every field, each with its width by its type.
//!
//! 3.13 and later describe themselves ([`crate::debug_offsets`]); 3.6 to 3.12 come from the tables in
//! [`crate::versions`]. Whichever it was, all code above works on this one struct alone.

use std::fmt;

use profiler_memory::Field;
use profiler_model::RemoteAddr;

use crate::{GeneratorOffsets, ValueOffsets};

/// A CPython version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// 3.
    pub major: u8,
    /// The feature version.
    pub minor: u8,
    /// The bug-fix version.
    pub micro: u8,
    /// `a1`, `rc2`: whether and which pre-release, as CPython's hex version encodes it (0xF0 is final).
    pub release: u8,
}

impl Version {
    /// From CPython's `PY_VERSION_HEX`.
    pub const fn from_hex(hex: u64) -> Self {
        Version {
            major: (hex >> 24) as u8,
            minor: (hex >> 16) as u8,
            micro: (hex >> 8) as u8,
            release: hex as u8,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)?;
        match self.release >> 4 {
            0xA => write!(f, "a{}", self.release & 0xF),
            0xB => write!(f, "b{}", self.release & 0xF),
            0xC => write!(f, "rc{}", self.release & 0xF),
            _ => Ok(()),
        }
    }
}

/// Every field of CPython's structures that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// Which version this describes.
    pub version: Version,
    /// Whether the build has no GIL.
    pub free_threaded: bool,
    /// `_PyRuntimeState`.
    pub runtime: RuntimeOffsets,
    /// `PyInterpreterState`.
    pub interpreter: InterpreterOffsets,
    /// `struct _gil_runtime_state`.
    pub gil: GilOffsets,
    /// `PyThreadState`.
    pub thread: ThreadOffsets,
    /// The frame: `PyFrameObject` or `_PyInterpreterFrame`.
    pub frame: FrameOffsets,
    /// `PyCodeObject`.
    pub code: CodeOffsets,
    /// `PyObject` and `PyTypeObject`.
    pub object: ObjectOffsets,
    /// `PyUnicodeObject` in its three forms.
    pub unicode: UnicodeOffsets,
    /// `PyBytesObject`.
    pub bytes: BytesOffsets,
    /// `PyDictObject` and its keys.
    pub dict: DictOffsets,
    /// `PyLongObject`.
    pub long: LongOffsets,
    /// Generators and coroutines, where the interpreter describes them (3.14+).
    pub generators: Option<GeneratorOffsets>,
    /// What is read only to show variables.
    pub values: ValueOffsets,
}

/// Why there are no offsets for a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OffsetsError {
    /// This profiler does not know the version: too old or too new.
    #[error("CPython {0} is not known: 3.6 to 3.15 are")]
    UnknownVersion(Version),
    /// An alpha or beta, whose layout was still moving.
    #[error("CPython {0} is a pre-release, whose layout is not fixed: use a release candidate or a release")]
    PreRelease(Version),
    /// The bytes are no debug offsets: the cookie is not there.
    #[error("the interpreter does not describe itself as its version should")]
    NoCookie,
    /// The debug offsets are cut short.
    #[error("the debug offsets are cut short")]
    Truncated,
    /// A value in the debug offsets cannot be true: the target's memory is damaged or not what it seems.
    #[error("the debug offsets give {value} for {field}, which cannot be")]
    Implausible {
        /// `structure.field`, as CPython names them.
        field: &'static str,
        /// What stands there.
        value: u64,
    },
}

impl Offsets {
    /// Fills in the sizes that follow from the fields: how much of a structure has to be copied.
    pub(crate) fn with_sizes(mut self) -> Self {
        let (thread, frame, code) = (&mut self.thread, &mut self.frame, &mut self.code);
        thread.size = furthest(&[
            Some(thread.next.end()),
            Some(thread.interpreter.end()),
            Some(thread.frame.end()),
            Some(thread.thread_id.end()),
            thread.native_thread_id.map(Field::end),
            thread.datastack_chunk.map(Field::end),
            thread.datastack_top.map(Field::end),
            thread.base_frame.map(Field::end),
        ]);
        let instruction_width = match frame.instruction_pointer {
            InstructionPointer::ByteOffset | InstructionPointer::UnitOffset => 4,
            InstructionPointer::PreviousUnit | InstructionPointer::Current => 8,
        };
        frame.size = furthest(&[
            Some(frame.previous.end()),
            Some(frame.code.end()),
            Some(frame.instruction + instruction_width),
            frame.is_entry.map(Field::end),
            frame.owner.map(Field::end),
            frame.bytecode_copy.map(Field::end),
        ]);
        code.size = furthest(&[
            Some(code.filename.end()),
            Some(code.name.end()),
            code.qualname.map(Field::end),
            Some(code.first_line.end()),
            Some(code.line_table.end()),
            code.bytecode,
            code.bytecode_copies.map(Field::end),
            code.bytecode_units.map(Field::end),
        ]);
        self
    }
}

fn furthest(ends: &[Option<u32>]) -> u32 {
    ends.iter().copied().flatten().max().unwrap_or(0)
}

/// `_PyRuntimeState` (3.7+). 3.6 has separate variables instead of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimeOffsets {
    /// `_PyRuntime.interpreters.head`; 3.6: unused, the variable `interp_head` stands for it.
    pub interpreters_head: Field<RemoteAddr>,
    /// The GIL's state inside the runtime structure, to 3.11: there is one for all interpreters. `None`
    /// where each interpreter points to its own ([`InterpreterOffsets::gil`]) and on 3.6, where it is
    /// separate variables.
    pub gil: Option<u32>,
    /// `_PyRuntime.gc.collecting`, 3.7 and 3.8.
    pub gc_collecting: Option<Field<i32>>,
}

/// `PyInterpreterState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterpreterOffsets {
    /// The next interpreter.
    pub next: Field<RemoteAddr>,
    /// The interpreter's number (3.7+).
    pub id: Option<Field<i64>>,
    /// The first thread state.
    pub threads_head: Field<RemoteAddr>,
    /// Pointer to the GIL that the interpreter uses (`ceval.gil`, 3.12+).
    pub gil: Option<Field<RemoteAddr>>,
    /// Whether the collector runs (`gc.collecting`, 3.9+).
    pub gc_collecting: Option<Field<i32>>,
    /// The dictionary of modules (`sys.modules`).
    pub modules: Field<RemoteAddr>,
    /// What changes before an address can have another code object, where a version has it and it is certain where.
    pub code_count: Option<CodeCount>,
}

/// A field of an interpreter by which two looks prove that no address has got another code object in between: it
/// is different if one was freed (3.14+, `_code_object_generation`) or made (3.13, `func_state.next_version`).
/// 0 proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeCount {
    /// How many were freed.
    Freed(Field<u64>),
    /// The number that the next one gets; 0 once there are none left.
    Next(Field<u32>),
}

impl CodeCount {
    /// Where it is.
    pub fn offset(self) -> u32 {
        match self {
            CodeCount::Freed(field) => field.offset(),
            CodeCount::Next(field) => field.offset(),
        }
    }

    /// How many bytes it has.
    pub fn size(self) -> u32 {
        match self {
            CodeCount::Freed(field) => field.end() - field.offset(),
            CodeCount::Next(field) => field.end() - field.offset(),
        }
    }

    /// The same as seen from `base`; `None` if it lies before that.
    pub fn relative_to(self, base: u32) -> Option<Self> {
        let offset = self.offset().checked_sub(base)?;
        Some(match self {
            CodeCount::Freed(_) => CodeCount::Freed(Field::at(offset)),
            CodeCount::Next(_) => CodeCount::Next(Field::at(offset)),
        })
    }
}

/// The GIL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GilOffsets {
    /// The thread state that holds it or held it last.
    pub last_holder: Field<RemoteAddr>,
    /// 1 while it is held, 0 while it is free, -1 before it exists.
    pub locked: Field<i32>,
    /// How often it passed from one thread to a different one.
    pub switch_number: Field<u64>,
    /// Free-threaded builds: 0 while there is no GIL in force.
    pub enabled: Option<Field<i32>>,
    /// What [`InterpreterOffsets::code_count`] says of the interpreter that the GIL is embedded in, here relative to the GIL.
    pub code_count: Option<CodeCount>,
    /// Bytes of the structure, with its condition variable and mutex: a futex in this range is the GIL's.
    pub size: u32,
}

/// `PyThreadState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadOffsets {
    /// The next thread state.
    pub next: Field<RemoteAddr>,
    /// The interpreter it belongs to.
    pub interpreter: Field<RemoteAddr>,
    /// Where the running frame is found: the frame itself, or (3.11, 3.12) the `_PyCFrame` that points to it.
    pub frame: Field<RemoteAddr>,
    /// `_PyCFrame.current_frame`, 3.11 and 3.12: `frame` then points to the `_PyCFrame`.
    pub cframe_current_frame: Option<Field<RemoteAddr>>,
    /// The `pthread_t`.
    pub thread_id: Field<u64>,
    /// The kernel's thread id (3.11+), in the target's PID namespace.
    pub native_thread_id: Option<Field<u64>>,
    /// The chunk of the data stack in use (3.11+).
    pub datastack_chunk: Option<Field<RemoteAddr>>,
    /// The first free slot of that chunk (3.11+).
    pub datastack_top: Option<Field<RemoteAddr>>,
    /// The sentinel frame at the root of the stack (3.15+): not a frame to be shown.
    pub base_frame: Option<Field<RemoteAddr>>,
    /// Bytes from the start of the structure that hold all of these.
    pub size: u32,
}

/// Which kind of frame there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameLayout {
    /// `PyFrameObject`, each its own object on the heap (to 3.10).
    Objects,
    /// `_PyInterpreterFrame`, packed into the chunks of the thread's data stack (3.11+).
    Interpreter,
}

/// What the frame's instruction field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InstructionPointer {
    /// `f_lasti`: byte offset of the last instruction, -1 before the first (to 3.9).
    ByteOffset,
    /// `f_lasti` in units of two bytes (3.10).
    UnitOffset,
    /// `prev_instr`: address of the code unit before the next instruction (3.11, 3.12).
    PreviousUnit,
    /// `instr_ptr`: address of the instruction that runs (3.13+).
    Current,
}

/// What stands at the root of a whole stack. A generator's frame has no caller for some instructions before it is
/// left (3.12 and later, as compiled) and after it is entered (3.11). A stack that is read then seems to begin with the
/// generator, and this tells the two apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StackRoot {
    /// Any frame.
    Any,
    /// Any frame but that of a generator which is at one of these opcodes, where generators are suspended or have
    /// ended (3.11). Others are the root when C code resumes a generator and no Python function is below.
    NotSuspended(&'static [u8]),
    /// A shim between C and Python (3.12 to 3.14), or the frame of a compiled function: an extension that links
    /// frames itself, such as a program built by Nuitka, has no shims.
    Shim,
    /// The thread state's base frame (3.15+).
    BaseFrame,
}

/// `PyFrameObject` or `_PyInterpreterFrame`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameOffsets {
    /// Which of the two.
    pub layout: FrameLayout,
    /// The caller's frame.
    pub previous: Field<RemoteAddr>,
    /// The code object; 3.14+: a tagged reference whose low bits are not address.
    pub code: Field<RemoteAddr>,
    /// How many low bits of `code` are a tag.
    pub code_tag_bits: u32,
    /// The instruction: four bytes for the two offset kinds, eight for the two address kinds.
    pub instruction: u32,
    /// What `instruction` holds.
    pub instruction_pointer: InstructionPointer,
    /// 3.11: 1 where C code called this frame (`is_entry`).
    pub is_entry: Option<Field<u8>>,
    /// 3.11+: who owns the frame.
    pub owner: Option<Field<u8>>,
    /// Free-threaded 3.14+: which of the code object's copies of the bytecode `instruction` points into.
    pub bytecode_copy: Option<Field<i32>>,
    /// Values of `owner` that mean that this is no Python function but a shim between C and Python.
    pub shim_owners: &'static [u8],
    /// How a whole stack ends.
    pub root: StackRoot,
    /// Bytes from the start of the structure that hold all of these.
    pub size: u32,
    /// To 3.10: what a frame object says of itself while it is executed. Read apart, where it is needed.
    pub executing: Option<Executing>,
}

/// The mark of a frame object that is being executed: `f_executing` to 3.9, `f_state` in 3.10. It is set after the frame
/// has become the thread's, and removed before the frame leaves the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Executing {
    /// The mark.
    pub mark: Field<i8>,
    /// Its value while the frame is executed.
    pub value: i8,
}

/// How a code object maps instructions to lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LineTableFormat {
    /// `co_lnotab` (to 3.9).
    Lnotab,
    /// `co_linetable` of line ranges, PEP 626 (3.10).
    LineRanges,
    /// `co_linetable` of locations with columns, PEP 657 (3.11+).
    Locations,
}

/// `PyCodeObject`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeOffsets {
    /// `co_filename`, a string.
    pub filename: Field<RemoteAddr>,
    /// `co_name`, a string.
    pub name: Field<RemoteAddr>,
    /// `co_qualname`, a string (3.11+).
    pub qualname: Option<Field<RemoteAddr>>,
    /// `co_firstlineno`.
    pub first_line: Field<i32>,
    /// `co_lnotab` or `co_linetable`, a bytes object.
    pub line_table: Field<RemoteAddr>,
    /// The format of `line_table`.
    pub line_table_format: LineTableFormat,
    /// `co_version` (3.12+): a number that no other code object of the interpreter has had, or 0.
    pub version: Option<Field<u32>>,
    /// Where the bytecode starts in the object itself (3.11+).
    pub bytecode: Option<u32>,
    /// Free-threaded 3.14+: pointer to the copies of the bytecode that threads run (`co_tlbc`).
    pub bytecode_copies: Option<Field<RemoteAddr>>,
    /// Number of code units of the bytecode: `ob_size` of the code object (3.11+).
    pub bytecode_units: Option<Field<i64>>,
    /// Bytes from the start of the structure that hold all of these.
    pub size: u32,
}

/// `PyObject` and `PyTypeObject`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectOffsets {
    /// `ob_type`.
    pub object_type: Field<RemoteAddr>,
    /// `tp_name` of a type, a C string.
    pub type_name: Field<RemoteAddr>,
    /// `tp_flags` of a type.
    pub type_flags: Field<u64>,
    /// `tp_basicsize` of a type.
    pub type_basic_size: Field<i64>,
    /// `tp_dictoffset` of a type.
    pub type_dict_offset: Field<i64>,
    /// `ht_cached_keys` of a heap type: the keys that instances share.
    pub type_cached_keys: Field<RemoteAddr>,
    /// Where instances keep their attributes when their type leaves it to the interpreter.
    pub managed_attributes: ManagedAttributes,
}

/// Where the attributes of an instance lie whose type has the flag `Py_TPFLAGS_MANAGED_DICT`. Of all other
/// types, `tp_dictoffset` says where the pointer to the dictionary is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManagedAttributes {
    /// There is no such flag (to 3.10).
    None,
    /// Two pointers before the object, one of them null: to the values and to the dictionary (3.11).
    ValuesOrDict {
        /// The pointer to the values, so many bytes before the object (32).
        values_before: u32,
        /// The pointer to the dictionary, so many bytes before the object (24).
        dict_before: u32,
    },
    /// One pointer before the object: to the dictionary, or, where its lowest bit is set, to one byte
    /// before the values (3.12).
    Tagged {
        /// So many bytes before the object (24).
        before: u32,
    },
    /// A pointer before the object to the dictionary; where it is null and the type has the flag
    /// `Py_TPFLAGS_INLINE_VALUES`, the values follow the object, at `tp_basicsize` (3.13+).
    Inline {
        /// So many bytes before the object (24; free-threaded: 8).
        dict_before: u32,
    },
}

/// `PyASCIIObject`, `PyCompactUnicodeObject` and the string that is not compact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnicodeOffsets {
    /// Number of code points.
    pub length: Field<i64>,
    /// The bit field with kind, compact and ascii.
    pub state: Field<u32>,
    /// By how many bits `kind` (3 bits, then `compact`, then `ascii`, one bit each) is shifted in `state`.
    pub kind_shift: u32,
    /// Where the characters of a compact ASCII string start.
    pub ascii_data: u32,
    /// Where the characters of another compact string start.
    pub compact_data: u32,
    /// Pointer to the characters of a string that is not compact.
    pub data: Field<RemoteAddr>,
}

/// `PyBytesObject`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BytesOffsets {
    /// Number of bytes.
    pub length: Field<i64>,
    /// Where they start.
    pub data: u32,
}

/// `PyDictObject`, `PyDictKeysObject` and where an instance keeps its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DictOffsets {
    /// `ma_keys`.
    pub keys: Field<RemoteAddr>,
    /// `ma_values`: null unless the dictionary shares its keys.
    pub values: Field<RemoteAddr>,
    /// `dk_size` (to 3.10): number of index slots.
    pub index_slots: Option<Field<i64>>,
    /// `dk_log2_size` (3.11+): its logarithm.
    pub log2_index_slots: Option<Field<u8>>,
    /// `dk_log2_index_bytes` (3.11+).
    pub log2_index_bytes: Option<Field<u8>>,
    /// `dk_kind` (3.11+): 0 where entries carry a hash.
    pub kind: Option<Field<u8>>,
    /// `dk_nentries`.
    pub entry_count: Field<i64>,
    /// Where the index slots start; the entries follow them.
    pub indices: u32,
    /// Where the first value stands in `ma_values` (or in inline values), in bytes.
    pub values_start: u32,
}

/// `PyLongObject`: 30 bits a digit, lowest digit first, four bytes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongOffsets {
    /// To 3.11 `ob_size`: the number of digits, negative for a negative number. 3.12+ `lv_tag`: the number
    /// of digits above `tag_bits` bits, of which the lowest two are 2 for a negative number.
    pub size: Field<i64>,
    /// How many low bits of `size` do not count digits: 0 to 3.11, 3 from 3.12.
    pub tag_bits: u32,
    /// Where the digits start.
    pub digits: u32,
}
