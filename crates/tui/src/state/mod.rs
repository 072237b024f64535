//! Everything that the live view knows: it folds updates and actions, and knows nothing of terminals, keys or
//! widgets. `view` draws it.

mod action;
mod calls;
mod cost;
mod help;
mod meters;
mod places;
mod rows;
mod tab;
mod tables;
#[cfg(test)]
pub mod tests;
mod threads;

use std::collections::{BTreeSet, VecDeque};

use profiler_model::{Nanos, Timestamp};
use profiler_profile::{Event, Ledger, Mark, MarkKind, Profile, Sample, Tally, ThreadId, Weights};

use self::cost::Into;
use self::meters::Meters;
use self::tables::Tables;
use crate::Update;

pub use self::action::{Action, Effect, SaveRequest};
pub use self::cost::{Cost, Span, time};
pub use self::help::HelpEntry;
pub use self::meters::Meter;
pub use self::places::Place;
pub use self::tab::{Column, Measure, Sort, Tab};
pub use self::threads::ThreadRow;

/// The first interval is at most so long, so that there is something to see at once.
const FIRST_INTERVAL: Nanos = Nanos::from_nanos(250_000_000);

/// The most samples that wait while the view is frozen: an hour of a thread at 100 Hz is a third of it. When
/// more come in, the view goes on with the oldest.
const MAX_HELD: usize = 1_000_000;

/// The most runs of equal samples for which it is kept when they were taken: some forty megabytes, and hours
/// for most programs.
const MAX_RUNS: usize = 1_000_000;

/// The longest text that can be typed: file names end at 4,095 bytes.
const MAX_TYPED: usize = 1_000;

/// How the view begins.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long an interval is.
    pub interval: Nanos,
    /// Whether threads that wait are included.
    pub include_idle: bool,
    /// Whether only samples with the GIL are shown.
    pub gil_only: bool,
    /// Whether line numbers are shown.
    pub line_numbers: bool,
    /// Whether whole file names are shown.
    pub full_filenames: bool,
    /// The file that is proposed when something is to be saved.
    pub file: String,
}

/// What the user is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ViewMode {
    /// Looking.
    #[default]
    Look,
    /// Reading the help, with the cursor on this entry.
    Help(usize),
    /// Typing a filter.
    TypeFilter,
    /// Typing a file name.
    TypeFile(String),
}

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
    /// How many there are.
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

/// What the live view knows.
#[derive(Debug)]
pub struct State {
    settings: Settings,
    /// Everything since the start or the last reset, paused times left out.
    profile: Profile,
    tables: Tables,
    threads: Vec<ThreadRow>,
    /// By thread: CPU time that was used between two samples in which the thread waited. It was used by code
    /// that was not seen, so it counts with the next sample in which the thread runs, as in a recording.
    unseen_cpu: Vec<Nanos>,
    meters: Meters,
    /// The samples of the last interval and of the one that is not over yet.
    recent: Vec<Sample>,
    current: Vec<Sample>,
    /// When the interval began that is not over yet.
    interval_begun: Option<Timestamp>,
    /// How long the last interval was, if any is over since the start or the last reset.
    interval_length: Option<Nanos>,
    raw_ledger: Ledger,
    /// Whether looks say what threads do, and samples do not.
    has_looks: bool,
    /// The ledger at the last reset.
    ledger_before: Ledger,
    /// The samples that came in while paused, since the last reset.
    left_out: u64,
    is_paused: bool,
    is_frozen: bool,
    held: VecDeque<Update>,
    end: Option<String>,

    tab: Tab,
    sorts: [Sort; Tab::ALL.len()],
    cursors: [usize; Tab::ALL.len()],
    rows: Rows,
    measure: Measure,
    span: Span,
    thread: Option<ThreadId>,
    /// In lower case.
    filter: String,
    /// By function, whether the filter lets it through.
    matches: Vec<bool>,
    /// The nodes of the call tree that are open.
    open: BTreeSet<u32>,
    /// Whether the user has opened or closed anything: until then the costliest path is open.
    has_opened: bool,
    zoom: Option<u32>,
    flame_cursor: Option<u32>,
    mode: ViewMode,
    message: Option<String>,
    is_dirty: bool,
}

