//! Native code from outside: the modules of a process, how their stacks unwind, and what their addresses are called.
#![forbid(unsafe_code)]

pub mod modules;
#[cfg(test)]
mod test_image;
pub mod unwind;
