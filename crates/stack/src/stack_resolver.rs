//! The one way from a captured stack to frames with names, whatever identifies its code objects.

use std::num::NonZeroU64;

use profiler_memory::ReadMemory;
use profiler_model::{Frame, FrameKind, LossReason, RemoteAddr};
use profiler_python::{Offsets, RawStack};

use crate::by_hash::{HashedEvidence, Kept, SentCodes, SentNames};
use crate::by_head::frame_by_head;
use crate::code_evidence::CodeEvidence;
use crate::code_source::CodeSource;
use crate::resolver::{Describe, Resolver};

/// What identifies the code objects of a captured stack.
#[derive(Clone, Copy, Debug)]
pub enum StackEvidence<'a> {
    /// Their heads, copied by `pause` or `peek`.
    Heads(&'a CodeEvidence),
    /// Hashes of their heads, sent by the in-kernel program.
    Hashes(&'a HashedEvidence),
}

/// Gives the frames of one runtime of one process their names, each an `Id` that the caller chooses.
///
/// Names are kept by code object, and each frame is described to the caller once. After
/// [`StackResolver::forget_ids`] frames are described again from the names that are kept, without reading the process.
#[derive(Debug)]
pub struct StackResolver<Id> {
    codes: Resolver<Id>,
    sent: SentCodes<Id>,
    /// The id of [`truncation_mark`], once a stack needed it.
    mark: Option<Id>,
}

impl<Id> Default for StackResolver<Id> {
    fn default() -> Self {
        StackResolver { codes: Resolver::default(), sent: SentCodes::default(), mark: None }
    }
}

impl<Id: Copy> StackResolver<Id> {
    /// The ids of the frames of `raw`, root first. Frames that are not shown are left out. A truncated stack begins with
    /// [`truncation_mark`].
    ///
    /// # Errors
    /// When a frame has no certain name. With heads: [`LossReason::CodeChanged`] if its code object was replaced,
    /// [`LossReason::Unreadable`] if it was not read. With hashes: [`LossReason::NamesMissing`] until the names of all
    /// frames were kept; see [`StackResolver::take_missing`].
    pub fn resolve<M: ReadMemory>(
        &mut self,
        source: CodeSource<'_, M>,
        evidence: StackEvidence<'_>,
        raw: &RawStack,
        describe: &mut Describe<'_, Id>,
    ) -> Result<Vec<Id>, LossReason> {
        let mut ids = match evidence {
            StackEvidence::Heads(evidence) => self.by_heads(source, evidence, raw, describe)?,
            StackEvidence::Hashes(evidence) => self.by_hashes(source, evidence, raw, describe)?,
        };
        if raw.truncated {
            ids.insert(0, *self.mark.get_or_insert_with(|| (describe.intern)(&truncation_mark())));
        }
        Ok(ids)
    }

    /// The id of each frame of `raw`, root first, with `None` for those that are not shown, and without a mark.
    ///
    /// # Errors
    /// As [`StackResolver::resolve`] with heads.
    pub fn each_root_first<M: ReadMemory>(
        &mut self,
        source: CodeSource<'_, M>,
        evidence: &CodeEvidence,
        raw: &RawStack,
        describe: &mut Describe<'_, Id>,
    ) -> Result<Vec<Option<Id>>, LossReason> {
        let frames = raw.frames.iter().rev();
        frames.map(|frame| frame_by_head(&mut self.codes, source, evidence, frame, describe)).collect()
    }

    fn by_heads<M: ReadMemory>(
        &mut self,
        source: CodeSource<'_, M>,
        evidence: &CodeEvidence,
        raw: &RawStack,
        describe: &mut Describe<'_, Id>,
    ) -> Result<Vec<Id>, LossReason> {
        let mut ids = with_room_for(raw);
        for frame in raw.frames.iter().rev() {
            ids.extend(frame_by_head(&mut self.codes, source, evidence, frame, describe)?);
        }
        Ok(ids)
    }

    fn by_hashes<M: ReadMemory>(
        &mut self,
        source: CodeSource<'_, M>,
        evidence: &HashedEvidence,
        raw: &RawStack,
        describe: &mut Describe<'_, Id>,
    ) -> Result<Vec<Id>, LossReason> {
        let mut ids = with_room_for(raw);
        let mut lost = None;
        for (index, frame) in raw.frames.iter().enumerate() {
            let evidence = evidence.of_frame(index);
            match self.sent.frame(&mut self.codes, source, evidence, frame, describe) {
                Ok(id) => ids.extend(id),
                // What else is missing is found out at once.
                Err(reason) => lost = Some(reason),
            }
        }
        ids.reverse();
        lost.map_or(Ok(ids), Err)
    }

    /// Keeps the names of a code object, for frames that have its hash.
    pub fn keep_names(&mut self, offsets: &Offsets, sent: SentNames) -> Kept {
        self.sent.keep(&mut self.codes, offsets, sent)
    }

    /// Notes which code objects had which hash under a proof. The program sends each hash once under a proof, so this has
    /// to be noted of each stack, also of one that is lost.
    pub fn note_proof(&mut self, proof: NonZeroU64, hashes: impl Iterator<Item = (RemoteAddr, NonZeroU64)>) {
        hashes.for_each(|(code, hash)| self.sent.note_proof(code, hash, proof));
    }

    /// The code objects whose names were missing since the last call, and have to be sent again.
    pub fn take_missing(&mut self) -> Vec<RemoteAddr> {
        self.sent.take_missing()
    }

    /// Forgets the ids of all frames, and keeps what names them: they are described again as they are met.
    pub fn forget_ids(&mut self) {
        self.codes.forget_ids();
        self.sent.forget_ids();
        self.mark = None;
    }
}

/// The frame at the root of a stack whose outermost frames were left out.
pub fn truncation_mark() -> Frame {
    Frame { kind: FrameKind::Marker, function: "<truncated>".into(), ..Frame::default() }
}

/// Room for the ids of the frames and a mark.
fn with_room_for<Id>(raw: &RawStack) -> Vec<Id> {
    Vec::with_capacity(raw.frames.len() + usize::from(raw.truncated))
}
