//! What `/proc` shows of processes and threads.

mod activity;
mod arguments;
mod kernel_stack;
mod mapping;
mod process;
mod stat;
mod thread_files;
mod view;

pub use activity::{Activity, CopyEnd};
pub use mapping::Mapping;
pub use process::Process;
pub use stat::Stat;
pub use thread_files::ThreadFiles;
pub use view::{ProcView, proc_view};
