//! Native code from outside: the modules of a process, how their stacks unwind, and what their addresses are called.
#![forbid(unsafe_code)]

mod functions;
pub mod modules;
mod symbols;
#[cfg(test)]
mod test_image;
pub mod unwind;

pub use functions::{function_ranges, needed_libraries, unwound_functions};
pub use symbols::{
    DebugFileRefusal, DebugFileRequest, FunctionAt, FunctionChain, FunctionName, JitDump, JitFunction,
    NameSource, PerfMap, ReadAt, SymbolProblem, Symbolizer,
};
