//! What places cost: since the start, and in the last whole interval. The next interval is summed beside them
//! and takes its place when it is over; only rows that were touched are looked at then.

use profiler_model::Nanos;
use profiler_profile::Weights;

use super::Measure;

/// What one place cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// With itself innermost.
    pub own: Weights,
    /// With itself anywhere on the stack.
    pub total: Weights,
}

/// Of which time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Span {
    /// The last interval that is over.
    #[default]
    Interval,
    /// Everything since the start or the last reset.
    Start,
}

impl Span {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Span::Interval => Span::Start,
            Span::Start => Span::Interval,
        }
    }
}

/// Which sums a sample goes into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Into {
    /// It is new: since the start, and in the interval that is not over yet.
    StartAndCurrent,
    /// Since the start only: it is old.
    Start,
    /// In the interval that is not over yet.
    Current,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    start: Cost,
    recent: Cost,
    current: Cost,
    /// The number of the last sample that was counted here: recursion counts once.
    counted: u64,
    is_touched: bool,
}

/// The costs of places that are numbered from 0.
#[derive(Clone, Debug, Default)]
pub(super) struct Costs {
    rows: Vec<Row>,
    /// The rows with something in `current`.
    touched: Vec<u32>,
    /// The rows with something in `recent`.
    recent: Vec<u32>,
}

impl Costs {
    /// Makes room for places up to this number.
    pub fn grow(&mut self, places: usize) {
        if places > self.rows.len() {
            self.rows.resize(places, Row::default());
        }
    }

    /// Adds a sample's weights to a place, once for each `sample` number.
    pub fn add(&mut self, place: u32, weights: Weights, is_own: bool, sample: u64, into: Into) {
        let row = &mut self.rows[place as usize];
        let is_first = std::mem::replace(&mut row.counted, sample) != sample;
        let to = |cost: &mut Cost| {
            if is_own {
                cost.own += weights;
            }
            if is_first {
                cost.total += weights;
            }
        };
        if into != Into::Current {
            to(&mut row.start);
        }
        if into != Into::Start {
            to(&mut row.current);
            if !std::mem::replace(&mut row.is_touched, true) {
                self.touched.push(place);
            }
        }
    }

    /// The interval is over: it becomes the last one.
    pub fn roll(&mut self) {
        for place in self.recent.drain(..) {
            self.rows[place as usize].recent = Cost::default();
        }
        for place in &self.touched {
            let row = &mut self.rows[*place as usize];
            row.recent = std::mem::take(&mut row.current);
            row.is_touched = false;
        }
        std::mem::swap(&mut self.touched, &mut self.recent);
    }

    /// Forgets all costs, not the places.
    pub fn clear(&mut self) {
        self.rows.fill(Row::default());
        self.touched.clear();
        self.recent.clear();
    }

    pub fn of(&self, place: u32, span: Span) -> Cost {
        let row = &self.rows[place as usize];
        match span {
            Span::Interval => row.recent,
            Span::Start => row.start,
        }
    }

    /// The places with any cost in a span.
    pub fn places(&self, span: Span) -> Vec<u32> {
        match span {
            Span::Interval => self.recent.clone(),
            Span::Start => (0..self.rows.len() as u32).filter(|place| self.has_cost(*place)).collect(),
        }
    }

    fn has_cost(&self, place: u32) -> bool {
        self.rows[place as usize].start.total.samples > 0
    }
}

/// The time in weights by a measure.
pub fn time(measure: Measure, weights: Weights) -> Nanos {
    match measure {
        Measure::Cpu => weights.cpu,
        Measure::Wall => weights.wall,
    }
}
