//! Stacks as a prefix tree: each is a frame standing on another stack.
//!
//! The stacks `main;a`, `main;a;b` and `main;c` take four rows, because they share their roots:
//!
//! | row | parent | frame |
//! |-----|--------|-------|
//! | 0   | -      | main  |
//! | 1   | 0      | a     |
//! | 2   | 1      | b     |
//! | 3   | 0      | c     |
//!
//! A parent always has a smaller row than its children, so a walk towards the root ends.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use crate::{FrameId, StackId};

/// One stack: its innermost frame and the stack below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Node {
    parent: Option<StackId>,
    frame: FrameId,
}

/// The stacks of a profile.
#[derive(Clone, Debug, Default)]
pub(crate) struct StackTable {
    nodes: Vec<Node>,
    /// Of the first `indexed` of them.
    index: HashTable<StackId>,
    indexed: usize,
}

impl StackTable {
    /// The stack of `frame` standing on `parent`.
    pub(crate) fn push(&mut self, parent: Option<StackId>, frame: FrameId) -> StackId {
        self.index_all();
        let node = Node { parent, frame };
        let hash = FxBuildHasher.hash_one(node);
        let nodes = &self.nodes;
        if let Some(known) = self.index.find(hash, |id| nodes[id.index()] == node) {
            return *known;
        }
        let id = self.append(parent, frame);
        self.index_all();
        id
    }

    /// Adds a stack that is certainly not there yet. It is indexed when another is looked for.
    pub(crate) fn append(&mut self, parent: Option<StackId>, frame: FrameId) -> StackId {
        let id = StackId::new(self.nodes.len());
        self.nodes.push(Node { parent, frame });
        id
    }

    fn index_all(&mut self) {
        let nodes = &self.nodes;
        let hash = |id: &StackId| FxBuildHasher.hash_one(nodes[id.index()]);
        for id in (self.indexed..nodes.len()).map(StackId::new) {
            self.index.insert_unique(hash(&id), id, hash);
        }
        self.indexed = nodes.len();
    }

    /// The innermost frame of a stack.
    pub(crate) fn frame(&self, stack: StackId) -> FrameId {
        self.nodes[stack.index()].frame
    }

    /// The stack below the innermost frame.
    pub(crate) fn parent(&self, stack: StackId) -> Option<StackId> {
        self.nodes[stack.index()].parent
    }

    /// All stacks as (stack, parent, frame), in the order of their handles: parents before children.
    pub(crate) fn iter(
        &self,
    ) -> impl ExactSizeIterator<Item = (StackId, Option<StackId>, FrameId)> + DoubleEndedIterator + '_ {
        self.nodes.iter().enumerate().map(|(index, node)| (StackId::new(index), node.parent, node.frame))
    }

    /// The frames of a stack, innermost first.
    pub(crate) fn leaf_first(&self, stack: Option<StackId>) -> LeafFirst<'_> {
        LeafFirst { table: self, next: stack }
    }
}

/// The frames of one stack from the innermost to the root.
#[derive(Clone, Debug)]
pub struct LeafFirst<'a> {
    table: &'a StackTable,
    next: Option<StackId>,
}

impl Iterator for LeafFirst<'_> {
    type Item = FrameId;

    fn next(&mut self) -> Option<FrameId> {
        let stack = self.next?;
        self.next = self.table.parent(stack);
        Some(self.table.frame(stack))
    }
}
