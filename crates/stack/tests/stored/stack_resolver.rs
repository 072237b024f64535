//! Whole stacks of stored processes get their names: by the heads of their code objects, and by hashes of these.

use std::cell::Cell;
use std::collections::HashSet;
use std::num::NonZeroU64;
use std::sync::Arc;

use profiler_memory::{CopiedPages, ReadError, ReadMemory, ReadRequest, Snapshot};
use profiler_model::{Frame, FrameKind, LossReason, RemoteAddr};
use profiler_python::{CodeHead, CodeObject, RawFrame, RawStack};
use profiler_stack::{
    CodeEvidence, CodeSource, Describe, HashedEvidence, Kept, KnownCodes, SentNames, StackEvidence,
    StackResolver, truncation_mark,
};

use crate::case::{Case, Ended, cases};

const FIRST_LINE_OF_ANOTHER: i32 = 7777;

/// A resolver, and the frames that it has described: their ids count them.
#[derive(Default)]
struct Names {
    resolver: StackResolver<usize>,
    described: Vec<Frame>,
}

impl Names {
    /// The frames of `raw` with their names, root first.
    fn frames(
        &mut self,
        case: &Case,
        memory: &impl ReadMemory,
        evidence: StackEvidence<'_>,
        raw: &RawStack,
    ) -> Result<Vec<Frame>, LossReason> {
        let Names { resolver, described } = self;
        let mut describe = Describe {
            shorten: &mut Arc::clone,
            intern: &mut |frame| {
                described.push(frame.clone());
                described.len() - 1
            },
        };
        let source = CodeSource { memory, offsets: &case.offsets };
        let ids = resolver.resolve(source, evidence, raw, &mut describe)?;
        Ok(ids.into_iter().map(|id| self.described[id].clone()).collect())
    }

    /// Keeps the names of all code objects of the stack of `case`.
    fn keep_all(&mut self, case: &Case) {
        for frame in &case.stack.frames {
            let kept = self.resolver.keep_names(&case.offsets, sent_names(case, &case.memory, frame));
            assert_eq!(kept, Kept::Names, "{}", case.id);
        }
    }
}

/// What identifies the code objects of the stack at an instant at which `memory` is that of the process, and the memory
/// once nothing is stopped any more is `later`.
fn heads(case: &Case, memory: &impl ReadMemory, later: &Snapshot, known: &mut KnownCodes) -> CodeEvidence {
    let stacks = [&case.stack].into_iter();
    let mut evidence = CodeEvidence::of_stacks(memory, &case.offsets, stacks, known).expect("the heads");
    CodeEvidence::complete([&mut evidence].into_iter(), later, &case.offsets).expect("the heads");
    evidence
}

/// The same for a process that does not change.
fn steady_heads(case: &Case, known: &mut KnownCodes) -> CodeEvidence {
    heads(case, &case.memory, &case.memory, known)
}

/// Stands for the hash of a head: any function of it will do that tells these apart.
fn hash(head: &CodeHead) -> NonZeroU64 {
    let bytes = head.as_bytes().iter();
    let hash = bytes.fold(0u64, |hash, byte| hash.wrapping_mul(0x0100_0000_01b3) ^ u64::from(*byte));
    NonZeroU64::new(hash | 1 << 63).expect("not 0")
}

/// The evidence that the in-kernel program sends with the stack for the first time.
fn hashes(case: &Case) -> HashedEvidence {
    let hashes = case.stack.frames.iter().map(|frame| Some(hash(&case.head(frame))));
    HashedEvidence { hashes: hashes.collect(), proof: None }
}

/// What the in-kernel program sends of the code object of `frame` in this memory.
fn sent_names(case: &Case, memory: &Snapshot, frame: &RawFrame) -> SentNames {
    let (offsets, code) = (&case.offsets, frame.code);
    let head = CodeHead::read(memory, offsets, code).expect("the head");
    let copied = CopiedPages::new();
    copied.copy(memory, head.places(offsets, code)).expect("the pieces");
    CodeObject::read(&copied.copying(memory), offsets, code).expect("the code object");
    SentNames { code, head, hash: hash(&head), memory: copied }
}

