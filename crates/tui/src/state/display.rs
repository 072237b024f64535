//! Which table is shown, of which time, by which measure and in which order.

use super::cost::Span;
use super::tab::{Column, Measure, Sort, Tab};

/// What is shown of the sums.
#[derive(Clone, Debug)]
pub(super) struct Display {
    tab: Tab,
    /// By tab.
    sorts: [Sort; Tab::ALL.len()],
    measure: Measure,
    span: Span,
    /// Whether line numbers are shown.
    pub line_numbers: bool,
}

impl Display {
    /// The first tab, by this measure.
    pub fn new(measure: Measure, line_numbers: bool) -> Self {
        let sorts = Tab::ALL.map(Tab::usual_sort);
        Display { tab: Tab::default(), sorts, measure, span: Span::default(), line_numbers }
    }

    /// The present tab.
    pub fn tab(&self) -> Tab {
        self.tab
    }

    pub fn show(&mut self, tab: Tab) {
        self.tab = tab;
    }

    /// Shows the tab so many places further on, round and round.
    pub fn show_next(&mut self, by: isize) {
        self.tab = moved_in(&Tab::ALL, self.tab, by);
    }

    /// The time by which samples are weighed.
    pub fn measure(&self) -> Measure {
        self.measure
    }

    pub fn set_measure(&mut self, measure: Measure) {
        self.measure = measure;
    }

    /// The span that the call tree and the flame view show, and narrow tables.
    pub fn span(&self) -> Span {
        self.span
    }

    /// Shows a span, in every tab.
    pub fn set_span(&mut self, span: Span) {
        self.span = span;
        for sort in &mut self.sorts {
            sort.column = sort.column.of_span(span);
        }
    }

    /// How the present tab is sorted.
    pub fn sort(&self) -> Sort {
        self.sort_of(self.tab)
    }

    /// How a tab is sorted.
    pub fn sort_of(&self, tab: Tab) -> Sort {
        self.sorts[tab as usize]
    }

    /// Sorts by this column, if the present tab has it; in the other order if it is sorted by it already.
    pub fn choose_column(&mut self, column: Column) {
        self.sort_by(self.sort().chosen(column));
    }

    /// Sorts by the column so many places further on.
    pub fn choose_next_column(&mut self, by: isize) {
        let columns = self.tab.columns();
        if !columns.is_empty() {
            let column = moved_in(columns, self.sort().column, by);
            self.sort_by(Sort { column, descending: !column.is_text() });
        }
    }

    /// Sorts in the other order.
    pub fn reverse(&mut self) {
        let sort = self.sort();
        self.sort_by(Sort { descending: !sort.descending, ..sort });
    }

    fn sort_by(&mut self, sort: Sort) {
        if !self.tab.columns().contains(&sort.column) {
            return;
        }
        self.sorts[self.tab as usize] = sort;
        match sort.column {
            Column::OwnRecent | Column::TotalRecent => self.set_span(Span::Interval),
            Column::OwnStart | Column::TotalStart => self.set_span(Span::Start),
            _ => {}
        }
    }
}

/// The element so many places after `present`, round and round.
fn moved_in<T: Copy + PartialEq>(all: &[T], present: T, by: isize) -> T {
    let place = all.iter().position(|one| *one == present).unwrap_or_default() as isize;
    all[(place + by).rem_euclid(all.len() as isize) as usize]
}
