//! Names of frames whose code objects are identified by a hash of their heads, as the in-kernel program sends them.
//!
//! The program sends the names of a code object before the first frame that needs them. A frame brings the hash of
//! its code object's head at that instant, or the proof that the object is still the one whose hash came before.
//! Names and line tables that are too long to be sent are read from the process afterwards.

use std::num::NonZeroU64;

use profiler_memory::{CopiedPages, ReadMemory};
use profiler_model::{LossReason, RemoteAddr};
use profiler_python::{CodeError, CodeHead, CodeObject, Offsets, RawFrame};
use rustc_hash::FxHashMap;

use crate::code_source::CodeSource;
use crate::frame_cache::{FrameCache, FrameEvidence};
use crate::resolver::{Describe, MAX_CODE_OBJECTS, Resolver};

/// What identifies the code objects of a stack that the in-kernel program took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HashedEvidence {
    /// For each frame, leaf first, the hash of its code object's head. `None` if the program sent it before, under
    /// the same proof.
    pub hashes: Vec<Option<NonZeroU64>>,
    /// Stands for a time in which no code object was replaced; `None` if nothing proves that.
    pub proof: Option<NonZeroU64>,
}

impl HashedEvidence {
    /// The evidence of the frame `index`, counted from the leaf.
    pub(crate) fn of_frame(&self, index: usize) -> FrameEvidence {
        FrameEvidence { hash: self.hashes.get(index).copied().flatten(), proof: self.proof }
    }
}

/// The names of a code object, as the in-kernel program sends them.
#[derive(Debug)]
pub struct SentNames {
    /// The code object.
    pub code: RemoteAddr,
    /// The bytes that identify it.
    pub head: CodeHead,
    /// The hash of `head` by which frames refer to it.
    pub hash: NonZeroU64,
    /// The code object, its names, its file and its line table, as far as they were sent.
    pub memory: CopiedPages,
}

/// What became known with the names of a code object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Its names, for the first time or again.
    Names,
    /// Its address had another code object before, and no number in their heads tells such objects apart for certain:
    /// from now on names are needed with each sample.
    ReusedAddress,
}

/// The code objects whose names were sent, and the frames that were met in them.
#[derive(Debug)]
pub(crate) struct SentCodes<Id> {
    known: FxHashMap<RemoteAddr, SentCode>,
    /// Frames that have their names, with `None` for those that are not shown.
    met: FrameCache<Option<Id>>,
    /// Code objects whose names have to be sent again.
    missing: Vec<RemoteAddr>,
}

impl<Id> Default for SentCodes<Id> {
    fn default() -> Self {
        SentCodes { known: FxHashMap::default(), met: FrameCache::default(), missing: Vec::new() }
    }
}

impl<Id: Copy> SentCodes<Id> {
    /// Forgets the ids of all frames, and keeps what names them.
    pub(crate) fn forget_ids(&mut self) {
        self.met.clear();
    }

    /// Keeps the names of a code object; `codes` forgets those that it had before, if they are different.
    pub(crate) fn keep(&mut self, codes: &mut Resolver<Id>, offsets: &Offsets, sent: SentNames) -> Kept {
        if self.known.len() >= MAX_CODE_OBJECTS {
            // They are asked for again as they are met.
            self.known.clear();
        }
        let SentNames { code, head, hash, memory } = sent;
        if codes.check(&memory, offsets, code) {
            self.met.clear();
        }
        let before = self.known.get(&code);
        let was_another = before.is_some_and(|before| before.head != head);
        let proofs = before.filter(|_| !was_another).map(|before| before.identity.proofs);
        let identity = HashIdentity { hash, proofs: proofs.unwrap_or_default() };
        let object = CodeObject::read(&memory, offsets, code);
        let has_all_lines = object.is_ok_and(|object| object.line_table.is_some());
        self.known.insert(code, SentCode { identity, head, memory, has_all_lines, is_resolved: false });
        match was_another && !head.is_unique(offsets) {
            true => Kept::ReusedAddress,
            false => Kept::Names,
        }
    }

    /// Notes that the code object had this hash under this proof.
    pub(crate) fn note_proof(&mut self, code: RemoteAddr, hash: NonZeroU64, proof: NonZeroU64) {
        if let Some(known) = self.known.get_mut(&code) {
            known.identity.note(hash, proof);
        }
    }

    /// The id of a frame with this `evidence`; `None` for a frame that is not shown.
    ///
    /// # Errors
    /// When the names of its code object are missing; they are noted as such.
    pub(crate) fn frame<M: ReadMemory>(
        &mut self,
        codes: &mut Resolver<Id>,
        source: CodeSource<'_, M>,
        evidence: FrameEvidence,
        frame: &RawFrame,
        describe: &mut Describe<'_, Id>,
    ) -> Result<Option<Id>, LossReason> {
        if let Some(id) = self.met.find(frame, evidence) {
            return Ok(id);
        }
        let known = self.known.get_mut(&frame.code);
        let Some(known) = known.filter(|known| known.identity.is_proved_by(evidence)) else {
            self.missing.push(frame.code);
            return Err(LossReason::NamesMissing);
        };
        let Ok(id) = known.name(codes, source, frame, describe) else {
            self.known.remove(&frame.code);
            self.missing.push(frame.code);
            return Err(LossReason::NamesMissing);
        };
        self.met.add(frame, known.identity.hash, evidence.proof, id);
        Ok(id)
    }

