//! Native code from outside: the modules of a process, how their stacks unwind, and what their addresses are called.
#![forbid(unsafe_code)]

mod symbols;

pub use symbols::{
    DebugFileRefusal, DebugFileRequest, FunctionAt, FunctionChain, FunctionName, JitDump, JitFunction,
    NameSource, PerfMap, ReadAt, SymbolProblem, Symbolizer,
};
