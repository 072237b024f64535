//! From what the in-kernel program sends of one process to stacks with names.
//!
//! Frames come with what they said, and become a stack by the same rules as everywhere. Each brings a hash of the
//! bytes that identify its code object at that instant, or a proof that it still is the one whose hash came before; the
//! names came before it, when the program met these bytes for the first time. Names and line tables that are too long to
//! be sent are read afterwards.

use std::num::NonZeroU64;

use profiler_bpf::{FrameRecord, NamesRecord, Outcome, StackRecord, head_hash};
use profiler_memory::CopiedPages;
use profiler_model::{Frame, LossReason, RemoteAddr};
use profiler_python::{CodeHead, CodeObject, CopiedFrame, RawStack};
use profiler_stack::{FrameCache, FrameEvidence, MAX_CODE_OBJECTS};
use profiler_target::Target;
use rustc_hash::FxHashMap;

use crate::code_names::CodeNames;

/// The names that were sent of a process's code objects.
#[derive(Debug)]
pub struct CodeCache<Id> {
    known: FxHashMap<RemoteAddr, Named>,
    /// Frames that got their names, with `None` for those that are not to be shown.
    met: FrameCache<Option<Id>>,
    /// Code objects whose names have to be sent again.
    missing: Vec<RemoteAddr>,
}

/// A code object whose names were sent.
#[derive(Debug)]
struct Named {
    identity: Identity,
    head: CodeHead,
    memory: CopiedPages,
    /// Whether all of its line table is there; of a long one only a part is sent.
    has_all_lines: bool,
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

/// What a code object is known by.
#[derive(Clone, Copy, Debug)]
struct Identity {
    hash: NonZeroU64,
    /// Under which proofs it was met last: two, as what different CPUs send at a time may come in another order.
    proofs: [Option<NonZeroU64>; 2],
}

impl Identity {
    /// Whether it is what a frame had by this evidence.
    fn is_proved_by(&self, evidence: FrameEvidence) -> bool {
        let FrameEvidence { hash, proof } = evidence;
        hash.map_or(proof.is_some() && self.proofs.contains(&proof), |hash| hash == self.hash)
    }

    /// Takes note that it was met with this hash under this proof.
    fn note(&mut self, hash: NonZeroU64, proof: NonZeroU64) {
        if hash == self.hash && !self.proofs.contains(&Some(proof)) {
            self.proofs = [Some(proof), self.proofs[0]];
        }
    }
}

impl<Id> Default for CodeCache<Id> {
    fn default() -> Self {
        CodeCache { known: FxHashMap::default(), met: FrameCache::default(), missing: Vec::new() }
    }
}

impl<Id: Copy> CodeCache<Id> {
    /// Forgets the ids of all frames, and keeps what names them.
    pub fn forget_ids(&mut self) {
        self.met.clear();
    }

    /// Keeps the names of a code object.
    pub fn keep(&mut self, target: &Target, sent: &NamesRecord<'_>, names: &mut CodeNames<Id>) -> Sent {
        if self.known.len() >= MAX_CODE_OBJECTS {
            // They are asked for again as they are met.
            self.known.clear();
        }
        let (offsets, code) = (target.offsets(), sent.code());
        let memory = CopiedPages::new();
        sent.pieces().for_each(|(at, bytes)| memory.put(at, bytes));
        let read = CodeHead::read(&memory, offsets, code).ok();
        let head = read.filter(|head| head_hash(head.as_bytes()) == sent.head_hash());
        let (Some(head), Some(hash)) = (head, NonZeroU64::new(sent.head_hash())) else { return Sent::Names };
        if names.recheck(target, &memory, code) {
            self.met.clear();
        }
        let before = self.known.get(&code);
        let was_another = before.is_some_and(|before| before.head != head);
        let proofs = before.filter(|_| !was_another).map(|before| before.identity.proofs);
        let identity = Identity { hash, proofs: proofs.unwrap_or_default() };
        let object = CodeObject::read(&memory, offsets, code);
        let has_all_lines = object.is_ok_and(|object| object.line_table.is_some());
        self.known.insert(code, Named { identity, head, memory, has_all_lines, is_resolved: false });
        match was_another && !head.is_unique(offsets) {
            true => Sent::ReusedAddress,
            false => Sent::Names,
        }
    }

