//! Which processes, modules and runtimes there are: finding the Python of a process, the files and sources of its modules,
//! and the births, programs and ends of the processes of a tree.
//!
//! A [`Target`] is a process whose Python was found; a [`Search`] looks for it, and is patient with a process that is only
//! beginning.
#![forbid(unsafe_code)]

mod attach;
mod other_runtimes;
mod short_file;
mod sources;
mod tree;

pub use attach::{AttachError, ForkedRuntime, MappedModules, Search, Target};
pub use other_runtimes::{OtherRuntime, OtherRuntimes, other_pythons};
pub use short_file::ShortFiles;
pub use sources::Sources;
pub use tree::{Change, Tree, family};
