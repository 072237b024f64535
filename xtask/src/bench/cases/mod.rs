//! The cases of the benchmark, one file each.

mod dump;
mod ending;
mod in_kernel;
mod lockstep;
mod matrix;
mod memory;
mod phases;
mod recorded_tree;
mod requests;
mod shares;
mod slowdown;
mod storm;
mod top;
mod tree;

use anyhow::Result;

use super::options::Options;
use super::table::Table;

/// A case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// The labyrinth at 1 kHz.
    Labyrinth,
    /// The same in short phases.
    Phases,
    /// The labyrinth at several rates on every interpreter.
    Matrix,
    /// Idle threads beside a busy one.
    Threads,
    /// Hundreds of threads, many of them running.
    ManyThreads,
    /// A hundred processes.
    Tree,
    /// Fifty processes with four threads each.
    Fleet,
    /// Short-lived processes.
    Storm,
    /// `dump` of a deep stack.
    Dump,
    /// Resident memory of `record`.
    Memory,
    /// Shares of CPU time.
    Shares,
    /// Programs of even intervals.
    Lockstep,
    /// How late a recording ends.
    Ending,
    /// The live view.
    Top,
    /// The time that the in-kernel program takes, by depth.
    InKernel,
    /// Servers under load.
    Requests,
}

impl Case {
    /// All cases.
    pub const ALL: [Case; 16] = [
        Case::Labyrinth,
        Case::Phases,
        Case::Matrix,
        Case::Threads,
        Case::ManyThreads,
        Case::Tree,
        Case::Fleet,
        Case::Storm,
        Case::Dump,
        Case::Memory,
        Case::Shares,
        Case::Lockstep,
        Case::Ending,
        Case::Top,
        Case::InKernel,
        Case::Requests,
    ];

    /// What it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Case::Labyrinth => "labyrinth",
            Case::Phases => "phases",
            Case::Matrix => "matrix",
            Case::Threads => "threads",
            Case::ManyThreads => "many_threads",
            Case::Tree => "tree",
            Case::Fleet => "fleet",
            Case::Storm => "storm",
            Case::Dump => "dump",
            Case::Memory => "memory",
            Case::Shares => "shares",
            Case::Lockstep => "lockstep",
            Case::Ending => "ending",
            Case::Top => "top",
            Case::InKernel => "in_kernel",
            Case::Requests => "requests",
        }
    }

    /// Measures.
    pub fn run(self, options: &Options) -> Result<Vec<Table>> {
        match self {
            Case::Labyrinth => slowdown::labyrinth(options),
            Case::Phases => phases::run(options),
            Case::Matrix => matrix::run(options),
            Case::Threads => slowdown::idle_threads(options),
            Case::ManyThreads => slowdown::many_threads(options),
            Case::Tree => tree::hundred_processes(options),
            Case::Fleet => tree::fleet(options),
            Case::Storm => storm::run(options),
            Case::Dump => dump::run(options),
            Case::Memory => memory::run(options),
            Case::Shares => shares::run(options),
            Case::Lockstep => lockstep::run(options),
            Case::Ending => ending::run(options),
            Case::Top => top::run(options),
            Case::InKernel => in_kernel::run(options),
            Case::Requests => requests::run(options),
        }
    }
}