/// Taking in.
impl State {
    /// A view of nothing.
    pub fn new(settings: Settings) -> Self {
        let measure = if settings.include_idle || settings.gil_only { Measure::Wall } else { Measure::Cpu };
        State {
            profile: Profile::with_timeline(),
            tables: Tables::new(settings.full_filenames),
            threads: Vec::new(),
            unseen_cpu: Vec::new(),
            meters: Meters::default(),
            recent: Vec::new(),
            current: Vec::new(),
            interval_begun: None,
            interval_length: None,
            raw_ledger: Ledger::default(),
            has_looks: false,
            ledger_before: Ledger::default(),
            left_out: 0,
            is_paused: false,
            is_frozen: false,
            held: VecDeque::new(),
            end: None,
            tab: Tab::default(),
            sorts: Tab::ALL.map(Tab::usual_sort),
            cursors: [0; Tab::ALL.len()],
            rows: Rows::None,
            measure,
            span: Span::default(),
            thread: None,
            filter: String::new(),
            matches: Vec::new(),
            open: BTreeSet::new(),
            has_opened: false,
            zoom: None,
            flame_cursor: None,
            mode: ViewMode::default(),
            message: None,
            is_dirty: true,
            settings,
        }
    }

    /// Takes in what is new. While the view is frozen, it waits.
    pub fn fold(&mut self, update: Update) {
        if let Some(end) = &update.end {
            self.end = Some(end.clone());
            self.is_dirty = true;
        }
        if !self.is_frozen {
            self.apply(update);
            return;
        }
        self.held.push_back(update);
        while self.held.iter().map(Update::len).sum::<usize>() > MAX_HELD {
            let Some(oldest) = self.held.pop_front() else { break };
            self.apply(oldest);
        }
    }

    fn apply(&mut self, update: Update) {
        for frame in &update.frames {
            self.profile.frame(frame);
            self.tables.push_frame(frame);
        }
        for (parent, frame) in &update.stacks {
            self.profile.push(*parent, *frame);
            self.tables.push_stack(*parent, *frame);
        }
        update.processes.into_iter().for_each(|process| {
            self.profile.process(process);
        });
        update.threads.into_iter().for_each(|thread| {
            self.profile.thread(thread);
        });
        self.threads.resize_with(self.profile.threads().len(), ThreadRow::default);
        self.unseen_cpu.resize(self.threads.len(), Nanos::ZERO);
        update.events.into_iter().for_each(|event| self.take(&event));
        self.update_ledger();
        self.meters.note_memory(update.memory);
        let begun =
            *self.interval_begun.get_or_insert(self.raw_ledger.period.map_or(update.at, |(start, _)| start));
        let is_first = self.meters.history().is_empty();
        let interval =
            if is_first { self.settings.interval.min(FIRST_INTERVAL) } else { self.settings.interval };
        let lasted = update.at.since(begun);
        if self.is_paused {
            return;
        }
        if lasted >= interval {
            self.interval_begun = Some(update.at);
            self.roll(lasted);
        } else if update.end.is_some() {
            self.interval_begun = Some(update.at);
            self.take_rest(lasted);
        }
    }

    /// Sampling ended before the interval was over. What there is of it may be nothing at all, so it is shown
    /// together with the interval before it.
    fn take_rest(&mut self, lasted: Nanos) {
        let Some(before) = self.interval_length else {
            self.roll(lasted);
            return;
        };
        self.meters.take_rest(lasted, &self.raw_ledger);
        self.threads.iter_mut().for_each(ThreadRow::take_rest);
        self.recent.append(&mut self.current);
        self.interval_length = Some(before + lasted);
        self.sum_anew();
    }

