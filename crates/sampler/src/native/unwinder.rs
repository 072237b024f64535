//! Unwinds copied stacks of a process by the rows of its modules.

use std::sync::Arc;

use profiler_memory::{ReadError, ReadMemory};
use profiler_model::{LossReason, ModuleNumber, Nanos, Registers, RemoteAddr, Timestamp};
use profiler_native::unwind::{self, UnwindEnd, UnwindRegisters, walk};
use profiler_os::priority::OrdinaryMeanwhile;
use profiler_os::{ProcessMemory, clock};
use profiler_stack::{CodeLocation, NativeStack};
use profiler_target::{NativeCode, TargetProcess};

use super::stack_copy::StackCopy;

/// What was copied of a stopped thread.
#[derive(Debug, Default)]
pub struct ThreadCopy {
    /// Its registers.
    pub registers: Registers,
    /// The top of its stack.
    pub stack: StackCopy,
}

/// The modules are read again for a program counter in none of them at most this often: code may stay unknown.
const REFRESH_GAP: Nanos = Nanos::from_nanos(20_000_000);

/// Unwinds the stacks of a process.
#[derive(Debug, Default)]
pub struct Unwinder {
    code: NativeCode,
    next_refresh: Timestamp,
}

impl Unwinder {
    /// For the modules that a process has now.
    pub fn of(process: &TargetProcess) -> Self {
        let mut unwinder = Unwinder::default();
        unwinder.refresh(process);
        unwinder
    }

    fn refresh(&mut self, process: &TargetProcess) {
        // Compiling the unwind information of a large library takes tenths of a second.
        let _ordinary = OrdinaryMeanwhile::begin();

        // A process whose mappings cannot be read is ending, which sampling it finds out.
        let _ = self.code.refresh(process);
        self.next_refresh = clock::now() + REFRESH_GAP;
    }

    /// The path of a module.
    pub fn module_path(&self, number: ModuleNumber) -> Arc<str> {
        self.code.code(number).map(|code| Arc::clone(&code.path)).unwrap_or_default()
    }

    /// The modules of the process.
    pub fn code(&self) -> &NativeCode {
        &self.code
    }

    /// The frames of a thread. If a program counter lies in no module the process may have loaded one: its modules are read again.
    ///
    /// # Errors
    /// When the stack does not lead to the place where the thread began.
    pub fn unwind(&mut self, process: &TargetProcess, copy: &ThreadCopy) -> Result<NativeStack, LossReason> {
        let (mut frames, mut end) = self.walk(process, copy);
        if matches!(end, UnwindEnd::NoModule(_)) && clock::now() >= self.next_refresh {
            self.refresh(process);
            (frames, end) = self.walk(process, copy);
        }
        let is_truncated = match end {
            UnwindEnd::Root => false,
            UnwindEnd::TooDeep => true,
            UnwindEnd::Unreadable(at) if at >= copy.stack.end() => return Err(LossReason::StackNotCopied),
            UnwindEnd::Unreadable(_) => return Err(LossReason::Unreadable),
            UnwindEnd::NoRule(_)
            | UnwindEnd::UnknownRegister(_)
            | UnwindEnd::NotUpwards(_)
            | UnwindEnd::NoModule(_)
            | UnwindEnd::NoCall(_) => return Err(LossReason::NoUnwindInfo),
        };
        let frames = frames.iter().filter_map(|frame| self.frame(frame)).collect();
        Ok(NativeStack { frames, is_truncated })
    }

    fn walk(&self, process: &TargetProcess, copy: &ThreadCopy) -> (Vec<unwind::NativeFrame>, UnwindEnd) {
        let Registers { general, instruction_pointer } = copy.registers;
        let registers = UnwindRegisters::new(general, instruction_pointer);
        let memory = StackAndCode { stack: &copy.stack, code: &self.code, memory: process.memory() };
        let mut frames = Vec::new();
        let end = walk(registers, &memory, self.code.map(), |index| self.code.table(index), &mut frames);
        (frames, end)
    }

    fn frame(&self, frame: &unwind::NativeFrame) -> Option<CodeLocation> {
        let module = self.code.number_of(frame.address.module)?;
        Some(CodeLocation { module, offset: frame.address.offset })
    }
}

/// The copy of a stack, and code, which does not change. Nothing else is read of a thread that runs on.
struct StackAndCode<'a> {
    stack: &'a StackCopy,
    code: &'a NativeCode,
    memory: &'a ProcessMemory,
}

impl ReadMemory for StackAndCode<'_> {
    fn read(&self, at: RemoteAddr, into: &mut [u8]) -> Result<(), ReadError> {
        let last = at.offset(into.len().saturating_sub(1) as u64);
        match self.code.is_code(at) && self.code.is_code(last) {
            true => self.memory.read(at, into),
            false => self.stack.read(at, into),
        }
    }
}
