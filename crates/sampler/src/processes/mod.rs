//! The processes of a session: which are sampled, which have no Python (yet), and what became of each.
//!
//! A process whose Python is not up is tried again, at once after an `exec` and then ever less often. A child of a sampled process
//! shares all addresses with it until it runs another program, so its Python is only proved, and not searched for.
//!
//! What asks the system is behind the trait [`ProcessHost`]; `linux_host` implements it. All else decides and counts: what became of each
//! instant of each process is written as events. `simulation` tests that on a scripted machine.

mod accounts;
mod census;
mod due_instants;
mod host;
mod kernel_reader;
mod linux_host;
mod linux_sampler;
mod member;
mod passed_instants;
mod pending;
mod process_set;
mod pythons;
mod records;
mod scheduled_instants;
mod table;

#[cfg(test)]
mod simulation;

pub use kernel_reader::KernelReader;
pub use linux_host::LinuxHost;
pub use process_set::ProcessSet;
pub use scheduled_instants::ScheduledInstants;
