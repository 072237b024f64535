//! Which processes, modules and runtimes there are: finding the Python of a process, the files and sources of its modules,
//! and the births, programs and ends of the processes of a tree.
//!
//! A [`TargetProcess`] is a process, whatever it runs; a [`Target`] is one Python of it. A [`Search`] looks for that, and is patient with a
//! process that is only beginning.
#![forbid(unsafe_code)]

mod attach;
mod attach_error;
mod launcher;
mod native_code;
mod native_names;
mod other_runtimes;
mod short_file;
mod sources;
mod target_process;
mod tree;

pub use attach::{ForkedRuntime, MappedModules, Search, Target};
pub use attach_error::AttachError;
pub use launcher::may_become_python;
pub use native_code::{ModuleCode, NativeCode};
pub use native_names::NativeNames;
pub use other_runtimes::{OtherRuntime, OtherRuntimes, other_pythons};
pub use short_file::ShortFiles;
pub use sources::Sources;
pub use target_process::TargetProcess;
pub use tree::{Change, Tree, family};
