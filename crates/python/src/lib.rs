//! CPython from outside: everything that is known of its memory, and nothing of how it is fetched.
//!
//! The crate reads through [`profiler_memory::ReadMemory`] and does no I/O: a live process, a core file
//! and a stored snapshot are walked by the same code. What differs by version is data in [`Offsets`];
//! whoever uses this crate never sees a version number decide anything.
#![forbid(unsafe_code)]

mod asyncio;
mod code;
mod debug_offsets;
mod dict;
mod find;
mod frames;
#[cfg(test)]
mod hostile;
mod instance;
mod integers;
mod interpreters;
mod line_table;
mod locals;
mod native_ids;
mod number_text;
mod numpy;
mod numpy_time;
mod offsets;
mod repr;
mod shortest;
mod strings;
mod thread_names;
mod value_offsets;
mod versions;

pub use asyncio::{
    ASYNCIO_SECTION, AsyncioOffsets, CoroutineState, GeneratorOffsets, MAX_COROUTINES, MAX_TASKS, RawTask,
    read_task, running_task,
};
pub use code::{CodeError, CodeHead, CodeObject, MAX_CODE_HEAD_BYTES, MAX_LINE_TABLE_BYTES, code_type};
pub use debug_offsets::{COOKIE, MAX_DEBUG_OFFSETS_BYTES, parse as parse_debug_offsets};
pub use find::{
    CountPlace, Evidence, FindError, GilAddresses, Module, ModuleMapping, NotPython, Runtime, Whereabouts,
    find, find_opening, find_others, is_python_file, whereabouts,
};
pub use frames::{Callers, CopiedFrame, MAX_FRAMES, RawFrame, RawStack, STACK_PAGE_BYTES, WalkError};
pub use interpreters::{
    Interpreter, MAX_INTERPRETERS, MAX_THREAD_STATES, PyThreadState, first_interpreters, first_thread_states,
    interpreters, thread_states,
};
pub use line_table::{LineEntry, LineTable};
pub use locals::{MAX_VARIABLES, variables};
pub use native_ids::native_ids;
pub use offsets::{
    BytesOffsets, CodeCount, CodeOffsets, DictOffsets, Executing, FrameLayout, FrameOffsets, GilOffsets,
    InstructionPointer, InterpreterOffsets, LineTableFormat, LongOffsets, ManagedAttributes, ObjectOffsets,
    Offsets, OffsetsError, RuntimeOffsets, StackRoot, ThreadOffsets, UnicodeOffsets, Version,
};
pub use repr::{ReprLimits, Values};
pub use strings::{CUT_MARK, MAX_STRING_CODE_POINTS, StringError, read_bytes, read_string};
pub use thread_names::{thread_names, thread_names_of};
pub use value_offsets::{ValueOffsets, VariableLayout};
pub use versions::offsets_for;
