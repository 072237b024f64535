//! From captured stacks to frames with names: the resolver, with the target's files for short names.

use profiler_memory::AheadPages;
use profiler_model::{Frame, LossReason, RemoteAddr};
use profiler_os::Process;
use profiler_python::{CodeHead, RawStack};
use profiler_stack::{Describe, Resolver};

use crate::Target;
use crate::capture::{Capture, CodeHeads, Identity, loss};
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
            let identity = capture.identity(frame.code).ok_or(LossReason::Unreadable)?;
            let known = self.resolver.head(frame.code).copied();
            let head = match (identity, known) {
                (Identity::AtInstant(head), _) => head,
                (Identity::Afterwards(head), Some(known)) if head == known => head,
                (Identity::Unfreed, Some(known)) => known,
                (Identity::Afterwards(_) | Identity::Unfreed, _) => {
                    // Another object by now, or a forgotten one: what it was cannot be told any more.
                    changed = true;
                    continue;
                }
            };
            if known != Some(head) {
                new.push((frame.code, head));
            }
            let short_files = &mut self.short_files;
            let mut describe = Describe { shorten: &mut |file| short_files.shorten(file), intern };
            match self.resolver.resolve(&memory, target.offsets(), frame, &head, &mut describe) {
                Ok(id) => ids.extend(id),
                Err(_) => changed = true,
            }
        }
        if changed | self.forget_changed(target, &new)? { Err(LossReason::CodeChanged) } else { Ok(ids) }
    }

    /// Of code objects that were read just now, forgets those that were not the captured ones all the while:
    /// what was read through their pointers may belong to other objects. Returns whether there were any.
    fn forget_changed(
        &mut self,
        target: &Target,
        new: &[(RemoteAddr, CodeHead)],
    ) -> Result<bool, LossReason> {
        let codes = new.iter().map(|(code, _)| *code).collect();
        let now = CodeHeads::read(target.memory(), target.offsets(), codes).map_err(loss)?;
        let mut any = false;
        for (code, _) in new.iter().filter(|(code, head)| now.head(*code) != Some(*head)) {
            self.resolver.forget(*code);
            any = true;
        }
        Ok(any)
    }
}
