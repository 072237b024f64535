//! What the user can ask of the state, and what the state then asks of the program.

use profiler_profile::Profile;

use super::{Column, Measure, Tab};

/// Something that the user does. Which key or click that is, is the business of `input`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// End.
    Quit,
    /// Stop for the shell's sake (Ctrl-Z).
    Suspend,
    /// Show a tab.
    Show(Tab),
    /// Show the tab so many further on.
    ShowNext(isize),
    /// Move the cursor so many rows; in the flame view, up or down.
    Move(isize),
    /// Put the cursor on the first row.
    First,
    /// Put the cursor on the last row.
    Last,
    /// Put the cursor on this row; if it is there already, do what Enter does.
    Point(usize),
    /// Put the cursor of the flame view on this node; if it is there already, zoom.
    PointFlame(u32),
    /// Close a node; in the flame view, the neighbour to the left; in a table, sort by the column to the left.
    Left,
    /// The same to the right.
    Right,
    /// Open or close a node, zoom, choose a thread, accept what was typed.
    Enter,
    /// Leave what is open: help, typing, zoom, filters.
    Back,
    /// Open the costliest path below the node of the cursor.
    OpenHottest,
    /// Close everything below the node of the cursor.
    CloseAll,
    /// Sort by this column; if it is sorted by already, in the other order.
    SortBy(Column),
    /// Sort by the column so many further on.
    SortNext(isize),
    /// Sort in the other order.
    Reverse,
    /// Show CPU time or wall time.
    SwitchMeasure,
    /// Show the last interval or all since the start.
    SwitchSpan,
    /// Include threads that wait, or leave them out.
    SwitchIdle,
    /// Show only samples with the GIL, or all.
    SwitchGil,
    /// Show only the next thread.
    NextThread,
    /// Take nothing in, or go on.
    SwitchPause,
    /// Let the view stand still, or go on.
    SwitchFreeze,
    /// While frozen, go on by one interval.
    Step,
    /// Forget what was seen.
    Reset,
    /// Begin to type a filter.
    AskFilter,
    /// Begin to type the name of a file to write.
    AskFile,
    /// Show or hide the help.
    Help,
    /// A character that is typed.
    Type(char),
    /// Take the last character back.
    Erase,
}

/// What the state asks of the program.
#[derive(Debug)]
pub enum Effect {
    /// End.
    Quit,
    /// Stop until the shell lets it go on.
    Suspend,
    /// Write what is seen.
    Save(Box<SaveRequest>),
}

/// What is to be written where.
#[derive(Debug)]
pub struct SaveRequest {
    /// The file's name as it was typed.
    pub file: String,
    /// What is seen: the samples since the start that the filters let through.
    pub profile: Profile,
    /// By which time it is weighed.
    pub measure: Measure,
}