    fn take(&mut self, event: &Event) {
        self.raw_ledger.add(event);
        match event {
            Event::Sample(event) => {
                // One that stands for several instants is the same at all of them.
                let same = Sample { cpu: Nanos::ZERO, wall: Nanos::ZERO, ..event.sample };
                for sample in std::iter::once(event.sample).chain((1..event.count).map(|_| same)) {
                    if !self.has_looks {
                        self.take_look(&sample);
                    }
                    self.take_sample(sample);
                }
            }
            Event::Look(look) => self.take_look(look),
            Event::Mark(Mark { kind: MarkKind::LooksBegin, .. }) => self.has_looks = true,
            Event::Mark(_) | Event::Skip(_) | Event::Loss(_) | Event::Held(_) | Event::Metric(_) => {}
        }
    }

    fn take_sample(&mut self, sample: Sample) {
        if self.is_paused {
            self.left_out += 1;
            return;
        }
        self.threads[sample.thread.index()].see(&sample);
        let sample = self.settle_cpu(sample);
        self.profile.record(sample);
        let tally = tally_of(&sample);
        if self.wants(&tally) {
            self.tables.add(&self.profile, sample.stack, tally.weights, Into::StartAndCurrent);
        }
        self.current.push(sample);
    }

    fn take_look(&mut self, look: &Sample) {
        if !self.is_paused {
            self.meters.count(self.profile.thread_of(look.thread).process, look);
            self.threads[look.thread.index()].count(look);
        }
    }

    fn settle_cpu(&mut self, sample: Sample) -> Sample {
        let unseen = &mut self.unseen_cpu[sample.thread.index()];
        if sample.state.is_running() {
            return Sample { cpu: sample.cpu + std::mem::take(unseen), ..sample };
        }
        *unseen += sample.cpu;
        Sample { cpu: Nanos::ZERO, ..sample }
    }

    fn update_ledger(&mut self) {
        let mut ledger = self.raw_ledger.since(&self.ledger_before);
        ledger.leave_out(self.left_out);
        self.profile.set_ledger(ledger);
    }

    /// The interval is over.
    fn roll(&mut self, lasted: Nanos) {
        self.meters.roll(lasted, &self.raw_ledger);
        self.tables.roll();
        self.threads.iter_mut().for_each(ThreadRow::roll);
        self.recent = std::mem::take(&mut self.current);
        self.interval_length = Some(lasted);
        if self.profile.timeline_len() > MAX_RUNS {
            self.profile.drop_timeline();
        }
        if !self.has_opened {
            self.open_hottest(None);
        }
        self.choose_rows();
    }

    /// Whether the selection lets samples of this kind through.
    fn wants(&self, tally: &Tally) -> bool {
        self.thread.is_none_or(|thread| thread == tally.thread)
            && (self.settings.include_idle || tally.state.is_running())
            && (!self.settings.gil_only || tally.holds_gil)
    }

    /// Sums anew, after the selection has changed.
    fn sum_anew(&mut self) {
        self.tables.clear();
        let wanted = |tallies: &mut dyn Iterator<Item = Tally>| -> Vec<Tally> {
            tallies.filter(|tally| self.wants(tally)).collect()
        };
        let start = wanted(&mut self.profile.tallies().iter().copied());
        let recent = wanted(&mut self.recent.iter().map(tally_of));
        let current = wanted(&mut self.current.iter().map(tally_of));
        self.add_all(&start, Into::Start);
        self.add_all(&recent, Into::Current);
        self.tables.roll();
        self.add_all(&current, Into::Current);
        self.choose_rows();
    }

