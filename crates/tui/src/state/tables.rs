//! The sums that the tabs show, of the samples that the selection lets through.

use profiler_profile::{FrameId, Profile, StackId, Tally, Weights};

use super::calls::Calls;
use super::cost::{Cost, Costs, Into, Span};
use super::places::Places;

/// Functions, lines and calls with what they cost.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    pub places: Places,
    pub functions: Costs,
    pub lines: Costs,
    pub calls: Calls,
    start: Weights,
    recent: Weights,
    current: Weights,
    /// How many samples were added: the number of the next one.
    samples: u64,
}

impl Tables {
    pub fn new(full_filenames: bool) -> Self {
        Tables { places: Places::new(full_filenames), ..Tables::default() }
    }

    pub fn push_frame(&mut self, frame: &profiler_model::Frame) {
        self.places.push(frame);
        self.functions.grow(self.places.functions.len());
        self.lines.grow(self.places.lines.len());
    }

    pub fn push_stack(&mut self, parent: Option<StackId>, frame: FrameId) {
        self.calls.push(parent.map(StackId::index), self.places.of(frame.index()).0);
    }

    pub fn add(&mut self, profile: &Profile, stack: Option<StackId>, weights: Weights, into: Into) {
        self.samples += 1;
        if into != Into::Current {
            self.start += weights;
        }
        if into != Into::Start {
            self.current += weights;
        }
        // What a function does in the kernel is its own doing.
        let of_program = profile.leaf_first(stack).filter(|frame| !self.places.is_kernel(frame.index()));
        for (depth, frame) in of_program.enumerate() {
            let (function, line) = self.places.of(frame.index());
            self.functions.add(function, weights, depth == 0, self.samples, into);
            self.lines.add(line, weights, depth == 0, self.samples, into);
        }
        if let Some(stack) = stack {
            self.calls.add(stack.index(), weights, self.samples, into);
        }
    }

    /// Adds all these samples.
    pub fn add_all(&mut self, profile: &Profile, tallies: impl Iterator<Item = Tally>, into: Into) {
        for tally in tallies {
            self.add(profile, tally.stack, tally.weights, into);
        }
    }

    /// The innermost function of a stack, those of the kernel left out.
    pub fn innermost_function(&self, profile: &Profile, stack: StackId) -> Option<u32> {
        let mut frames = profile.leaf_first(Some(stack)).map(FrameId::index);
        let frame = frames.find(|frame| !self.places.is_kernel(*frame))?;
        Some(self.places.of(frame).0)
    }

    pub fn roll(&mut self) {
        self.recent = std::mem::take(&mut self.current);
        self.functions.roll();
        self.lines.roll();
        self.calls.roll();
    }

    pub fn clear(&mut self) {
        (self.start, self.recent, self.current) = Default::default();
        self.functions.clear();
        self.lines.clear();
        self.calls.clear();
    }

    /// What all selected samples of a span stand for: the whole that shares are of.
    pub fn whole(&self, span: Span) -> Weights {
        match span {
            Span::Interval => self.recent,
            Span::Start => self.start,
        }
    }

    pub fn function(&self, number: u32, span: Span) -> Cost {
        self.functions.of(number, span)
    }
}
