//! Which nodes of the call tree are open.

use std::collections::BTreeSet;

use super::calls::Calls;
use super::cost::Span;
use super::tab::Measure;

/// The open nodes. Until the user opens or closes one, they are those of the costliest path.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenNodes {
    nodes: BTreeSet<u32>,
    /// Whether the user has opened or closed anything.
    is_chosen: bool,
}

impl OpenNodes {
    pub fn contains(&self, node: u32) -> bool {
        self.nodes.contains(&node)
    }

    /// Whether the user has opened or closed anything.
    pub fn is_chosen(&self) -> bool {
        self.is_chosen
    }

    /// The user opens a node.
    pub fn open(&mut self, node: Option<u32>) {
        self.is_chosen = true;
        self.nodes.extend(node);
    }

    /// The user closes a node. False if it was not open.
    pub fn close(&mut self, node: Option<u32>) -> bool {
        self.is_chosen = true;
        node.is_some_and(|node| self.nodes.remove(&node))
    }

    /// The user closes a node and all nodes below it; without a node, all there are.
    pub fn close_below(&mut self, top: Option<u32>, calls: &Calls) {
        self.is_chosen = true;
        let Some(top) = top else {
            self.nodes.clear();
            return;
        };
        let is_below = |node: u32| {
            std::iter::successors(Some(node), |node| calls.node(*node).parent).any(|node| node == top)
        };
        self.nodes.retain(|node| !is_below(*node));
    }

    /// Opens the costliest path below a node, or from the root.
    pub fn open_hottest(&mut self, from: Option<u32>, calls: &Calls, span: Span, measure: Measure) {
        self.nodes.extend(from);
        let mut above = from;
        while let Some(hottest) = calls.hottest_child(above, span, measure) {
            if calls.children_with_cost(Some(hottest), span).is_empty() {
                break;
            }
            self.nodes.insert(hottest);
            above = Some(hottest);
        }
    }
}
