//! From captured stacks to frames with names: the resolver, with the target's files for short names.

use std::sync::Arc;

use profiler_memory::{CopiedPages, ReadMemory};
use profiler_model::{Frame, LossReason, RemoteAddr};
use profiler_os::Process;
use profiler_python::{CodeError, CodeHead, RawFrame, RawStack};
use profiler_stack::{CodeEvidence, Describe, Identity, Resolver};
use profiler_target::{ShortFiles, Target};

/// Gives frames their names, each an `Id` that the caller chooses.
#[derive(Debug)]
pub struct CodeNames<Id> {
    resolver: Resolver<Id>,
    short_files: ShortFiles,
}

impl<Id: Copy> CodeNames<Id> {
    /// Forgets the ids of all frames, and keeps what names them.
    pub fn forget_ids(&mut self) {
        self.resolver.forget_ids();
    }

    /// For the code of `process`.
    pub fn new(process: Process) -> Self {
        CodeNames { resolver: Resolver::new(), short_files: ShortFiles::new(process) }
    }

    /// The short form of a file's path.
    pub fn shorten(&mut self, file: &Arc<str>) -> Arc<str> {
        self.short_files.shorten(file)
    }

    /// The ids of the frames of `stack`, root first; `intern` gives an id to a frame that is met for the first
    /// time. Frames that are not to be shown are left out.
    ///
    /// # Errors
    /// When a frame has no name that is certain: its code object is another one by now.
    pub fn root_first(
        &mut self,
        target: &Target,
        capture: &CodeEvidence,
        stack: &RawStack,
        intern: &mut dyn FnMut(&Frame) -> Id,
    ) -> Result<Vec<Id>, LossReason> {
        let ids = self.each_root_first(target, capture, stack, intern)?;
        Ok(ids.into_iter().flatten().collect())
    }

    /// The same for each frame, with `None` for those that are not to be shown.
    ///
    /// # Errors
    /// As for [`CodeNames::root_first`].
    pub fn each_root_first(
        &mut self,
        target: &Target,
        capture: &CodeEvidence,
        stack: &RawStack,
        intern: &mut dyn FnMut(&Frame) -> Id,
    ) -> Result<Vec<Option<Id>>, LossReason> {
        let (memory, offsets) = (target.memory(), target.offsets());
        let mut ids = Vec::with_capacity(stack.frames.len());
        for frame in stack.frames.iter().rev() {
            let identity = capture.identity(frame.code).ok_or(LossReason::Unreadable)?;
            if let Some(id) = self.met(frame, &identity) {
                ids.push(Some(id));
                continue;
            }
            let head = self.head(target, capture, frame.code, identity)?;
            let short_files = &mut self.short_files;
            let mut describe = Describe { shorten: &mut |file| short_files.shorten(file), intern };
            // What is known needs no memory but for the bytecode that a thread without a GIL copied.
            let id = match self.resolver.head(frame.code) == Some(&head) {
                true => self.resolver.resolve(memory, offsets, frame, &head, &mut describe),
                false => self.resolver.resolve(capture.names(), offsets, frame, &head, &mut describe),
            };
            ids.push(id.map_err(|_| LossReason::CodeChanged)?);
        }
        Ok(ids)
    }

    /// The id of one frame whose code object had the bytes `head`; its names, unless they are known, are in `names`.
    /// `None` for a frame that is not to be shown.
    ///
    /// # Errors
    /// When the names are not there.
    pub fn sent(
        &mut self,
        target: &Target,
        names: &impl ReadMemory,
        frame: &RawFrame,
        head: &CodeHead,
        intern: &mut dyn FnMut(&Frame) -> Id,
    ) -> Result<Option<Id>, CodeError> {
        let (memory, offsets) = (target.memory(), target.offsets());
        let short_files = &mut self.short_files;
        let mut describe = Describe { shorten: &mut |file| short_files.shorten(file), intern };
        if self.resolver.head(frame.code) == Some(head) {
            return self.resolver.resolve(memory, offsets, frame, head, &mut describe);
        }
        if self.resolver.learn_type(memory, offsets, frame.code, false).is_err() {
            // The process may have ended since it sent this.
            self.resolver.learn_type(names, offsets, frame.code, true)?;
        }
        self.resolver.resolve(names, offsets, frame, head, &mut describe)
    }

    /// Looks again at a code object whose names are in `names` now: forgets those that it had before, if they
    /// are others; returns whether it did.
    pub fn recheck(&mut self, target: &Target, names: &CopiedPages, code: RemoteAddr) -> bool {
        self.resolver.check(names, target.offsets(), code)
    }

    /// The id of a frame that was met before in the same code object.
    fn met(&self, frame: &RawFrame, identity: &Identity) -> Option<Id> {
        match identity {
            Identity::Unreplaced => self.resolver.met(frame, None),
            Identity::AtInstant(head) | Identity::Afterwards(head) => self.resolver.met(frame, Some(head)),
            Identity::FirstSeen(_) => None,
        }
    }

    /// The head that the code object with this `identity` had at the instant of the capture.
    fn head(
        &mut self,
        target: &Target,
        capture: &CodeEvidence,
        code: RemoteAddr,
        identity: Identity,
    ) -> Result<CodeHead, LossReason> {
        let known = self.resolver.head(code).copied();
        match (identity, known) {
            (Identity::FirstSeen(head), _) => {
                let (memory, offsets) = (target.memory(), target.offsets());
                let typed = self.resolver.learn_type(memory, offsets, code, false);
                typed.map_err(|_| LossReason::CodeChanged)?;
                self.resolver.check(capture.names(), offsets, code);
                Ok(head)
            }
            (Identity::AtInstant(head) | Identity::Afterwards(head), Some(known)) if head == known => {
                Ok(head)
            }
            (Identity::Unreplaced, Some(known)) => Ok(known),
            // Another object by now, or one that was forgotten: what it was cannot be told any more.
            _ => Err(LossReason::CodeChanged),
        }
    }
}
