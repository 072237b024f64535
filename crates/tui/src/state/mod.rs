//! Everything that the live view knows: it takes in updates and actions, and knows nothing of terminals, keys or
//! widgets. `view` draws it.

mod action;
mod activity;
mod backlog;
mod browser;
mod calls;
mod cost;
mod display;
mod filter;
mod flame;
mod help;
mod intervals;
mod listing;
mod meters;
mod mode;
mod open_nodes;
mod places;
mod reset_ledger;
mod rows;
mod sampled;
mod selection;
mod settings;
mod sums;
mod tab;
mod tables;
#[cfg(test)]
pub mod tests;
mod threads;

use profiler_model::Nanos;
use profiler_profile::{Ledger, Profile, ThreadId, Weights};

use self::backlog::Backlog;
use self::browser::Browser;
use self::display::Display;
use self::mode::MAX_TYPED;
use self::sampled::IntervalEnd;
use self::sums::Sums;
use crate::Update;

pub use self::action::{Action, Effect, SaveRequest};
pub use self::cost::{Cost, Span, time};
pub use self::help::HelpEntry;
pub use self::listing::{Rows, TreeRow};
pub use self::meters::Meter;
pub use self::mode::ViewMode;
pub use self::places::Place;
pub use self::selection::Selection;
pub use self::settings::Settings;
pub use self::tab::{Column, Measure, Sort, Tab};
pub use self::threads::ThreadRow;

/// What the live view knows.
#[derive(Debug)]
pub struct State {
    sums: Sums,
    backlog: Backlog,
    /// Why sampling has ended, if it has.
    end: Option<String>,
    browser: Browser,
    mode: ViewMode,
    /// The file that is proposed when the user saves what is shown.
    proposed_file: String,
    message: Option<String>,
    is_dirty: bool,
}

/// Taking in.
impl State {
    /// A view of nothing.
    pub fn new(settings: Settings) -> Self {
        let Settings { include_idle, gil_only, .. } = settings;
        let measure = if include_idle || gil_only { Measure::Wall } else { Measure::Cpu };
        let selection = Selection { include_idle, gil_only, thread: None };
        State {
            sums: Sums::new(settings.interval, selection, settings.full_filenames),
            backlog: Backlog::default(),
            end: None,
            browser: Browser::new(Display::new(measure, settings.line_numbers)),
            mode: ViewMode::default(),
            proposed_file: settings.file,
            message: None,
            is_dirty: true,
        }
    }

    /// Takes in what is new. While the view is frozen, it waits.
    pub fn fold(&mut self, update: Update) {
        if let Some(end) = &update.end {
            self.end = Some(end.clone());
            self.is_dirty = true;
        }
        if !self.backlog.is_frozen() {
            self.apply(update);
            return;
        }
        self.backlog.push(update);
        while let Some(oldest) = self.backlog.pop_excess() {
            self.apply(oldest);
        }
    }

    fn apply(&mut self, update: Update) {
        match self.sums.take_in(update) {
            None => return,
            Some(IntervalEnd::Whole) => self.browser.follow(&self.sums),
            Some(IntervalEnd::Joined) => self.browser.choose_rows(&self.sums),
        }
        self.is_dirty = true;
    }

    fn apply_backlog(&mut self) {
        while let Some(update) = self.backlog.pop() {
            self.apply(update);
        }
    }

    fn choose_rows(&mut self) {
        self.browser.choose_rows(&self.sums);
    }
}

/// Doing what the user wants.
impl State {
    /// Does it.
    pub fn act(&mut self, action: Action) -> Option<Effect> {
        self.is_dirty = true;
        self.message = None;
        match self.mode {
            ViewMode::Look => self.act_looking(action),
            ViewMode::Help(entry) => self.act_reading(action, entry),
            ViewMode::TypeFilter | ViewMode::TypeFile(_) => self.act_typing(action),
        }
    }

    /// Movements move in the help, and everything else closes it. An action that has its name in the help is done at
    /// once.
    fn act_reading(&mut self, action: Action, entry: usize) -> Option<Effect> {
        let last = self.help().len().saturating_sub(1);
        let entry = match action {
            Action::Move(by) => entry.saturating_add_signed(by),
            Action::First => 0,
            Action::Last => last,
            Action::Point(entry) => entry,
            Action::Left | Action::Right => return None,
            Action::Help | Action::Back | Action::Enter => {
                self.mode = ViewMode::Look;
                return None;
            }
            other => {
                self.mode = ViewMode::Look;
                return self.act_looking(other);
            }
        };
        self.mode = ViewMode::Help(entry.min(last));
        None
    }