    fn add_all(&mut self, tallies: &[Tally], into: Into) {
        for tally in tallies {
            self.tables.add(&self.profile, tally.stack, tally.weights, into);
        }
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

    /// Movements move in the help, and everything else closes it. A key that is asked for by its name there does at
    /// once what the help says that it does.
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
            Action::AskFile => self.mode = ViewMode::TypeFile(self.settings.file.clone()),
            Action::Show(tab) => self.show(tab),
            Action::ShowNext(by) => self.show(moved_in(&Tab::ALL, self.tab, by)),
            Action::SortBy(column) => self.sort_by(self.sort().chosen(column)),
            Action::SortNext(by) => self.sort_next(by),
            Action::Reverse => {
                let sort = self.sort();
                self.sort_by(Sort { descending: !sort.descending, ..sort });
            }
            Action::SwitchPause => self.switch_pause(),
            Action::SwitchFreeze => self.switch_freeze(),
            Action::Step => self.step(),
            Action::Reset => self.reset(),
            Action::SwitchMeasure
            | Action::SwitchSpan
            | Action::SwitchIdle
            | Action::SwitchGil
            | Action::NextThread => self.select(action),
            Action::Type(_) | Action::Erase => {}
            other => self.navigate(other),
        }
        None
    }

    fn act_typing(&mut self, action: Action) -> Option<Effect> {
        let is_filter = self.mode == ViewMode::TypeFilter;
        match action {
            Action::Quit => return Some(Effect::Quit),
            Action::Suspend => return Some(Effect::Suspend),
            Action::Back => {
                if is_filter {
                    self.filter.clear();
                }
                self.mode = ViewMode::Look;
            }
            Action::Enter => match std::mem::take(&mut self.mode) {
                ViewMode::TypeFile(file) if !file.is_empty() => return Some(self.save(file)),
                _ => {}
            },
            Action::Type(char) => {
                let text = self.typed();
                if text.len() < MAX_TYPED {
                    text.extend(char.to_lowercase().filter(|_| is_filter));
                    text.extend((!is_filter).then_some(char));
                }
            }
            Action::Erase => {
                self.typed().pop();
            }
            _ => {}
        }
        if is_filter {
            self.matches.clear();
            self.choose_rows();
        }
        None
    }

    fn typed(&mut self) -> &mut String {
        match &mut self.mode {
            ViewMode::TypeFile(file) => file,
            _ => &mut self.filter,
        }
    }

    fn save(&mut self, file: String) -> Effect {
        self.note_matches();
        let profile = self.profile.select(|tally| self.wants(tally) && self.has_match(tally));
        Effect::Save(Box::new(SaveRequest { file, profile, measure: self.measure }))
    }

    fn has_match(&self, tally: &Tally) -> bool {
        let function = |frame: profiler_profile::FrameId| self.tables.places.of(frame.index()).0;
        self.filter.is_empty()
            || self.profile.leaf_first(tally.stack).any(|frame| self.is_match(function(frame)))
    }

    fn show(&mut self, tab: Tab) {
        self.tab = tab;
        self.choose_rows();
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
        self.choose_rows();
    }

    /// Shows a span, in every tab.
    fn set_span(&mut self, span: Span) {
        self.span = span;
        for sort in &mut self.sorts {
            sort.column = sort.column.of_span(span);
        }
    }

    fn sort_next(&mut self, by: isize) {
        let columns = self.tab.columns();
        if !columns.is_empty() {
            let column = moved_in(columns, self.sort().column, by);
            self.sort_by(Sort { column, descending: !column.is_text() });
        }
    }

    fn select(&mut self, action: Action) {
        match action {
            Action::SwitchMeasure => {
                self.measure = match self.measure {
                    Measure::Cpu => Measure::Wall,
                    Measure::Wall => Measure::Cpu,
                };
                self.choose_rows();
                return;
            }
            Action::SwitchSpan => {
                self.set_span(self.span.other());
                self.choose_rows();
                return;
            }
            Action::SwitchIdle => {
                self.settings.include_idle = !self.settings.include_idle;
                // Waiting takes no CPU time: only by wall time there is something to see of it.
                self.measure = if self.settings.include_idle { Measure::Wall } else { Measure::Cpu };
            }
            Action::SwitchGil => self.settings.gil_only = !self.settings.gil_only,
            _ => self.thread = self.next_thread(),
        }
        self.sum_anew();
    }

    fn next_thread(&self) -> Option<ThreadId> {
        let mut threads = self.profile.threads().map(|(id, _)| id);
        match self.thread {
            None => threads.next(),
            Some(present) => threads.skip_while(|id| *id != present).nth(1),
        }
    }

    fn switch_pause(&mut self) {
        self.is_paused = !self.is_paused;
        if !self.is_paused {
            // The time in between is no part of any interval.
            self.meters.skip_to(&self.raw_ledger);
            self.interval_begun = self.raw_ledger.period.map(|(_, end)| end);
        }
    }

    fn switch_freeze(&mut self) {
        self.is_frozen = !self.is_frozen;
        if !self.is_frozen {
            while let Some(update) = self.held.pop_front() {
                self.apply(update);
            }
            self.choose_rows();
        }
    }

    /// Goes on until the next interval is over; freezes a view that is not frozen.
    fn step(&mut self) {
        self.is_frozen = true;
        let begun = self.interval_begun;
        while let Some(update) = self.held.pop_front() {
            self.apply(update);
            if self.interval_begun != begun {
                return;
            }
        }
        self.choose_rows();
    }

    fn reset(&mut self) {
        while let Some(update) = self.held.pop_front() {
            self.apply(update);
        }
        self.profile = self.profile.without_samples();
        self.ledger_before = self.raw_ledger.clone();
        self.left_out = 0;
        self.update_ledger();
        self.recent.clear();
        self.current.clear();
        self.interval_length = None;
        self.tables.clear();
        self.threads.fill(ThreadRow::default());
        self.choose_rows();
    }
}

