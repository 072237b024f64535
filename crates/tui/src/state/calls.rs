//! The call tree: functions under the functions that called them, the lines of a function taken together.

use profiler_profile::Weights;
use rustc_hash::FxHashMap;

use super::cost::{Cost, Costs, Into, Span, time};
use super::tab::Measure;

/// The most nodes that are kept. Programs that call everything from everywhere make new paths for hours; half
/// a million takes some hundred megabytes.
pub const MAX_NODES: usize = 500_000;

/// A node of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// The node of the caller.
    pub parent: Option<u32>,
    /// The number of the function.
    pub function: u32,
    /// How many callers stand above it.
    pub depth: u32,
}

/// Where a stack ends in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    node: Option<u32>,
    /// Whether the stack goes on below the node, where the tree has no room.
    is_cut: bool,
}

/// The tree with its costs.
#[derive(Clone, Debug, Default)]
pub(super) struct Calls {
    nodes: Vec<Node>,
    index: FxHashMap<(Option<u32>, u32), u32>,
    children: FxHashMap<Option<u32>, Vec<u32>>,
    /// By stack.
    ends: Vec<End>,
    costs: Costs,
}

impl Calls {
    /// Takes the next stack: what it stands on, and the function of its innermost frame.
    pub fn push(&mut self, parent: Option<usize>, function: u32) {
        let above = parent.map_or(End { node: None, is_cut: false }, |parent| self.ends[parent]);
        let end = if above.is_cut { above } else { self.child(above, function) };
        self.ends.push(end);
    }

    fn child(&mut self, above: End, function: u32) -> End {
        let key = (above.node, function);
        if let Some(node) = self.index.get(&key) {
            return End { node: Some(*node), is_cut: false };
        }
        if self.nodes.len() >= MAX_NODES {
            return End { is_cut: true, ..above };
        }
        let node = self.nodes.len() as u32;
        let depth = above.node.map_or(0, |parent| self.node(parent).depth + 1);
        self.nodes.push(Node { parent: above.node, function, depth });
        self.index.insert(key, node);
        self.children.entry(above.node).or_default().push(node);
        self.costs.grow(self.nodes.len());
        End { node: Some(node), is_cut: false }
    }

    /// Adds a sample of a stack.
    pub fn add(&mut self, stack: usize, weights: Weights, sample: u64, into: Into) {
        let end = self.ends[stack];
        let mut next = end.node;
        let mut is_own = !end.is_cut;
        while let Some(node) = next {
            self.costs.add(node, weights, is_own, sample, into);
            is_own = false;
            next = self.nodes[node as usize].parent;
        }
    }

    pub fn roll(&mut self) {
        self.costs.roll();
    }

    pub fn clear(&mut self) {
        self.costs.clear();
    }

    pub fn node(&self, node: u32) -> Node {
        self.nodes[node as usize]
    }

    pub fn cost(&self, node: u32, span: Span) -> Cost {
        self.costs.of(node, span)
    }

    fn children(&self, node: Option<u32>) -> &[u32] {
        self.children.get(&node).map_or(&[], Vec::as_slice)
    }

    /// The nodes below a node, or the roots, that cost anything in a span. They come in the order of their age, which
    /// does not change while the user looks at them.
    pub fn children_with_cost(&self, node: Option<u32>, span: Span) -> Vec<u32> {
        let has_cost = |node: &u32| self.cost(*node, span).total.samples > 0;
        self.children(node).iter().copied().filter(has_cost).collect()
    }

    /// The node below a node, or the root, that cost most in a span.
    pub fn hottest_child(&self, node: Option<u32>, span: Span, measure: Measure) -> Option<u32> {
        let total = |node: &u32| time(measure, self.cost(*node, span).total);
        self.children_with_cost(node, span).into_iter().max_by_key(total)
    }

    /// All nodes with their functions, callers before callees.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Whether stacks were cut for want of room.
    pub fn is_full(&self) -> bool {
        self.nodes.len() >= MAX_NODES
    }
}