    fn act_looking(&mut self, action: Action) -> Option<Effect> {
        match action {
            Action::Quit => return Some(Effect::Quit),
            Action::Suspend => return Some(Effect::Suspend),
            Action::Help => self.mode = ViewMode::Help(0),
            Action::AskFilter => self.mode = ViewMode::TypeFilter,
            Action::AskFile => self.mode = ViewMode::TypeFile(self.proposed_file.clone()),
            Action::SwitchPause => self.sums.sampled.switch_pause(),
            Action::SwitchFreeze => self.switch_freeze(),
            Action::Step => self.step(),
            Action::Reset => self.reset(),
            Action::Show(_)
            | Action::ShowNext(_)
            | Action::SortBy(_)
            | Action::SortNext(_)
            | Action::Reverse
            | Action::SwitchMeasure
            | Action::SwitchSpan => self.browser.change_display(action, &self.sums),
            Action::SwitchIdle | Action::SwitchGil | Action::NextThread => self.select(action),
            Action::Type(_) | Action::Erase => {}
            other => self.navigate(other),
        }
        None
    }

    fn act_typing(&mut self, action: Action) -> Option<Effect> {
        let is_filter = self.mode == ViewMode::TypeFilter;
        match (action, &mut self.mode) {
            (Action::Quit, _) => return Some(Effect::Quit),
            (Action::Suspend, _) => return Some(Effect::Suspend),
            (Action::Back, mode) => {
                if is_filter {
                    self.browser.filter.clear();
                }
                *mode = ViewMode::Look;
            }
            (Action::Enter, mode) => match std::mem::take(mode) {
                ViewMode::TypeFile(file) if !file.is_empty() => return Some(self.save(file)),
                _ => {}
            },
            (Action::Type(char), ViewMode::TypeFile(file)) if file.len() < MAX_TYPED => file.push(char),
            (Action::Type(char), ViewMode::TypeFilter) => self.browser.filter.type_char(char),
            (Action::Erase, ViewMode::TypeFile(file)) => {
                file.pop();
            }
            (Action::Erase, _) => self.browser.filter.erase(),
            _ => {}
        }
        if is_filter {
            self.choose_rows();
        }
        None
    }

    fn save(&mut self, file: String) -> Effect {
        let profile = self.browser.matching_profile(&self.sums);
        Effect::Save(Box::new(SaveRequest { file, profile, measure: self.measure() }))
    }

    fn select(&mut self, action: Action) {
        match action {
            Action::SwitchIdle => {
                let include_idle = !self.selection().include_idle;
                self.sums.select(|selection| selection.include_idle = include_idle);
                // Waiting takes no CPU time: only by wall time there is something to see of it.
                self.browser.display.set_measure(if include_idle { Measure::Wall } else { Measure::Cpu });
            }
            Action::SwitchGil => self.sums.select(|selection| selection.gil_only = !selection.gil_only),
            _ => self.sums.select_next_thread(),
        }
        self.choose_rows();
    }

    fn switch_freeze(&mut self) {
        self.backlog.set_frozen(!self.backlog.is_frozen());
        if !self.backlog.is_frozen() {
            self.apply_backlog();
            self.choose_rows();
        }
    }

    /// Goes on until the next interval is over; freezes a view that is not frozen.
    fn step(&mut self) {
        self.backlog.set_frozen(true);
        let begun = self.sums.sampled.intervals().begun();
        while let Some(update) = self.backlog.pop() {
            self.apply(update);
            if self.sums.sampled.intervals().begun() != begun {
                return;
            }
        }
        self.choose_rows();
    }

    fn reset(&mut self) {
        self.apply_backlog();
        self.sums.reset();
        self.choose_rows();
    }

    fn navigate(&mut self, action: Action) {
        let is_entered = action == Action::Enter || action == Action::Point(self.cursor());
        match (action, self.rows()) {
            (Action::Back, _) => self.back(),
            (_, Rows::Threads(rows)) if is_entered => {
                let thread = rows.get(self.cursor()).copied();
                self.sums.select(|selection| selection.switch_thread(thread));
                self.choose_rows();
            }
            _ => self.browser.navigate(action, &self.sums),
        }
    }

    fn back(&mut self) {
        if self.browser.zoom_out() {
            return;
        }
        self.browser.filter.clear();
        if self.selection().thread.is_some() {
            self.sums.select(|selection| selection.thread = None);
        }
        self.choose_rows();
    }
}