/// Moving about.
impl State {
    fn navigate(&mut self, action: Action) {
        match (action, self.tab) {
            (Action::Back, _) => self.back(),
            (Action::PointFlame(node), _) => match self.flame_cursor == Some(node) {
                true => self.zoom = Some(node),
                false => self.flame_cursor = Some(node),
            },
            (action, Tab::Flame) => self.navigate_flame(action),
            (Action::Point(row), _) if row == self.cursor() => self.enter(),
            (Action::Point(row), _) => self.put_cursor(row),
            (Action::Move(by), _) => self.put_cursor(self.cursor().saturating_add_signed(by)),
            (Action::First, _) => self.put_cursor(0),
            (Action::Last, _) => self.put_cursor(usize::MAX),
            (Action::Enter, _) => self.enter(),
            (Action::Left, Tab::Calls) => self.close_or_climb(),
            (Action::Right, Tab::Calls) => self.open_at_cursor(),
            (Action::Left, _) => self.sort_next(-1),
            (Action::Right, _) => self.sort_next(1),
            (Action::OpenHottest, Tab::Calls) => {
                self.has_opened = true;
                self.open_hottest(self.node_at_cursor());
                self.choose_rows();
            }
            (Action::CloseAll, Tab::Calls) => self.close_below(),
            _ => {}
        }
    }

    fn back(&mut self) {
        if self.zoom.take().is_some() {
            return;
        }
        self.filter.clear();
        self.matches.clear();
        match self.thread.take() {
            Some(_) => self.sum_anew(),
            None => self.choose_rows(),
        }
    }

    fn put_cursor(&mut self, row: usize) {
        self.cursors[self.tab as usize] = row.min(self.rows.len().saturating_sub(1));
    }

    fn enter(&mut self) {
        match &self.rows {
            Rows::Calls(rows) => match rows.get(self.cursor()) {
                Some(row) if row.is_open => self.close_or_climb(),
                _ => self.open_at_cursor(),
            },
            Rows::Threads(rows) => {
                let chosen = rows.get(self.cursor()).copied();
                self.thread = if self.thread == chosen { None } else { chosen };
                self.sum_anew();
            }
            _ => {}
        }
    }

    fn node_at_cursor(&self) -> Option<u32> {
        match &self.rows {
            Rows::Calls(rows) => rows.get(self.cursor()).map(|row| row.node),
            _ => None,
        }
    }

    fn open_at_cursor(&mut self) {
        self.has_opened = true;
        self.open.extend(self.node_at_cursor());
        self.choose_rows();
    }

    /// Closes the node of the cursor; one that is closed leads to its caller.
    fn close_or_climb(&mut self) {
        self.has_opened = true;
        let Some(node) = self.node_at_cursor() else { return };
        if self.open.remove(&node) {
            self.choose_rows();
            return;
        }
        let parent = self.tables.calls.node(node).parent;
        if let (Some(parent), Rows::Calls(rows)) = (parent, &self.rows) {
            let row = rows.iter().position(|row| row.node == parent).unwrap_or_default();
            self.put_cursor(row);
        }
    }

