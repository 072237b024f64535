//! From what the in-kernel program sends of one process to stacks with names.
//!
//! Frames come with what they said, and become a stack by the same rules as everywhere. Each brings a hash of the
//! bytes that identify its code object at that instant; the names came before it, when the program met these bytes
//! for the first time. Names and line tables that are too long to be sent are read afterwards.

use profiler_bpf::{FrameRecord, NamesRecord, Outcome, StackRecord, head_hash};
use profiler_memory::CopiedPages;
use profiler_model::{Frame, LossReason, RemoteAddr};
use profiler_python::{CodeHead, CopiedFrame, Offsets, RawStack};
use profiler_stack::MAX_CODE_OBJECTS;
use rustc_hash::FxHashMap;

use crate::Target;
use crate::code_names::CodeNames;

/// The names that were sent of a process's code objects.
#[derive(Debug, Default)]
pub struct SentNames {
    known: FxHashMap<RemoteAddr, Named>,
    /// Code objects whose names have to be sent again.
    missing: Vec<RemoteAddr>,
}

/// A code object whose names were sent.
#[derive(Debug)]
struct Named {
    hash: u64,
    head: CodeHead,
    memory: CopiedPages,
    /// Whether some frame got its name from them: they are in the resolver now.
    is_resolved: bool,
}

/// What became known with the names of a code object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Its names, for the first time or again.
    Names,
    /// The address had another code object before, and nothing in the bytes that identify them tells such
    /// objects apart for certain.
    ReusedAddress,
}

impl SentNames {
    /// Keeps the names of a code object.
    pub fn keep<Id: Copy>(
        &mut self,
        target: &Target,
        sent: &NamesRecord<'_>,
        names: &mut CodeNames<Id>,
    ) -> Sent {
        if self.known.len() >= MAX_CODE_OBJECTS {
            // They are asked for again as they are met.
            self.known.clear();
        }
        let (offsets, code) = (target.offsets(), sent.code());
        let memory = CopiedPages::new();
        sent.pieces().for_each(|(at, bytes)| memory.put(at, bytes));
        let Some(head) = CodeHead::read(&memory, offsets, code)
            .ok()
            .filter(|head| head_hash(head.as_bytes()) == sent.head_hash())
        else {
            return Sent::Names;
        };
        names.recheck(target, &memory, code);
        let new = Named { hash: sent.head_hash(), head, memory, is_resolved: false };
        match self.known.insert(code, new) {
            Some(before) if before.head != head && !head.is_unique(offsets) => Sent::ReusedAddress,
            _ => Sent::Names,
        }
    }

    /// The stack of a record, walked.
    pub fn stack(&self, record: &StackRecord<'_>, offsets: &Offsets) -> Result<RawStack, LossReason> {
        match record.outcome() {
            Outcome::Whole | Outcome::Truncated => {}
            Outcome::UnknownThread | Outcome::NoPython => return Err(LossReason::UnknownThread),
            Outcome::ChangedThread => return Err(LossReason::ThreadEnded),
            Outcome::Unreadable => return Err(LossReason::Unreadable),
        }
        let truncated = record.outcome() == Outcome::Truncated;
        let frames = record.frames().map(|frame| CopiedFrame {
            place: frame.address,
            code: frame.code,
            instruction: frame.instruction,
            bytecode_copy: frame.bytecode_copy,
            owner: frame.owner,
            is_entry: frame.is_entry,
        });
        RawStack::of_copies(offsets, record.thread_copy(), frames, record.end(), truncated)
            .map_err(|_| LossReason::Invalid)
    }

    /// The ids of the frames of `stack`, root first, as [`CodeNames::root_first`].
    ///
    /// # Errors
    /// When the names of a frame are not there.
    pub fn root_first<Id: Copy>(
        &mut self,
        target: &Target,
        record: &StackRecord<'_>,
        stack: &RawStack,
        names: &mut CodeNames<Id>,
        intern: &mut dyn FnMut(&Frame) -> Id,
    ) -> Result<Vec<Id>, LossReason> {
        let sent = record.frames().filter(|frame| !frame.code.is_null());
        let mut ids = Vec::with_capacity(stack.frames.len());
        let mut is_complete = true;
        for (frame, sent) in stack.frames.iter().zip(sent) {
            let Some(named) = self.named(&sent) else {
                is_complete = false;
                continue;
            };
            let was_resolved = std::mem::replace(&mut named.is_resolved, true);
            let by_sent = names.sent(target, &named.memory, frame, &named.head, intern);
            // What was too long to be sent is read from the process, if the code object is still the same one.
            let id = by_sent.or_else(|_| names.sent(target, target.memory(), frame, &named.head, intern));
            match id {
                Ok(id) => {
                    if !was_resolved {
                        // The resolver has read all of it.
                        named.memory = CopiedPages::new();
                    }
                    ids.extend(id);
                }
                Err(_) => {
                    self.forget(sent.code);
                    is_complete = false;
                }
            }
        }
        ids.reverse();
        if is_complete { Ok(ids) } else { Err(LossReason::NamesMissing) }
    }

    /// The code object of a frame, if its names are there; notes it as missing otherwise.
    fn named(&mut self, frame: &FrameRecord) -> Option<&mut Named> {
        let known = self.known.get_mut(&frame.code).filter(|named| named.hash == frame.head_hash);
        if known.is_none() {
            self.missing.push(frame.code);
        }
        known
    }

    fn forget(&mut self, code: RemoteAddr) {
        if self.known.remove(&code).is_some() {
            self.missing.push(code);
        }
    }

    /// Code objects whose names have to be sent again.
    pub fn take_missing(&mut self) -> Vec<RemoteAddr> {
        std::mem::take(&mut self.missing)
    }
}
