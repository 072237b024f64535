//! Frames, each kept once. Found by hash, but told apart by comparing them whole.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use profiler_model::Frame;
use rustc_hash::FxBuildHasher;

use crate::FrameId;

/// The frames of a profile in order of first appearance.
#[derive(Clone, Debug, Default)]
pub(crate) struct FrameTable {
    frames: Vec<Frame>,
    /// Holds handles only: the frames themselves lie in `frames` and nowhere else. So far of the first `indexed` of them.
    index: HashTable<FrameId>,
    indexed: usize,
}

impl FrameTable {
    /// The handle of `frame`, which is cloned only when it is new.
    pub(crate) fn intern(&mut self, frame: &Frame) -> FrameId {
        self.index_all();
        let hash = FxBuildHasher.hash_one(frame);
        let frames = &self.frames;
        if let Some(known) = self.index.find(hash, |id| frames[id.index()] == *frame) {
            return *known;
        }
        let id = self.append(frame);
        self.index_all();
        id
    }

    /// Adds a frame that is certainly not there yet. It is indexed when another is looked for.
    pub(crate) fn append(&mut self, frame: &Frame) -> FrameId {
        let id = FrameId::new(self.frames.len());
        self.frames.push(frame.clone());
        id
    }

    fn index_all(&mut self) {
        let frames = &self.frames;
        let hash = |id: &FrameId| FxBuildHasher.hash_one(&frames[id.index()]);
        for id in (self.indexed..frames.len()).map(FrameId::new) {
            self.index.insert_unique(hash(&id), id, hash);
        }
        self.indexed = frames.len();
    }

    /// The frame behind a handle of this table.
    pub(crate) fn frame(&self, id: FrameId) -> &Frame {
        &self.frames[id.index()]
    }

    /// All frames in the order of their handles.
    pub(crate) fn frames(&self) -> &[Frame] {
        &self.frames
    }
}
