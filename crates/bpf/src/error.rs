//! Why the in-kernel sampler does not work.

use std::error::Error;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;

use crate::error_chain::ErrorChain;
use crate::layout::MAX_RUNTIMES;
use crate::task_layout::Unfit;

/// So many processes can be sampled at once (`MAX_PROCESSES`).
pub(crate) const MAX_PROCESSES: usize = 1024;

/// Why the in-kernel sampler does not work here.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// The object was refused: the kernel is too old, lacks BPF, or does not permit it.
    #[error("the kernel does not take the program: {}", ErrorChain(.0))]
    Load(#[from] EbpfError),
    /// The program was refused by the verifier, or the event could not be opened.
    #[error("the kernel does not run the program: {}", ErrorChain(.0))]
    Program(#[from] ProgramError),
    /// The kernel refused a clock by which the program is run, in this call.
    #[error("the kernel does not run the program: `{0}` failed: {1}")]
    Event(&'static str, #[source] std::io::Error),
    /// A map could not be read or written.
    #[error("the program's map: {}", ErrorChain(.0))]
    Map(#[from] MapError),
    /// The program has room for no other process.
    #[error("more than {MAX_PROCESSES} processes at once")]
    TooManyProcesses,
    /// The program has room for no other runtime in one process.
    #[error("more than {MAX_RUNTIMES} Python runtimes in one process")]
    TooManyRuntimes,
    /// Which CPUs there are could not be read.
    #[error("cannot tell which CPUs are online (/sys/devices/system/cpu/online): {0}")]
    Cpus(#[source] std::io::Error),
    /// The kernel does not describe its own types.
    #[error("the kernel does not describe its types (/sys/kernel/btf/vmlinux): {0}")]
    Types(String),
    /// The arguments of the scheduler's context-switch tracepoint are not the known ones.
    #[error("the kernel reports context switches in another form than Linux 5.19 and later")]
    Switches,
    /// Which PID namespace this is could not be found out.
    #[error("the kernel does not tell which PID namespace this is: {0}")]
    Namespace(String),
    /// The object lacks something that is asked of it.
    #[error("the program has no {0}")]
    Missing(&'static str),
}

impl From<Unfit> for BpfError {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Types(reason) => BpfError::Types(reason),
            Unfit::Switches => BpfError::Switches,
        }
    }
}

impl BpfError {
    /// Whether the rights are missing.
    pub fn is_permission(&self) -> bool {
        self.number().is_some_and(|number| matches!(number, libc::EPERM | libc::EACCES))
    }

    /// Whether the kernel says that it has no such call.
    pub fn is_missing_call(&self) -> bool {
        self.number() == Some(libc::ENOSYS)
    }

    /// Whether it is about a clock by which the program is run, and not about the program.
    pub fn is_of_event(&self) -> bool {
        matches!(self, BpfError::Event("perf_event_open", _))
    }

    /// Whether this process may not open as many files as it takes.
    pub fn is_out_of_files(&self) -> bool {
        self.number() == Some(libc::EMFILE)
    }

    /// The number of the operating system's error behind this one.
    fn number(&self) -> Option<i32> {
        let first: &(dyn Error + 'static) = self;
        let causes = std::iter::successors(Some(first), |error: &&(dyn Error + 'static)| (*error).source());
        causes.filter_map(|error| error.downcast_ref::<std::io::Error>()?.raw_os_error()).next()
    }
}