    /// Code objects whose names have to be sent again, each time they were missing.
    pub(crate) fn take_missing(&mut self) -> Vec<RemoteAddr> {
        std::mem::take(&mut self.missing)
    }
}

/// A code object whose names were sent.
#[derive(Debug)]
struct SentCode {
    identity: HashIdentity,
    head: CodeHead,
    /// What was sent, until the resolver has read it.
    memory: CopiedPages,
    /// Whether the whole line table was sent.
    has_all_lines: bool,
    /// Whether a frame got its name from `memory`: the names are in the resolver now.
    is_resolved: bool,
}

impl SentCode {
    /// The id of a frame of this code object; `None` for a frame that is not shown.
    fn name<Id: Copy, M: ReadMemory>(
        &mut self,
        codes: &mut Resolver<Id>,
        source: CodeSource<'_, M>,
        frame: &RawFrame,
        describe: &mut Describe<'_, Id>,
    ) -> Result<Option<Id>, CodeError> {
        let id = self.name_unless_cut(codes, source, frame, describe)?;
        if !self.is_resolved {
            self.is_resolved = true;
            self.memory = CopiedPages::new();
        }
        Ok(id)
    }

    /// The same. What was too long to be sent is read from the process, if the code object is still the same one. If it
    /// is not, or the process has ended, a function without lines is better than none.
    fn name_unless_cut<Id: Copy, M: ReadMemory>(
        &self,
        codes: &mut Resolver<Id>,
        source: CodeSource<'_, M>,
        frame: &RawFrame,
        describe: &mut Describe<'_, Id>,
    ) -> Result<Option<Id>, CodeError> {
        if self.has_all_lines
            && let Ok(id) = resolve_in(&self.memory, codes, source, (frame, &self.head), describe)
        {
            return Ok(id);
        }
        resolve_in(source.memory, codes, source, (frame, &self.head), describe)
            .or_else(|_| resolve_in(&self.memory, codes, source, (frame, &self.head), describe))
    }
}

/// The id of a frame whose code object had this head. Its names, unless `codes` has them, are read in `names`.
fn resolve_in<Id: Copy, M: ReadMemory>(
    names: &impl ReadMemory,
    codes: &mut Resolver<Id>,
    source: CodeSource<'_, M>,
    (frame, head): (&RawFrame, &CodeHead),
    describe: &mut Describe<'_, Id>,
) -> Result<Option<Id>, CodeError> {
    let CodeSource { memory, offsets } = source;
    if codes.head(frame.code) == Some(head) {
        return codes.resolve(memory, offsets, frame, head, describe);
    }
    if codes.learn_type(memory, offsets, frame.code, false).is_err() {
        // The process may have ended since it was sent.
        codes.learn_type(names, offsets, frame.code, true)?;
    }
    codes.resolve(names, offsets, frame, head, describe)
}

/// What a code object is known by.
#[derive(Clone, Copy, Debug)]
struct HashIdentity {
    hash: NonZeroU64,
    /// The last two proofs under which it was met: what several CPUs send at a time may come in another order.
    proofs: [Option<NonZeroU64>; 2],
}

impl HashIdentity {
    /// Whether a frame with this evidence ran this code object.
    fn is_proved_by(&self, evidence: FrameEvidence) -> bool {
        let FrameEvidence { hash, proof } = evidence;
        hash.map_or(proof.is_some() && self.proofs.contains(&proof), |hash| hash == self.hash)
    }

    /// Notes that the address had a code object with this hash under this proof.
    fn note(&mut self, hash: NonZeroU64, proof: NonZeroU64) {
        if hash == self.hash && !self.proofs.contains(&Some(proof)) {
            self.proofs = [Some(proof), self.proofs[0]];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(hash: u64, proof: u64) -> FrameEvidence {
        FrameEvidence { hash: NonZeroU64::new(hash), proof: NonZeroU64::new(proof) }
    }

    #[test]
    fn proof_is_believed_once_its_hash_came() {
        let mut code = HashIdentity { hash: NonZeroU64::new(1).unwrap(), proofs: [None; 2] };
        let note = |code: &mut HashIdentity, hash, proof| {
            code.note(NonZeroU64::new(hash).unwrap(), NonZeroU64::new(proof).unwrap());
        };
        assert!(!code.is_proved_by(evidence(0, 5)), "no hash has come yet");
        assert!(!code.is_proved_by(evidence(0, 0)));
        assert!(code.is_proved_by(evidence(1, 0)), "a hash needs no proof");
        note(&mut code, 2, 5);
        assert!(!code.is_proved_by(evidence(2, 5)), "another object");
        assert!(!code.is_proved_by(evidence(0, 5)), "it was not met under this proof");
        note(&mut code, 1, 5);
        assert!(code.is_proved_by(evidence(0, 5)));
        note(&mut code, 1, 6);
        assert!(code.is_proved_by(evidence(0, 5)), "from a CPU that was a little later");
        note(&mut code, 1, 7);
        assert!(!code.is_proved_by(evidence(0, 5)), "too long ago");
    }
}
