//! A process that is sampled, whatever it runs.

use std::sync::Arc;

use profiler_model::Pid;
use profiler_os::{Process, ProcessMemory};

use crate::attach_error::{AttachError, refusal, unseen};

/// A process that is sampled, with its memory and its identity.
#[derive(Debug)]
pub struct TargetProcess {
    process: Process,
    memory: ProcessMemory,
    executable: Arc<str>,
    command_line: String,
    start_time: u64,
}

impl TargetProcess {
    /// Opens process `pid`. Nothing is done to it.
    ///
    /// # Errors
    /// When there is no such process, it may not be read, or it is ending.
    pub fn open(pid: Pid) -> Result<Self, AttachError> {
        let process = Process::new(pid);
        let stat = process.stat().map_err(|error| unseen(&process, &error))?;
        if !process.is_alive() {
            return Err(AttachError::ProcessEnded(pid));
        }
        let executable = process.executable().map_err(|error| refusal(&process, &error))?;
        // Who may list the mappings may read the memory.
        process.mappings().map_err(|error| refusal(&process, &error))?;
        let executable = executable.to_string_lossy().into();
        Ok(TargetProcess::new(process, ProcessMemory::new(pid), executable, stat.start_time))
    }

    pub(crate) fn new(
        process: Process,
        memory: ProcessMemory,
        executable: Arc<str>,
        start_time: u64,
    ) -> Self {
        let command_line = process.command_line().unwrap_or_default();
        TargetProcess { process, memory, executable, command_line, start_time }
    }

    /// The same process, read independently.
    pub(crate) fn with_own_memory(&self) -> Self {
        TargetProcess {
            process: self.process,
            memory: ProcessMemory::new(self.process.pid()),
            executable: Arc::clone(&self.executable),
            command_line: self.command_line.clone(),
            start_time: self.start_time,
        }
    }

    pub(crate) fn shared_executable(&self) -> Arc<str> {
        Arc::clone(&self.executable)
    }

    /// Its id.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// When it was started, in the kernel's ticks since boot: with the id, what tells it from a later process.
    pub fn start_time(&self) -> u64 {
        self.start_time
    }

    /// The path of its executable, as it sees it itself.
    pub fn executable(&self) -> &str {
        &self.executable
    }

    /// The command it was started with.
    pub fn command_line(&self) -> &str {
        &self.command_line
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its memory.
    pub fn memory(&self) -> &ProcessMemory {
        &self.memory
    }

    /// Whether it still runs the program that it was opened with, as far as its executable says.
    pub fn runs_same_program(&self) -> bool {
        self.process.executable().is_ok_and(|now| now.to_str() == Some(&self.executable))
    }
}