    /// Takes note of what a record proves, whether its stack is of use or not: the program does not say it again.
    pub fn note_proofs(&mut self, record: &StackRecord<'_>) {
        let Some(proof) = record.proof() else { return };
        for frame in record.frames() {
            if let (Some(hash), Some(named)) = (frame.head_hash, self.known.get_mut(&frame.code)) {
                named.identity.note(hash, proof);
            }
        }
    }

    /// The stack of a record, walked.
    pub fn stack(&self, record: &StackRecord<'_>, target: &Target) -> Result<RawStack, LossReason> {
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
        RawStack::of_copies(
            target.memory(),
            target.offsets(),
            record.thread_copy(),
            frames,
            record.end(),
            truncated,
        )
        .map_err(|_| LossReason::Invalid)
    }

    /// The ids of the frames of `stack`, root first, as [`CodeNames::root_first`].
    ///
    /// # Errors
    /// When the names of a frame are not there.
    pub fn root_first(
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
            let evidence = FrameEvidence { hash: sent.head_hash, proof: record.proof() };
            if let Some(id) = self.met.find(frame, evidence) {
                ids.extend(id);
                continue;
            }
            let Some(named) = self.named(&sent, evidence) else {
                is_complete = false;
                continue;
            };
            let hash = named.identity.hash;
            let was_resolved = std::mem::replace(&mut named.is_resolved, true);
            let (copied, head) = (&named.memory, &named.head);
            // What was too long to be sent is read from the process, if the code object is still the same one. Where it is
            // not, or the process has ended, a function without lines is better than none.
            let id = match named.has_all_lines {
                true => names.sent(target, copied, frame, head, intern).map_err(drop),
                false => Err(()),
            };
            let id = id.or_else(|_| names.sent(target, target.memory(), frame, head, intern).map_err(drop));
            let id = id.or_else(|_| names.sent(target, copied, frame, head, intern).map_err(drop));
            match id {
                Ok(id) => {
                    if !was_resolved {
                        // The resolver has read all of it.
                        named.memory = CopiedPages::new();
                    }
                    self.met.add(frame, hash, evidence.proof, id);
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
    fn named(&mut self, frame: &FrameRecord, evidence: FrameEvidence) -> Option<&mut Named> {
        let known = self.known.get_mut(&frame.code);
        let known = known.and_then(|named| named.identity.is_proved_by(evidence).then_some(named));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(hash: u64, proof: u64) -> FrameEvidence {
        FrameEvidence { hash: NonZeroU64::new(hash), proof: NonZeroU64::new(proof) }
    }

    #[test]
    fn a_proof_is_believed_once_the_hash_has_come_under_it() {
        let mut code = Identity { hash: NonZeroU64::new(1).unwrap(), proofs: [None; 2] };
        let note = |code: &mut Identity, hash, proof| {
            code.note(NonZeroU64::new(hash).unwrap(), NonZeroU64::new(proof).unwrap());
        };
        assert!(!code.is_proved_by(evidence(0, 5)), "nothing has come yet");
        assert!(!code.is_proved_by(evidence(0, 0)));
        assert!(code.is_proved_by(evidence(1, 0)), "a hash needs no proof");
        note(&mut code, 2, 5);
        assert!(!code.is_proved_by(evidence(2, 5)), "another object");
        assert!(!code.is_proved_by(evidence(0, 5)), "under which it was not met");
        note(&mut code, 1, 5);
        assert!(code.is_proved_by(evidence(0, 5)));
        note(&mut code, 1, 6);
        assert!(code.is_proved_by(evidence(0, 5)), "from a CPU that was a little later");
        note(&mut code, 1, 7);
        assert!(!code.is_proved_by(evidence(0, 5)), "long ago");
    }
}