/// Whether these frames, root first, are those that the process described.
fn assert_described(case: &Case, frames: &[Frame]) {
    let seen = frames.iter().rev().map(|frame| (&*frame.function, &*frame.file, frame.position.line));
    let expected = case.described.iter();
    let expected = expected.map(|frame| (&*frame.function, &*frame.file, frame.position[0]));
    assert_eq!(seen.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{}", case.id);
}

fn code_objects(stack: &RawStack) -> HashSet<RemoteAddr> {
    stack.frames.iter().map(|frame| frame.code).collect()
}

/// Memory in which a code object is replaced after the first batch of reads.
struct ReplacedMeanwhile {
    before: Snapshot,
    after: Snapshot,
    batches: Cell<usize>,
}

impl ReadMemory for ReplacedMeanwhile {
    fn read(&self, at: RemoteAddr, into: &mut [u8]) -> Result<(), ReadError> {
        self.after.read(at, into)
    }

    fn read_batch(&self, requests: &mut [ReadRequest<'_>]) -> Result<usize, ReadError> {
        match self.batches.replace(self.batches.get() + 1) {
            0 => self.before.read_batch(requests),
            _ => self.after.read_batch(requests),
        }
    }
}

#[test]
fn heads_name_frames_as_the_process_does() {
    for case in cases() {
        let (mut names, evidence) = (Names::default(), steady_heads(&case, &mut KnownCodes::default()));
        let evidence = StackEvidence::Heads(&evidence);
        let frames = names.frames(&case, &case.memory, evidence, &case.stack).expect("names");
        assert_described(&case, &frames);
    }
}

#[test]
fn sent_names_need_no_read_of_the_process() {
    for case in cases() {
        let (mut names, evidence) = (Names::default(), hashes(&case));
        names.keep_all(&case);
        let evidence = StackEvidence::Hashes(&evidence);
        let frames = names.frames(&case, &Ended, evidence, &case.stack).expect("names");
        assert_described(&case, &frames);
        assert!(names.resolver.take_missing().is_empty(), "{}", case.id);
    }
}

#[test]
fn truncated_stack_begins_with_the_mark() {
    for case in cases() {
        let (mut names, by_hash) = (Names::default(), hashes(&case));
        names.keep_all(&case);
        let by_head = steady_heads(&case, &mut KnownCodes::default());
        let mut raw = case.stack.clone();
        raw.truncated = true;
        for evidence in [StackEvidence::Heads(&by_head), StackEvidence::Hashes(&by_hash)] {
            let frames = names.frames(&case, &case.memory, evidence, &raw).expect("names");
            assert_eq!(frames[0], truncation_mark(), "{}", case.id);
            assert_described(&case, &frames[1..]);
        }
        let marks = names.described.iter().filter(|frame| frame.kind == FrameKind::Marker);
        assert_eq!(marks.count(), 1, "{}: the mark is described once", case.id);
    }
}

#[test]
fn code_replaced_while_names_are_copied_is_lost() {
    for case in cases() {
        let memory = ReplacedMeanwhile {
            before: case.memory.clone(),
            after: case.with_replaced_code(&case.stack.frames[0], FIRST_LINE_OF_ANOTHER),
            batches: Cell::new(0),
        };
        let evidence = heads(&case, &memory, &memory.after, &mut KnownCodes::default());
        let evidence = StackEvidence::Heads(&evidence);
        let lost = Names::default().frames(&case, &memory.after, evidence, &case.stack);
        assert_eq!(lost, Err(LossReason::CodeChanged), "{}", case.id);
    }
}

#[test]
fn code_replaced_after_the_instant_is_lost() {
    for case in cases() {
        let (mut names, mut known) = (Names::default(), KnownCodes::default());
        let first = steady_heads(&case, &mut known);
        let named = names.frames(&case, &case.memory, StackEvidence::Heads(&first), &case.stack);
        assert!(named.is_ok(), "{}", case.id);
        known.learn(&case.offsets, &first, &case.stack, true);
        let leaf = case.stack.frames[0];
        let replaced = case.with_replaced_code(&leaf, FIRST_LINE_OF_ANOTHER);
        let evidence = heads(&case, &case.memory, &replaced, &mut known);
        let again = names.frames(&case, &replaced, StackEvidence::Heads(&evidence), &case.stack);
        // What has no number is looked at during the instant, when it was still the same one.
        match case.head(&leaf).is_unique(&case.offsets) {
            true => assert_eq!(again, Err(LossReason::CodeChanged), "{}", case.id),
            false => assert_eq!(again, named, "{}", case.id),
        }
    }
}

#[test]
fn replaced_code_gets_the_names_of_its_successor() {
    for case in cases() {
        let (mut names, mut known) = (Names::default(), KnownCodes::default());
        let first = steady_heads(&case, &mut known);
        names.frames(&case, &case.memory, StackEvidence::Heads(&first), &case.stack).expect("names");
        let replaced = case.with_replaced_code(&case.stack.frames[0], FIRST_LINE_OF_ANOTHER);
        let evidence = heads(&case, &replaced, &replaced, &mut known);
        let frames = names.frames(&case, &replaced, StackEvidence::Heads(&evidence), &case.stack);
        let leaf = frames.expect("names").pop().expect("a frame");
        assert_eq!(leaf.first_line, Some(FIRST_LINE_OF_ANOTHER as u32), "{}", case.id);
    }
}

#[test]
fn missing_names_are_asked_for_until_they_come() {
    for case in cases() {
        let (mut names, evidence) = (Names::default(), hashes(&case));
        let evidence = StackEvidence::Hashes(&evidence);
        for _ in 0..2 {
            let lost = names.frames(&case, &case.memory, evidence, &case.stack);
            assert_eq!(lost, Err(LossReason::NamesMissing), "{}", case.id);
            let missing: HashSet<_> = names.resolver.take_missing().into_iter().collect();
            assert_eq!(missing, code_objects(&case.stack), "{}", case.id);
        }
        names.keep_all(&case);
        assert!(names.frames(&case, &Ended, evidence, &case.stack).is_ok(), "{}", case.id);
        assert!(names.resolver.take_missing().is_empty(), "{}", case.id);
    }
}

#[test]
fn other_hash_makes_names_of_its_code_missing() {
    for case in cases() {
        let (mut names, mut evidence) = (Names::default(), hashes(&case));
        names.keep_all(&case);
        let (leaf, other) = (case.stack.frames[0], NonZeroU64::new(1));
        evidence.hashes[0] = other;
        let lost = names.frames(&case, &case.memory, StackEvidence::Hashes(&evidence), &case.stack);
        assert_eq!(lost, Err(LossReason::NamesMissing), "{}", case.id);
        assert_eq!(names.resolver.take_missing(), [leaf.code], "{}", case.id);
    }
}

#[test]
fn proof_stands_for_hashes_that_came_under_it() {
    for case in cases() {
        let (mut names, sent) = (Names::default(), hashes(&case));
        names.keep_all(&case);
        let proof = NonZeroU64::new(5).expect("not 0");
        let evidence = HashedEvidence { hashes: vec![None; sent.hashes.len()], proof: Some(proof) };
        let lost = names.frames(&case, &Ended, StackEvidence::Hashes(&evidence), &case.stack);
        assert_eq!(lost, Err(LossReason::NamesMissing), "{}: no hash came under it", case.id);
        let codes = case.stack.frames.iter().map(|frame| frame.code);
        let pairs = codes.zip(sent.hashes.into_iter().flatten());
        names.resolver.note_proof(proof, pairs);
        let frames = names.frames(&case, &Ended, StackEvidence::Hashes(&evidence), &case.stack);
        assert_described(&case, &frames.expect("names"));
    }
}

#[test]
fn reused_address_is_reported_where_code_has_no_number() {
    for case in cases() {
        let leaf = case.stack.frames[0];
        let replaced = case.with_replaced_code(&leaf, FIRST_LINE_OF_ANOTHER);
        let mut names = Names::default();
        names.keep_all(&case);
        let kept = names.resolver.keep_names(&case.offsets, sent_names(&case, &replaced, &leaf));
        let expected = match case.head(&leaf).is_unique(&case.offsets) {
            true => Kept::Names,
            false => Kept::ReusedAddress,
        };
        assert_eq!(kept, expected, "{}", case.id);
    }
}

#[test]
fn forgotten_ids_are_given_again_without_a_read() {
    for case in cases() {
        let (mut names, mut known, by_hash) = (Names::default(), KnownCodes::default(), hashes(&case));
        let first = steady_heads(&case, &mut known);
        names.frames(&case, &case.memory, StackEvidence::Heads(&first), &case.stack).expect("names");
        known.learn(&case.offsets, &first, &case.stack, true);
        names.keep_all(&case);
        let by_head = steady_heads(&case, &mut known);
        for evidence in [StackEvidence::Heads(&by_head), StackEvidence::Hashes(&by_hash)] {
            names.frames(&case, &case.memory, evidence, &case.stack).expect("names");
            names.resolver.forget_ids();
            names.described.clear();
            let frames = names.frames(&case, &Ended, evidence, &case.stack).expect("names that are kept");
            assert_described(&case, &frames);
            assert!(!names.described.is_empty(), "{}", case.id);
        }
    }
}
