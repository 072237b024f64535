//! The rows of the tabs: which ones the filters let through, in which order. They are chosen anew when an
//! interval is over or the user asks for something else, never for the sake of drawing.

use std::cmp::Ordering;

use profiler_model::ThreadState;
use profiler_profile::{ThreadId, ThreadInfo, Weights};

use super::cost::{Costs, Span, time};
use super::places::Place;
use super::tab::{Column, Measure, Sort, Tab};
use super::{Rows, State, TreeRow};

/// The most rows of the call tree: more are not read.
const MAX_TREE_ROWS: usize = 10_000;

impl State {
    /// Chooses the rows of the present tab.
    pub(super) fn choose_rows(&mut self) {
        self.note_matches();
        self.rows = match self.tab {
            Tab::Functions => Rows::Places(self.place_rows(&self.tables.functions, |place| place)),
            Tab::Lines => {
                let of_line = self.tables.places.line_functions();
                Rows::Places(self.place_rows(&self.tables.lines, |line| of_line[line as usize]))
            }
            Tab::Threads => Rows::Threads(self.thread_rows()),
            Tab::Calls => Rows::Calls(self.tree_rows()),
            Tab::Flame => Rows::None,
        };
        let last = self.rows.len().saturating_sub(1);
        let cursor = &mut self.cursors[self.tab as usize];
        *cursor = (*cursor).min(last);
        self.is_dirty = true;
    }

    fn place_rows(&self, costs: &Costs, function_of: impl Fn(u32) -> u32) -> Vec<u32> {
        let sort = self.sort();
        let shown = |place: &u32| self.is_match(function_of(*place));
        let mut rows: Vec<u32> = costs.places(Span::Start).into_iter().filter(shown).collect();
        match sort.column {
            Column::Name | Column::File => {
                let places = self.places();
                rows.sort_by(|a, b| {
                    let (a, b) = (&places[*a as usize], &places[*b as usize]);
                    ordered(sort, by_text(sort.column, a, b))
                });
            }
            column => {
                // What is equal in the column is ordered by what it cost in all, then by age.
                let key = |place: u32| {
                    let total = costs.of(place, Span::Start).total;
                    (cost_in(costs, place, column, self.measure), time(self.measure, total).as_nanos())
                };
                let mut keyed: Vec<_> = rows.iter().map(|place| (key(*place), *place)).collect();
                keyed.sort_unstable_by(|a, b| ordered(sort, a.0.cmp(&b.0)).then(a.1.cmp(&b.1)));
                rows = keyed.into_iter().map(|(_, place)| place).collect();
            }
        }
        rows
    }

    fn thread_rows(&self) -> Vec<ThreadId> {
        let sort = self.sort();
        let mut rows: Vec<ThreadId> = self
            .profile
            .threads()
            .filter(|(id, thread)| self.is_thread_match(*id, thread))
            .map(|(id, _)| id)
            .collect();
        rows.sort_by(|a, b| ordered(sort, self.by_thread(sort.column, *a, *b)));
        rows
    }

    fn is_thread_match(&self, id: ThreadId, thread: &ThreadInfo) -> bool {
        if self.filter.is_empty() {
            return true;
        }
        let name = thread.name.as_deref().unwrap_or_default().to_lowercase();
        name.contains(&self.filter)
            || thread.key.tid.to_string().contains(&self.filter)
            || self.current_function(id).is_some_and(|function| self.is_match(function))
    }

    fn by_thread(&self, column: Column, a: ThreadId, b: ThreadId) -> Ordering {
        let (left, right) = (self.thread_row(a), self.thread_row(b));
        let info = |id| self.profile.thread_of(id);
        let by_share = |left: f64, right: f64| left.total_cmp(&right);
        let order = match column {
            Column::ThreadName => info(a).name.cmp(&info(b).name),
            Column::State => {
                rank(&left.last.map(|last| last.state)).cmp(&rank(&right.last.map(|last| last.state)))
            }
            Column::Gil => by_share(left.recent.gil_share(), right.recent.gil_share()),
            Column::CpuTime => left.start.cpu.cmp(&right.start.cpu),
            Column::WaitsFor => {
                wait(left.last.map(|last| last.state)).cmp(&wait(right.last.map(|last| last.state)))
            }
            Column::Current => {
                let name = |id| {
                    self.current_function(id)
                        .map(|function| &self.tables.places.functions[function as usize].name)
                };
                name(a).cmp(&name(b))
            }
            Column::Cpu => by_share(left.recent.cpu_share(), right.recent.cpu_share()),
            _ => Ordering::Equal,
        };
        order.then_with(|| info(a).key.cmp(&info(b).key))
    }