    fn close_below(&mut self) {
        self.has_opened = true;
        match self.node_at_cursor() {
            Some(top) => {
                let calls = &self.tables.calls;
                let is_below = |node: u32| {
                    std::iter::successors(Some(node), |node| calls.node(*node).parent).any(|node| node == top)
                };
                self.open.retain(|node| !is_below(*node));
            }
            None => self.open.clear(),
        }
        self.choose_rows();
    }

    /// Opens the costliest path below a node, or from the root.
    fn open_hottest(&mut self, from: Option<u32>) {
        self.open.extend(from);
        let mut above = from;
        while let Some(hottest) = self.hottest_child(above) {
            if self.children(Some(hottest)).is_empty() {
                break;
            }
            self.open.insert(hottest);
            above = Some(hottest);
        }
    }

    fn hottest_child(&self, node: Option<u32>) -> Option<u32> {
        let total = |node: &u32| time(self.measure, self.tables.calls.cost(*node, self.span).total);
        self.children(node).into_iter().max_by_key(total)
    }

    fn navigate_flame(&mut self, action: Action) {
        let Some(node) = self.flame_cursor else {
            self.flame_cursor = self.zoom.or_else(|| self.hottest_child(None));
            return;
        };
        let parent = self.tables.calls.node(node).parent;
        let next = match action {
            Action::Move(by) if by > 0 => self.hottest_child(Some(node)),
            Action::Move(_) if self.zoom != Some(node) => parent,
            Action::Left | Action::Right => {
                let siblings = self.children(parent);
                let place = siblings.iter().position(|sibling| *sibling == node);
                let by = if action == Action::Left { -1 } else { 1 };
                place.and_then(|place| siblings.get(place.checked_add_signed(by)?).copied())
            }
            Action::First => self.zoom.or_else(|| self.hottest_child(None)),
            Action::Enter => {
                self.zoom = Some(node);
                return;
            }
            _ => None,
        };
        self.flame_cursor = next.or(Some(node));
    }
}

