//! The rows of the present tab, and the cursor of each tab.

use profiler_profile::ThreadId;

use super::tab::Tab;

/// A row of the call tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeRow {
    /// The node.
    pub node: u32,
    /// Whether the nodes below it are shown.
    pub is_open: bool,
    /// Whether there are any.
    pub has_children: bool,
}

/// The rows of the present tab, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rows {
    /// It has none.
    #[default]
    None,
    /// Functions or lines.
    Places(Vec<u32>),
    /// Threads.
    Threads(Vec<ThreadId>),
    /// Nodes of the call tree.
    Calls(Vec<TreeRow>),
}

impl Rows {
    /// The number of rows.
    pub fn len(&self) -> usize {
        match self {
            Rows::None => 0,
            Rows::Places(rows) => rows.len(),
            Rows::Threads(rows) => rows.len(),
            Rows::Calls(rows) => rows.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The rows of the present tab, and in each tab the row of the cursor.
#[derive(Clone, Debug, Default)]
pub(super) struct Listing {
    rows: Rows,
    cursors: [usize; Tab::ALL.len()],
}

impl Listing {
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Replaces the rows by those of a tab. A cursor behind the last row moves to it.
    pub fn replace(&mut self, tab: Tab, rows: Rows) {
        self.rows = rows;
        self.put_cursor(tab, self.cursor(tab));
    }

    /// The row of the cursor.
    pub fn cursor(&self, tab: Tab) -> usize {
        self.cursors[tab as usize]
    }

    /// Puts the cursor on this row, or on the last one.
    pub fn put_cursor(&mut self, tab: Tab, row: usize) {
        self.cursors[tab as usize] = row.min(self.rows.len().saturating_sub(1));
    }

    /// Puts the cursor on the row of a node, or on the first one.
    pub fn put_cursor_on_node(&mut self, tab: Tab, node: u32) {
        if let Rows::Calls(rows) = &self.rows {
            let row = rows.iter().position(|row| row.node == node).unwrap_or_default();
            self.put_cursor(tab, row);
        }
    }

    /// The row of the call tree under the cursor.
    pub fn tree_row(&self, tab: Tab) -> Option<TreeRow> {
        match &self.rows {
            Rows::Calls(rows) => rows.get(self.cursor(tab)).copied(),
            _ => None,
        }
    }
}