    /// The open part of the tree, callers before callees.
    fn tree_rows(&self) -> Vec<TreeRow> {
        let shown = self.nodes_with_matches();
        let mut rows = Vec::new();
        let mut waiting: Vec<(u32, bool)> =
            self.tree_children(None).into_iter().rev().map(|node| (node, false)).collect();
        while let Some((node, is_in_match)) = waiting.pop() {
            let is_in_match = is_in_match
                || shown.as_ref().is_none_or(|_| self.is_match(self.tables.calls.node(node).function));
            if !is_in_match && !shown.as_ref().is_none_or(|shown| shown[node as usize]) {
                continue;
            }
            if rows.len() >= MAX_TREE_ROWS {
                break;
            }
            let children = self.tree_children(Some(node));
            let is_open = self.open.contains(&node);
            rows.push(TreeRow { node, is_open, has_children: !children.is_empty() });
            if is_open {
                waiting.extend(children.into_iter().rev().map(|child| (child, is_in_match)));
            }
        }
        rows
    }

    /// The nodes that lead to a match, where a filter is on.
    fn nodes_with_matches(&self) -> Option<Vec<bool>> {
        if self.filter.is_empty() {
            return None;
        }
        let nodes = self.tables.calls.nodes();
        let mut shown = vec![false; nodes.len()];
        for (number, node) in nodes.iter().enumerate().rev() {
            let leads = shown[number] || self.is_match(node.function);
            shown[number] = leads;
            if let (true, Some(parent)) = (leads, node.parent) {
                shown[parent as usize] = true;
            }
        }
        Some(shown)
    }

    /// The nodes below a node that cost anything in the present span, in the order of the tree.
    pub(super) fn tree_children(&self, node: Option<u32>) -> Vec<u32> {
        let sort = self.sort_of(Tab::Calls);
        let calls = &self.tables.calls;
        let mut children: Vec<u32> = self.children(node);
        if sort.column == Column::Name {
            let name = |node: &u32| &self.tables.places.functions[calls.node(*node).function as usize].name;
            children.sort_by(|a, b| ordered(sort, name(a).cmp(name(b))));
        } else {
            let key = |node: &u32| cost_of(|span| calls.cost(*node, span), sort.column, self.measure);
            children.sort_by(|a, b| ordered(sort, key(a).cmp(&key(b))));
        }
        children
    }

    /// The nodes below a node that cost anything in the present span, the eldest first: an order that does
    /// not change while somebody looks at it.
    pub fn children(&self, node: Option<u32>) -> Vec<u32> {
        let calls = &self.tables.calls;
        let has_cost = |node: &u32| calls.cost(*node, self.span).total.samples > 0;
        calls.children(node).iter().copied().filter(has_cost).collect()
    }
}

fn ordered(sort: Sort, order: Ordering) -> Ordering {
    if sort.descending { order.reverse() } else { order }
}

fn by_text(column: Column, a: &Place, b: &Place) -> Ordering {
    match column {
        Column::File => (&a.file, a.line).cmp(&(&b.file, b.line)),
        _ => (&a.name, &a.file, a.line).cmp(&(&b.name, &b.file, b.line)),
    }
}

fn cost_in(costs: &Costs, place: u32, column: Column, measure: Measure) -> u64 {
    cost_of(|span| costs.of(place, span), column, measure)
}

/// The number by which a column of costs is sorted.
fn cost_of(cost: impl Fn(Span) -> super::cost::Cost, column: Column, measure: Measure) -> u64 {
    let by_measure = |weights: Weights| time(measure, weights).as_nanos();
    match column {
        Column::OwnRecent => by_measure(cost(Span::Interval).own),
        Column::TotalRecent => by_measure(cost(Span::Interval).total),
        Column::OwnStart => by_measure(cost(Span::Start).own),
        Column::OwnCpu => cost(Span::Start).own.cpu.as_nanos(),
        Column::TotalCpu => cost(Span::Start).total.cpu.as_nanos(),
        Column::OwnWall => cost(Span::Start).own.wall.as_nanos(),
        Column::TotalWall => cost(Span::Start).total.wall.as_nanos(),
        _ => by_measure(cost(Span::Start).total),
    }
}

/// Running threads before those that wait for the GIL, before those that wait, before those not seen.
fn rank(state: &Option<ThreadState>) -> u8 {
    match state {
        Some(ThreadState::Running) => 0,
        Some(ThreadState::WaitingForGil) => 1,
        Some(ThreadState::Waiting(_)) => 2,
        None => 3,
    }
}

/// What a state waits for, if it does.
fn wait(state: Option<ThreadState>) -> Option<String> {
    state.filter(|state| !state.is_running()).map(|state| state.to_string())
}