/// Looking.
impl State {
    /// Whether anything has changed since this was last asked.
    pub fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.is_dirty)
    }

    /// Says something to the user until the next action.
    pub fn say(&mut self, message: String) {
        self.message = Some(message);
        self.is_dirty = true;
    }

    /// What was said last.
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// What there is to read in the help.
    pub fn help(&self) -> Vec<HelpEntry> {
        help::entries(self.ledger())
    }

    /// Everything since the start or the last reset.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The ledger of that time.
    pub fn ledger(&self) -> &Ledger {
        self.profile.ledger()
    }

    /// How long the interval is that is shown. One that was as long as asked for, but for the time between two updates,
    /// is told as that.
    pub fn interval_length(&self) -> Nanos {
        let asked = self.settings.interval;
        match self.interval_length {
            Some(length) if length < asked || self.end.is_some() => length,
            _ => asked,
        }
    }

    /// Why sampling has ended, if it has.
    pub fn end(&self) -> Option<&str> {
        self.end.as_deref()
    }

    /// What was set at the start, and changed since.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether nothing is taken in.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Whether the view stands still.
    pub fn is_frozen(&self) -> bool {
        self.is_frozen
    }

    /// The present tab.
    pub fn tab(&self) -> Tab {
        self.tab
    }

    /// How the present tab is sorted.
    pub fn sort(&self) -> Sort {
        self.sort_of(self.tab)
    }

    fn sort_of(&self, tab: Tab) -> Sort {
        self.sorts[tab as usize]
    }

    /// The rows of the present tab.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// The row of the cursor.
    pub fn cursor(&self) -> usize {
        self.cursors[self.tab as usize]
    }

    /// By which time samples are weighed.
    pub fn measure(&self) -> Measure {
        self.measure
    }

    /// The span that the call tree and the flame view show, and narrow tables.
    pub fn span(&self) -> Span {
        self.span
    }

    /// The only thread that is shown, if it is only one.
    pub fn only_thread(&self) -> Option<ThreadId> {
        self.thread
    }

    /// The text that functions must contain to be shown, in lower case.
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// What the user is doing.
    pub fn mode(&self) -> &ViewMode {
        &self.mode
    }

    /// The functions, or in their tab the lines.
    pub fn places(&self) -> &[Place] {
        match self.tab {
            Tab::Lines => &self.tables.places.lines,
            _ => &self.tables.places.functions,
        }
    }

    /// A function.
    pub fn function(&self, number: u32) -> &Place {
        &self.tables.places.functions[number as usize]
    }

    /// What a function, or in their tab a line, cost.
    pub fn cost(&self, place: u32, span: Span) -> Cost {
        match self.tab {
            Tab::Lines => self.tables.lines.of(place, span),
            _ => self.tables.function(place, span),
        }
    }

    /// The function of a node of the call tree.
    pub fn function_of(&self, node: u32) -> u32 {
        self.tables.calls.node(node).function
    }

    /// How deep a node of the call tree lies.
    pub fn depth_of(&self, node: u32) -> u32 {
        self.tables.calls.node(node).depth
    }

    /// What a node of the call tree cost.
    pub fn node_cost(&self, node: u32, span: Span) -> Cost {
        self.tables.calls.cost(node, span)
    }

    /// Whether the call tree has no room for new paths, so that some stacks are cut in it.
    pub fn is_tree_full(&self) -> bool {
        self.tables.calls.is_full()
    }

    /// A part of the selected samples of a span, 0 to 1.
    pub fn share(&self, weights: Weights, span: Span) -> f64 {
        let whole = time(self.measure, self.tables.whole(span)).as_nanos();
        if whole == 0 { 0.0 } else { time(self.measure, weights).as_nanos() as f64 / whole as f64 }
    }

    /// The node that the flame view begins with, where it is not all.
    pub fn zoom(&self) -> Option<u32> {
        self.zoom
    }

    /// The node of the flame view's cursor.
    pub fn flame_cursor(&self) -> Option<u32> {
        self.flame_cursor
    }

    /// What a thread does.
    pub fn thread_row(&self, thread: ThreadId) -> &ThreadRow {
        &self.threads[thread.index()]
    }

    /// The function that a thread was in last.
    pub fn current_function(&self, thread: ThreadId) -> Option<u32> {
        let stack = self.thread_row(thread).last?.stack?;
        let places = &self.tables.places;
        let of_program = |frame: &profiler_profile::FrameId| !places.is_kernel(frame.index());
        let frame = self.profile.leaf_first(Some(stack)).find(of_program)?;
        Some(places.of(frame.index()).0)
    }

    /// The figures of the last intervals, the oldest first.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &Meter> + ExactSizeIterator {
        self.meters.history().iter()
    }

    /// Whether the filter lets a function through.
    pub fn is_match(&self, function: u32) -> bool {
        self.filter.is_empty() || self.matches.get(function as usize).is_some_and(|matches| *matches)
    }

    /// Brings `matches` up to date with the functions that there are by now.
    fn note_matches(&mut self) {
        if self.filter.is_empty() {
            return;
        }
        let known = self.matches.len();
        for place in &self.tables.places.functions[known..] {
            let contains = |text: &str| text.to_lowercase().contains(&self.filter);
            self.matches.push(contains(&place.name) || contains(&place.file));
        }
    }
}

fn tally_of(sample: &Sample) -> Tally {
    let Sample { thread, stack, state, holds_gil, .. } = *sample;
    Tally { thread, stack, state, holds_gil, weights: Weights::of(sample) }
}

/// The element so many after `present`, round and round.
fn moved_in<T: Copy + PartialEq>(all: &[T], present: T, by: isize) -> T {
    let place = all.iter().position(|one| *one == present).unwrap_or_default() as isize;
    all[(place + by).rem_euclid(all.len() as isize) as usize]
}
