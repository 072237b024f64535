//! The tabs, their columns, and how their rows are sorted.

use super::cost::Span;

/// By which time samples are weighed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Measure {
    /// The CPU time that was used.
    #[default]
    Cpu,
    /// The time that went by.
    Wall,
}

/// A tab.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tab {
    /// What each function cost.
    #[default]
    Functions,
    /// What each line cost.
    Lines,
    /// What each thread does.
    Threads,
    /// Who calls whom.
    Calls,
    /// The same as boxes.
    Flame,
}

impl Tab {
    /// All of them, in order.
    pub const ALL: [Tab; 5] = [Tab::Functions, Tab::Lines, Tab::Threads, Tab::Calls, Tab::Flame];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Tab::Functions => "functions",
            Tab::Lines => "lines",
            Tab::Threads => "threads",
            Tab::Calls => "calls",
            Tab::Flame => "flame",
        }
    }

    /// Its columns.
    pub fn columns(self) -> &'static [Column] {
        use Column::*;
        match self {
            Tab::Functions | Tab::Lines => &[
                OwnRecent,
                TotalRecent,
                OwnStart,
                TotalStart,
                OwnCpu,
                TotalCpu,
                OwnWall,
                TotalWall,
                Name,
                File,
            ],
            Tab::Threads => &[Thread, ThreadName, State, Gil, Cpu, CpuTime, WaitsFor, Current],
            Tab::Calls => &[TotalRecent, OwnRecent, TotalStart, OwnStart, TotalCpu, TotalWall, Name],
            Tab::Flame => &[],
        }
    }

    /// How it is sorted at first.
    pub fn usual_sort(self) -> Sort {
        let (column, descending) = match self {
            Tab::Functions | Tab::Lines => (Column::OwnRecent, true),
            Tab::Threads => (Column::Cpu, true),
            Tab::Calls | Tab::Flame => (Column::TotalRecent, true),
        };
        Sort { column, descending }
    }
}

/// A column of a tab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Own share in the last interval.
    OwnRecent,
    /// Total share in the last interval.
    TotalRecent,
    /// Own share since the start.
    OwnStart,
    /// Total share since the start.
    TotalStart,
    /// Own CPU time since the start.
    OwnCpu,
    /// Total CPU time since the start.
    TotalCpu,
    /// Own wall time since the start.
    OwnWall,
    /// Total wall time since the start.
    TotalWall,
    /// The function's name.
    Name,
    /// Its file and line.
    File,
    /// The thread's number.
    Thread,
    /// The thread's name.
    ThreadName,
    /// What it was doing last.
    State,
    /// The share of the last interval for which it held the GIL.
    Gil,
    /// The share of a core that it used in the last interval.
    Cpu,
    /// Its CPU time since the start.
    CpuTime,
    /// What it waits for.
    WaitsFor,
    /// The function that it is in.
    Current,
}

impl Column {
    /// Whether it holds text, which is read from A to Z, where numbers are read from the largest.
    pub fn is_text(self) -> bool {
        use Column::*;
        matches!(self, Name | File | Thread | ThreadName | State | WaitsFor | Current)
    }

    /// The column that says the same of a span; for most, itself.
    pub fn of_span(self, span: Span) -> Column {
        match (self, span) {
            (Column::OwnRecent | Column::OwnStart, Span::Interval) => Column::OwnRecent,
            (Column::TotalRecent | Column::TotalStart, Span::Interval) => Column::TotalRecent,
            (Column::OwnRecent | Column::OwnStart, Span::Start) => Column::OwnStart,
            (Column::TotalRecent | Column::TotalStart, Span::Start) => Column::TotalStart,
            (other, _) => other,
        }
    }
}

/// How rows are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// By which column.
    pub column: Column,
    /// Whether the largest comes first.
    pub descending: bool,
}

impl Sort {
    /// By this column as it is usually read, or in the other order where it is sorted by already.
    pub(super) fn chosen(self, column: Column) -> Sort {
        match self.column == column {
            true => Sort { descending: !self.descending, ..self },
            false => Sort { column, descending: !column.is_text() },
        }
    }
}
