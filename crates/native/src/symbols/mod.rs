//! What addresses of native code are called: functions, inlined functions, files and lines.
//!
//! [`Symbolizer`] names the addresses of one module. It does no I/O: the caller gives it files as [`ReadAt`], and the debug
//! files that it asks for. [`PerfMap`] and [`JitDump`] name code that was compiled at run time.

mod code_map;
mod compressed;
mod debug_files;
mod debug_info;
mod elf_image;
mod function_name;
mod go_functions;
mod jit_dump;
mod name_cache;
mod perf_map;
mod problem;
mod read_at;
mod section_reader;
mod symbol_table;
mod symbolizer;
#[cfg(test)]
mod tests;
mod work_meter;
mod x86_64;

pub use code_map::JitFunction;
pub use debug_files::DebugFileRequest;
pub use function_name::FunctionName;
pub use jit_dump::JitDump;
pub use perf_map::PerfMap;
pub use problem::{DebugFileRefusal, SymbolProblem};
pub use read_at::ReadAt;
pub use symbolizer::{FunctionAt, FunctionChain, NameSource, Symbolizer};
