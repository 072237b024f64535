//! From captured stacks to frames with names: the resolver, with the target's files for short names.

use profiler_model::{Frame, LossReason};
use profiler_os::Process;
use profiler_python::RawStack;
use profiler_stack::{Describe, Resolver};

use crate::Target;
use crate::capture::Capture;
use crate::short_file::ShortFiles;

/// Gives frames their names, each an `Id` that the caller chooses.
#[derive(Debug)]
pub struct CodeNames<Id> {
    resolver: Resolver<Id>,
    short_files: ShortFiles,
}

impl<Id: Copy> CodeNames<Id> {
    /// For the code of `process`.
    pub fn new(process: Process) -> Self {
        CodeNames { resolver: Resolver::new(), short_files: ShortFiles::new(process) }
    }

    /// The ids of the frames of `stack`, root first, each handed to `each`; `intern` gives an id to a frame
    /// that is met for the first time.
    ///
    /// # Errors
    /// When a frame has no name that is certain: its code object is another one by now.
    pub fn root_first(
        &mut self,
        target: &Target,
        capture: &Capture,
        stack: &RawStack,
        intern: &mut dyn FnMut(&Frame) -> Id,
    ) -> Result<Vec<Id>, LossReason> {
        let mut ids = Vec::with_capacity(stack.frames.len());
        for frame in stack.frames.iter().rev() {
            let head = capture.head(frame.code).ok_or(LossReason::Unreadable)?;
            let short_files = &mut self.short_files;
            let mut describe = Describe { shorten: &mut |file| short_files.shorten(file), intern };
            let id = self.resolver.resolve(target.memory(), target.offsets(), frame, &head, &mut describe);
            ids.extend(id.map_err(|_| LossReason::CodeChanged)?);
        }
        Ok(ids)
    }
}
