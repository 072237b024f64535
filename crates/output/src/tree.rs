//! A profile as a tree of labels: what collapsed stacks and flame graphs are drawn from.
//!
//! Frames that a view calls the same are one, whatever else tells them apart. The tree takes some bytes a
//! node; the lines drawn from it, which repeat every label, are made one at a time.

use profiler_model::Frame;
use profiler_profile::{FrameId, Profile, StackId};

use crate::drawn_stack::{DrawnStack, Marks};
use crate::label::{NO_FRAMES, frame_label, root_labels};
use crate::{ViewOptions, escape};

/// The tree.
pub(crate) struct Tree {
    /// Labels as frames without any other property, and the stacks of them. No samples.
    labels: Profile,
    /// The weight of each stack itself, by index.
    own: Vec<u64>,
}

impl Tree {
    /// The tree that the options ask for.
    pub(crate) fn new(profile: &Profile, options: &ViewOptions) -> Self {
        let mut tree = Tree { labels: Profile::new(), own: Vec::new() };
        let label_of: Vec<FrameId> =
            profile.frames().map(|(_, frame)| tree.label(&frame_label(frame, options))).collect();
        // Stacks of one thread follow each other, so that what is known of shared roots is used again.
        let mut tallies: Vec<_> = profile.tallies().iter().collect();
        tallies.sort_by_key(|tally| tally.thread);
        let mut grafts = Grafts { of_root: None, known: vec![None; profile.stacks().len()] };
        let mut thread = None;
        for tally in tallies {
            if thread.replace(tally.thread) != Some(tally.thread) {
                let root = tree.stack_of(&root_labels(profile, tally.thread, options));
                grafts.start(root);
            }
            let drawn = DrawnStack::of_tally(tally);
            let stack = match drawn.stack {
                Some(stack) => grafts.graft(&mut tree.labels, profile, &label_of, stack),
                None if drawn.is_empty() => grafts.of_root.or_else(|| tree.stack_of(&[NO_FRAMES.to_owned()])),
                None => grafts.of_root,
            };
            let stack = tree.push_marks(stack, drawn);
            tree.add(stack, options.weight.of(&tally.weights));
        }
        tree.own.resize(tree.labels.stacks().len(), 0);
        tree
    }

    /// The weight of everything.
    pub(crate) fn total(&self) -> u64 {
        self.own.iter().sum()
    }

    /// Calls `visit` with every stack (its labels joined by `;`, root first) that has weight of its own and
    /// that weight, children in the order of their labels. Stacks that have less than `least` in all are not
    /// visited, except those that stand on nothing; their weight is their parent's own.
    pub(crate) fn visit<E>(
        mut self,
        least: u64,
        mut visit: impl FnMut(&str, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let children = self.prune(least);
        let mut path = String::new();
        let mut pending: Vec<(StackId, usize)> = Vec::new();
        let mut level = children.of(None);
        loop {
            // Last in, first out: so the first child goes last.
            pending.extend(level.iter().rev().map(|(_, child)| (*child, path.len())));
            let Some((stack, parent_end)) = pending.pop() else { return Ok(()) };
            path.truncate(parent_end);
            if parent_end > 0 {
                path.push(';');
            }
            path.push_str(&self.labels.frame_of(self.labels.leaf_of(stack)).function);
            let own = self.own[stack.index()];
            if own > 0 {
                visit(&path, own)?;
            }
            level = children.of(Some(stack));
        }
    }

    fn label(&mut self, label: &str) -> FrameId {
        self.labels.frame(&Frame { function: escape::frame(label).into(), ..Frame::default() })
    }

    fn stack_of(&mut self, labels: &[String]) -> Option<StackId> {
        let frames: Vec<FrameId> = labels.iter().map(|label| self.label(label)).collect();
        self.labels.stack(frames)
    }

    /// The stack with its marks on top.
    fn push_marks(&mut self, mut stack: Option<StackId>, drawn: DrawnStack) -> Option<StackId> {
        for label in drawn.marks().into_iter().flat_map(Marks::labels) {
            let frame = self.label(&label);
            stack = Some(self.labels.push(stack, frame));
        }
        stack
    }

    fn add(&mut self, stack: Option<StackId>, weight: u64) {
        let Some(stack) = stack else { return };
        if self.own.len() <= stack.index() {
            self.own.resize(stack.index() + 1, 0);
        }
        self.own[stack.index()] += weight;
    }

    /// Makes stacks lighter than `least` give their weight to their parents. Returns who is left.
    fn prune(&mut self, least: u64) -> Children {
        let mut total = self.own.clone();
        let mut kept = Vec::new();
        // Children come after their parents, so from the end every child is done before its parent.
        for (stack, parent, _) in self.labels.stacks().rev() {
            let weight = total[stack.index()];
            if let Some(parent) = parent {
                total[parent.index()] += weight;
            }
            if weight >= least.max(1) || parent.is_none() && weight > 0 {
                kept.push((parent, stack));
            } else if let Some(parent) = parent {
                self.own[parent.index()] += weight;
            }
        }
        drop(total);
        let label = |stack: StackId| &self.labels.frame_of(self.labels.leaf_of(stack)).function;
        kept.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| label(a.1).cmp(label(b.1))));
        Children(kept)
    }
}

/// Stacks as (parent, child), sorted by parent and then by the label of the child.
struct Children(Vec<(Option<StackId>, StackId)>);

impl Children {
    fn of(&self, parent: Option<StackId>) -> &[(Option<StackId>, StackId)] {
        let start = self.0.partition_point(|(other, _)| *other < parent);
        let end = self.0.partition_point(|(other, _)| *other <= parent);
        &self.0[start..end]
    }
}

/// Where the stacks of the profile stand in the tree, for one root.
struct Grafts {
    of_root: Option<StackId>,
    known: Vec<Option<StackId>>,
}

impl Grafts {
    /// Forgets all but that stacks now stand on `root`. Where that is the same root, all stays known.
    fn start(&mut self, root: Option<StackId>) {
        if self.of_root != root {
            self.of_root = root;
            self.known.fill(None);
        }
    }

    /// The stack of labels of a stack of the profile.
    fn graft(
        &mut self,
        labels: &mut Profile,
        profile: &Profile,
        label_of: &[FrameId],
        stack: StackId,
    ) -> Option<StackId> {
        // Up to what is known, then down again: a stack may be too deep for recursion.
        let mut missing = vec![stack];
        let mut next = profile.parent_of(stack);
        while let Some(parent) = next.filter(|parent| self.known[parent.index()].is_none()) {
            missing.push(parent);
            next = profile.parent_of(parent);
        }
        let mut below = next.and_then(|parent| self.known[parent.index()]).or(self.of_root);
        for stack in missing.into_iter().rev() {
            below = Some(labels.push(below, label_of[profile.leaf_of(stack).index()]));
            self.known[stack.index()] = below;
        }
        below
    }
}
