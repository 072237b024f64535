//! Frames that the in-kernel program sent before, each found by one look-up. The name of a frame follows from its code
//! object and its place in it; this only remembers what was found that way (`by_hash`). In deep stacks of large programs
//! each further look-up is a miss of the CPU's caches.

use std::num::NonZeroU64;

use profiler_model::RemoteAddr;
use profiler_python::RawFrame;
use rustc_hash::FxHashMap;

/// How many are remembered: some six megabytes.
const MAX_FRAMES: usize = 65_536;

/// What says which code object a frame had at its instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameEvidence {
    /// The hash of the bytes that identify it, if it came with the frame.
    pub(crate) hash: Option<NonZeroU64>,
    /// What the instant had in common with others at which the same one was there.
    pub(crate) proof: Option<NonZeroU64>,
}

/// The frames that were met, and what the caller has for each.
#[derive(Debug)]
pub(crate) struct FrameCache<Id> {
    frames: FxHashMap<Place, Met<Id>>,
}

/// What tells frames apart that have their code object in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    code: RemoteAddr,
    instruction: u64,
    is_entry: bool,
}

#[derive(Clone, Copy, Debug)]
struct Met<Id> {
    hash: NonZeroU64,
    proof: Option<NonZeroU64>,
    id: Id,
}

impl<Id> Default for FrameCache<Id> {
    fn default() -> Self {
        FrameCache { frames: FxHashMap::default() }
    }
}

impl<Id: Copy> FrameCache<Id> {
    /// What the caller had for the frame, if it is certain that its code object is still the same one.
    pub(crate) fn find(&self, frame: &RawFrame, evidence: FrameEvidence) -> Option<Id> {
        let met = self.frames.get(&place(frame)?)?;
        let has_hash = evidence.hash.is_none_or(|hash| hash == met.hash);
        let is_same = match evidence.proof {
            Some(_) => has_hash && met.proof == evidence.proof,
            None => has_hash && evidence.hash.is_some(),
        };
        is_same.then_some(met.id)
    }

    /// Remembers a frame, whose code object had this `hash`.
    pub(crate) fn add(&mut self, frame: &RawFrame, hash: NonZeroU64, proof: Option<NonZeroU64>, id: Id) {
        let Some(place) = place(frame) else { return };
        if self.frames.len() >= MAX_FRAMES {
            self.frames.clear();
        }
        self.frames.insert(place, Met { hash, proof, id });
    }

    /// Forgets all: what had a certain hash may have another name now.
    pub(crate) fn clear(&mut self) {
        self.frames.clear();
    }
}

/// `None` where the instruction lies in a copy of the bytecode: what place of the code object that is has to be read.
fn place(frame: &RawFrame) -> Option<Place> {
    let RawFrame { code, instruction, bytecode_copy, is_entry } = *frame;
    (bytecode_copy == 0).then_some(Place { code, instruction, is_entry })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: RawFrame =
        RawFrame { code: RemoteAddr::new(0x1000), instruction: 7, bytecode_copy: 0, is_entry: false };

    fn some(number: u64) -> Option<NonZeroU64> {
        NonZeroU64::new(number)
    }

    /// One frame whose code object had the hash 1, under the proof 5.
    fn met(proof: Option<NonZeroU64>) -> FrameCache<char> {
        let mut frames = FrameCache::default();
        frames.add(&FRAME, some(1).unwrap(), proof, 'a');
        frames
    }

    #[test]
    fn a_frame_is_found_where_its_code_object_is_proved_to_be_the_same() {
        let frames = met(some(5));
        let found = |hash, proof| frames.find(&FRAME, FrameEvidence { hash: some(hash), proof: some(proof) });
        assert_eq!(found(0, 5), Some('a'), "nothing was replaced");
        assert_eq!(found(1, 5), Some('a'));
        assert_eq!(found(1, 0), Some('a'), "the bytes are the same");
        assert_eq!(found(2, 5), None);
        assert_eq!(found(2, 0), None);
        assert_eq!(found(0, 6), None, "something may have been replaced");
        assert_eq!(found(1, 6), None, "that it has this hash under this proof is still to be noted");
        assert_eq!(found(0, 0), None);
        assert_eq!(met(None).find(&FRAME, FrameEvidence { hash: None, proof: None }), None);
    }

    #[test]
    fn frames_differ_by_their_place() {
        let frames = met(some(5));
        let evidence = FrameEvidence { hash: some(1), proof: some(5) };
        assert_eq!(frames.find(&RawFrame { instruction: 8, ..FRAME }, evidence), None);
        assert_eq!(frames.find(&RawFrame { is_entry: true, ..FRAME }, evidence), None);
        assert_eq!(frames.find(&RawFrame { code: RemoteAddr::new(0x2000), ..FRAME }, evidence), None);
    }

    #[test]
    fn an_instruction_in_a_copy_of_the_bytecode_says_nothing() {
        let copied = RawFrame { bytecode_copy: 1, ..FRAME };
        let mut frames = met(some(5));
        frames.add(&copied, some(1).unwrap(), some(5), 'b');
        assert_eq!(frames.find(&copied, FrameEvidence { hash: some(1), proof: some(5) }), None);
    }

    #[test]
    fn what_was_cleared_is_not_found() {
        let mut frames = met(some(5));
        frames.clear();
        assert_eq!(frames.find(&FRAME, FrameEvidence { hash: some(1), proof: some(5) }), None);
    }
}
