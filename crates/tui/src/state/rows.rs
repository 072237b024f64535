//! The rows of the tabs: which ones the filters let through, in which order. They are chosen anew when an
//! interval is over or the user asks for something else, never for the sake of drawing.

use std::cmp::Ordering;

use profiler_model::ThreadState;
use profiler_profile::{ThreadId, ThreadInfo, Weights};

use super::cost::{Cost, Costs, Span, time};
use super::display::Display;
use super::filter::NameFilter;
use super::listing::{Rows, TreeRow};
use super::open_nodes::OpenNodes;
use super::places::Place;
use super::sums::Sums;
use super::tab::{Column, Measure, Sort, Tab};

/// The most rows of the call tree: more are not read.
const MAX_TREE_ROWS: usize = 10_000;

/// What the rows are chosen from, and by what.
#[derive(Debug)]
pub(super) struct RowChoice<'a> {
    pub sums: &'a Sums,
    pub display: &'a Display,
    /// Up to date with the functions that there are.
    pub filter: &'a NameFilter,
    pub open: &'a OpenNodes,
}

impl RowChoice<'_> {
    /// The rows of the present tab.
    pub fn rows(&self) -> Rows {
        match self.display.tab() {
            Tab::Functions => {
                let functions = &self.sums.tables.places.functions;
                Rows::Places(self.place_rows(functions, &self.sums.tables.functions, |place| place))
            }
            Tab::Lines => {
                let of_line = self.sums.tables.places.line_functions();
                let lines = &self.sums.tables.places.lines;
                Rows::Places(self.place_rows(lines, &self.sums.tables.lines, |line| of_line[line as usize]))
            }
            Tab::Threads => Rows::Threads(self.thread_rows()),
            Tab::Calls => Rows::Calls(self.tree_rows()),
            Tab::Flame => Rows::None,
        }
    }

    fn place_rows(&self, places: &[Place], costs: &Costs, function_of: impl Fn(u32) -> u32) -> Vec<u32> {
        let (sort, measure) = (self.display.sort(), self.display.measure());
        let shown = |place: &u32| self.filter.is_match(function_of(*place));
        let mut rows: Vec<u32> = costs.places(Span::Start).into_iter().filter(shown).collect();
        match sort.column {
            Column::Name | Column::File => {
                rows.sort_by(|a, b| {
                    let (a, b) = (&places[*a as usize], &places[*b as usize]);
                    ordered(sort, by_text(sort.column, a, b))
                });
            }
            column => {
                // What is equal in the column is ordered by what it cost in all, then by age.
                let key = |place: u32| {
                    let total = costs.of(place, Span::Start).total;
                    (cost_in(costs, place, column, measure), time(measure, total).as_nanos())
                };
                let mut keyed: Vec<_> = rows.iter().map(|place| (key(*place), *place)).collect();
                keyed.sort_unstable_by(|a, b| ordered(sort, a.0.cmp(&b.0)).then(a.1.cmp(&b.1)));
                rows = keyed.into_iter().map(|(_, place)| place).collect();
            }
        }
        rows
    }

    fn thread_rows(&self) -> Vec<ThreadId> {
        let sort = self.display.sort();
        let is_match =
            |id, thread: &ThreadInfo| self.filter.is_thread_match(thread, self.sums.current_function(id));
        let threads = self.sums.profile().threads();
        let mut rows: Vec<ThreadId> =
            threads.filter(|(id, thread)| is_match(*id, thread)).map(|(id, _)| id).collect();
        rows.sort_by(|a, b| ordered(sort, self.by_thread(sort.column, *a, *b)));
        rows
    }

    fn by_thread(&self, column: Column, a: ThreadId, b: ThreadId) -> Ordering {
        let (left, right) = (self.sums.sampled.activity().thread(a), self.sums.sampled.activity().thread(b));
        let info = |id| self.sums.profile().thread_of(id);
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
                    self.sums
                        .current_function(id)
                        .map(|function| &self.sums.tables.places.functions[function as usize].name)
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
                || shown
                    .as_ref()
                    .is_none_or(|_| self.filter.is_match(self.sums.tables.calls.node(node).function));
            if !is_in_match && !shown.as_ref().is_none_or(|shown| shown[node as usize]) {
                continue;
            }
            if rows.len() >= MAX_TREE_ROWS {
                break;
            }
            let children = self.tree_children(Some(node));
            let is_open = self.open.contains(node);
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
        let nodes = self.sums.tables.calls.nodes();
        let mut shown = vec![false; nodes.len()];
        for (number, node) in nodes.iter().enumerate().rev() {
            let leads = shown[number] || self.filter.is_match(node.function);
            shown[number] = leads;
            if let (true, Some(parent)) = (leads, node.parent) {
                shown[parent as usize] = true;
            }
        }
        Some(shown)
    }

    /// The nodes below a node that cost anything in the present span, in the order of the tree.
    fn tree_children(&self, node: Option<u32>) -> Vec<u32> {
        let (sort, measure) = (self.display.sort_of(Tab::Calls), self.display.measure());
        let calls = &self.sums.tables.calls;
        let mut children = calls.children_with_cost(node, self.display.span());
        if sort.column == Column::Name {
            let name =
                |node: &u32| &self.sums.tables.places.functions[calls.node(*node).function as usize].name;
            children.sort_by(|a, b| ordered(sort, name(a).cmp(name(b))));
        } else {
            let key = |node: &u32| cost_of(|span| calls.cost(*node, span), sort.column, measure);
            children.sort_by(|a, b| ordered(sort, key(a).cmp(&key(b))));
        }
        children
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
fn cost_of(cost: impl Fn(Span) -> Cost, column: Column, measure: Measure) -> u64 {
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
