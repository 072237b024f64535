//! What is shown of the sums, and where the user is in it.

use profiler_profile::{Profile, Tally};

use super::action::Action;
use super::display::Display;
use super::filter::NameFilter;
use super::flame::FlamePosition;
use super::listing::{Listing, Rows};
use super::open_nodes::OpenNodes;
use super::rows::RowChoice;
use super::sums::Sums;
use super::tab::{Measure, Tab};

/// What the filter lets through, which table is shown in which order, and the cursors.
#[derive(Debug)]
pub(super) struct Browser {
    pub filter: NameFilter,
    pub display: Display,
    listing: Listing,
    open: OpenNodes,
    flame: FlamePosition,
}

impl Browser {
    pub fn new(display: Display) -> Self {
        Browser {
            filter: NameFilter::default(),
            display,
            listing: Listing::default(),
            open: OpenNodes::default(),
            flame: FlamePosition::default(),
        }
    }

    /// The rows of the present tab.
    pub fn rows(&self) -> &Rows {
        self.listing.rows()
    }

    /// The row of the cursor.
    pub fn cursor(&self) -> usize {
        self.listing.cursor(self.display.tab())
    }

    /// Where the user is in the flame view.
    pub fn flame(&self) -> &FlamePosition {
        &self.flame
    }

    /// Chooses the rows of the present tab.
    pub fn choose_rows(&mut self, sums: &Sums) {
        self.filter.update(&sums.tables.places.functions);
        let Browser { filter, display, open, .. } = self;
        let rows = RowChoice { sums, display, filter, open }.rows();
        self.listing.replace(self.display.tab(), rows);
    }

    /// Chooses the rows after an interval is over.
    pub fn follow(&mut self, sums: &Sums) {
        if !self.open.is_chosen() {
            self.open_hottest(None, sums);
        }
        self.choose_rows(sums);
    }

    /// Shows another table, or the same one by another time or in another order.
    pub fn change_display(&mut self, action: Action, sums: &Sums) {
        let display = &mut self.display;
        match action {
            Action::Show(tab) => display.show(tab),
            Action::ShowNext(by) => display.show_next(by),
            Action::SortBy(column) => display.choose_column(column),
            Action::SortNext(by) => display.choose_next_column(by),
            Action::Reverse => display.reverse(),
            Action::SwitchMeasure => display.set_measure(match display.measure() {
                Measure::Cpu => Measure::Wall,
                Measure::Wall => Measure::Cpu,
            }),
            Action::SwitchSpan => display.set_span(display.span().other()),
            _ => return,
        }
        self.choose_rows(sums);
    }

    /// Moves the cursor, opens or closes a node of the call tree, or zooms.
    pub fn navigate(&mut self, action: Action, sums: &Sums) {
        let (tab, cursor) = (self.display.tab(), self.cursor());
        match (action, tab) {
            (Action::PointFlame(node), _) => self.flame.point(node),
            (action, Tab::Flame) => {
                let (span, measure) = (self.display.span(), self.display.measure());
                self.flame.navigate(action, &sums.tables.calls, span, measure);
            }
            (Action::Point(row), _) if row == cursor => self.enter(sums),
            (Action::Point(row), _) => self.listing.put_cursor(tab, row),
            (Action::Move(by), _) => self.listing.put_cursor(tab, cursor.saturating_add_signed(by)),
            (Action::First, _) => self.listing.put_cursor(tab, 0),
            (Action::Last, _) => self.listing.put_cursor(tab, usize::MAX),
            (Action::Enter, _) => self.enter(sums),
            (Action::Left, Tab::Calls) => self.close_or_climb(sums),
            (Action::Right, Tab::Calls) => self.open_at_cursor(sums),
            (Action::Left, _) => self.change_display(Action::SortNext(-1), sums),
            (Action::Right, _) => self.change_display(Action::SortNext(1), sums),
            (Action::OpenHottest, Tab::Calls) => {
                let node = self.node_at_cursor();
                self.open.open(node);
                self.open_hottest(node, sums);
                self.choose_rows(sums);
            }
            (Action::CloseAll, Tab::Calls) => {
                self.open.close_below(self.node_at_cursor(), &sums.tables.calls);
                self.choose_rows(sums);
            }
            _ => {}
        }
    }

    /// Shows all nodes in the flame view. False if it does so already.
    pub fn zoom_out(&mut self) -> bool {
        self.flame.zoom.take().is_some()
    }

    /// The selected samples with a function that the filter lets through.
    pub fn matching_profile(&mut self, sums: &Sums) -> Profile {
        let places = &sums.tables.places;
        self.filter.update(&places.functions);
        let has_match = |tally: &Tally| {
            let mut frames = sums.profile().leaf_first(tally.stack);
            self.filter.is_empty() || frames.any(|frame| self.filter.is_match(places.of(frame.index()).0))
        };
        sums.profile().select(|tally| sums.selection().includes(tally) && has_match(tally))
    }

    fn enter(&mut self, sums: &Sums) {
        match self.listing.tree_row(self.display.tab()) {
            Some(row) if row.is_open => self.close_or_climb(sums),
            _ if self.display.tab() == Tab::Calls => self.open_at_cursor(sums),
            _ => {}
        }
    }

    fn node_at_cursor(&self) -> Option<u32> {
        self.listing.tree_row(self.display.tab()).map(|row| row.node)
    }

    fn open_at_cursor(&mut self, sums: &Sums) {
        self.open.open(self.node_at_cursor());
        self.choose_rows(sums);
    }

    /// Closes the node of the cursor; if it is closed already, puts the cursor on its caller.
    fn close_or_climb(&mut self, sums: &Sums) {
        let node = self.node_at_cursor();
        if self.open.close(node) {
            self.choose_rows(sums);
        } else if let Some(parent) = node.and_then(|node| sums.tables.calls.node(node).parent) {
            self.listing.put_cursor_on_node(self.display.tab(), parent);
        }
    }

    fn open_hottest(&mut self, from: Option<u32>, sums: &Sums) {
        let (span, measure) = (self.display.span(), self.display.measure());
        self.open.open_hottest(from, &sums.tables.calls, span, measure);
    }
}
