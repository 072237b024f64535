//! The binary `profiler`.
#![forbid(unsafe_code)]

fn main() {}
