//! Where the user is in the flame view.

use super::action::Action;
use super::calls::Calls;
use super::cost::Span;
use super::tab::Measure;

/// The node that the flame view begins with, and the node of its cursor.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FlamePosition {
    /// The first node that is shown; all nodes are shown if there is none.
    pub zoom: Option<u32>,
    pub cursor: Option<u32>,
}

impl FlamePosition {
    /// Puts the cursor on a node; zooms to the node if the cursor is there already.
    pub fn point(&mut self, node: u32) {
        match self.cursor == Some(node) {
            true => self.zoom = Some(node),
            false => self.cursor = Some(node),
        }
    }

    /// Moves the cursor, or zooms to its node.
    pub fn navigate(&mut self, action: Action, calls: &Calls, span: Span, measure: Measure) {
        let hottest = |node| calls.hottest_child(node, span, measure);
        let Some(node) = self.cursor else {
            self.cursor = self.zoom.or_else(|| hottest(None));
            return;
        };
        let parent = calls.node(node).parent;
        let next = match action {
            Action::Move(by) if by > 0 => hottest(Some(node)),
            Action::Move(_) if self.zoom != Some(node) => parent,
            Action::Left => sibling(&calls.children_with_cost(parent, span), node, -1),
            Action::Right => sibling(&calls.children_with_cost(parent, span), node, 1),
            Action::First => self.zoom.or_else(|| hottest(None)),
            Action::Enter => {
                self.zoom = Some(node);
                return;
            }
            _ => None,
        };
        self.cursor = next.or(Some(node));
    }
}

fn sibling(siblings: &[u32], node: u32, by: isize) -> Option<u32> {
    let place = siblings.iter().position(|sibling| *sibling == node)?;
    siblings.get(place.checked_add_signed(by)?).copied()
}
