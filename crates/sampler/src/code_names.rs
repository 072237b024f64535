//! From captured stacks to frames with names: the resolver, with the target's files for short names.

use profiler_memory::AheadPages;
use profiler_model::{Frame, LossReason, RemoteAddr};
use profiler_os::Process;
use profiler_python::RawStack;
use profiler_stack::{Describe, Resolver};

use crate::Target;
use crate::capture::{Capture, loss};
use crate::short_file::ShortFiles;

/// Gives frames their names, each an `Id` that the caller chooses.
#[derive(Debug)]
pub struct CodeNames<Id> {
    resolver: Resolver<Id>,
    short_files: ShortFiles,
    ahead: AheadPages,
}

impl<Id: Copy> CodeNames<Id> {
    /// For the code of `process`.
    pub fn new(process: Process) -> Self {
        CodeNames {
            resolver: Resolver::new(),
            short_files: ShortFiles::new(process),
            ahead: AheadPages::default(),
        }
    }

    /// The ids of the frames of `stack`, root first; `intern` gives an id to a frame that is met for the first
    /// time.
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
        let memory = self.ahead.renewed(target.memory());
        let mut ids = Vec::with_capacity(stack.frames.len());
        let mut new = Vec::new();
        let mut changed = false;
        for frame in stack.frames.iter().rev() {
            let head = capture.head(frame.code).ok_or(LossReason::Unreadable)?;
            if !self.resolver.knows(frame.code, &head) {
                new.push(frame.code);
            }
            let short_files = &mut self.short_files;
            let mut describe = Describe { shorten: &mut |file| short_files.shorten(file), intern };
            match self.resolver.resolve(&memory, target.offsets(), frame, &head, &mut describe) {
                Ok(id) => ids.extend(id),
                Err(_) => changed = true,
            }
        }
        if changed | self.forget_changed(target, capture, new)? {
            Err(LossReason::CodeChanged)
        } else {
            Ok(ids)
        }
    }

    /// Of code objects that were read just now, forgets those that were not the captured ones all the while:
    /// what was read through their pointers may belong to other objects. Returns whether there were any.
    fn forget_changed(
        &mut self,
        target: &Target,
        capture: &Capture,
        new: Vec<RemoteAddr>,
    ) -> Result<bool, LossReason> {
        if new.is_empty() {
            return Ok(false);
        }
        let now = Capture::of_codes(target.memory(), target.offsets(), new.clone()).map_err(loss)?;
        let changed: Vec<_> = new.into_iter().filter(|code| now.head(*code) != capture.head(*code)).collect();
        changed.iter().for_each(|code| self.resolver.forget(*code));
        Ok(!changed.is_empty())
    }
}