/// Looking.
impl State {
    /// Whether anything has changed since this was last asked.
    pub fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.is_dirty)
    }

    /// Shows a message to the user until the next action.
    pub fn say(&mut self, message: String) {
        self.message = Some(message);
        self.is_dirty = true;
    }

    /// The last message.
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// What there is to read in the help.
    pub fn help(&self) -> Vec<HelpEntry> {
        help::entries(self.ledger())
    }

    /// Everything since the start or the last reset.
    pub fn profile(&self) -> &Profile {
        self.sums.profile()
    }

    /// The ledger of that time.
    pub fn ledger(&self) -> &Ledger {
        self.profile().ledger()
    }

    /// The length of the interval that is shown. It is the length that the user has asked for if the interval was only
    /// longer by the time between two updates.
    pub fn interval_length(&self) -> Nanos {
        self.sums.sampled.intervals().shown_length(self.end.is_some())
    }

    /// Why sampling has ended, if it has.
    pub fn end(&self) -> Option<&str> {
        self.end.as_deref()
    }

    /// The samples that are summed.
    pub fn selection(&self) -> &Selection {
        self.sums.selection()
    }

    /// Whether line numbers are shown.
    pub fn shows_line_numbers(&self) -> bool {
        self.browser.display.line_numbers
    }

    /// Whether nothing is taken in.
    pub fn is_paused(&self) -> bool {
        self.sums.sampled.is_paused()
    }

    /// Whether the view stands still.
    pub fn is_frozen(&self) -> bool {
        self.backlog.is_frozen()
    }

    /// The present tab.
    pub fn tab(&self) -> Tab {
        self.browser.display.tab()
    }

    /// How the present tab is sorted.
    pub fn sort(&self) -> Sort {
        self.browser.display.sort()
    }

    /// The rows of the present tab.
    pub fn rows(&self) -> &Rows {
        self.browser.rows()
    }

    /// The row of the cursor.
    pub fn cursor(&self) -> usize {
        self.browser.cursor()
    }

    /// The time by which samples are weighed.
    pub fn measure(&self) -> Measure {
        self.browser.display.measure()
    }

    /// The span that the call tree and the flame view show, and narrow tables.
    pub fn span(&self) -> Span {
        self.browser.display.span()
    }

    /// The text that functions must contain to be shown, in lower case.
    pub fn filter(&self) -> &str {
        self.browser.filter.text()
    }

    /// What the user is doing.
    pub fn mode(&self) -> &ViewMode {
        &self.mode
    }

    /// The functions, or in their tab the lines.
    pub fn places(&self) -> &[Place] {
        match self.tab() {
            Tab::Lines => &self.sums.tables.places.lines,
            _ => &self.sums.tables.places.functions,
        }
    }

    /// A function.
    pub fn function(&self, number: u32) -> &Place {
        &self.sums.tables.places.functions[number as usize]
    }

    /// What a function, or in their tab a line, cost.
    pub fn cost(&self, place: u32, span: Span) -> Cost {
        match self.tab() {
            Tab::Lines => self.sums.tables.lines.of(place, span),
            _ => self.sums.tables.function(place, span),
        }
    }

    /// The function of a node of the call tree.
    pub fn function_of(&self, node: u32) -> u32 {
        self.sums.tables.calls.node(node).function
    }

    /// How deep a node of the call tree lies.
    pub fn depth_of(&self, node: u32) -> u32 {
        self.sums.tables.calls.node(node).depth
    }

    /// What a node of the call tree cost.
    pub fn node_cost(&self, node: u32, span: Span) -> Cost {
        self.sums.tables.calls.cost(node, span)
    }

    /// The nodes below a node, or the roots, that cost anything in the present span, the eldest first.
    pub fn children(&self, node: Option<u32>) -> Vec<u32> {
        self.sums.tables.calls.children_with_cost(node, self.span())
    }

    /// Whether the call tree has no room for new paths, so that some stacks are cut in it.
    pub fn is_tree_full(&self) -> bool {
        self.sums.tables.calls.is_full()
    }

    /// A part of the selected samples of a span, 0 to 1.
    pub fn share(&self, weights: Weights, span: Span) -> f64 {
        let measure = self.measure();
        let whole = time(measure, self.sums.tables.whole(span)).as_nanos();
        if whole == 0 { 0.0 } else { time(measure, weights).as_nanos() as f64 / whole as f64 }
    }

    /// The node that the flame view begins with, if it does not show all nodes.
    pub fn zoom(&self) -> Option<u32> {
        self.browser.flame().zoom
    }

    /// The node of the flame view's cursor.
    pub fn flame_cursor(&self) -> Option<u32> {
        self.browser.flame().cursor
    }

    /// What a thread does.
    pub fn thread_row(&self, thread: ThreadId) -> &ThreadRow {
        self.sums.sampled.activity().thread(thread)
    }

    /// The function that a thread was in last.
    pub fn current_function(&self, thread: ThreadId) -> Option<u32> {
        self.sums.current_function(thread)
    }

    /// The figures of the last intervals, the oldest first.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &Meter> + ExactSizeIterator {
        self.sums.sampled.activity().history().iter()
    }

    /// Whether the filter lets a function through.
    pub fn is_match(&self, function: u32) -> bool {
        self.browser.filter.is_match(function)
    }
}
