//! What functions and lines cost: by themselves, and with everything they called.

use std::sync::Arc;

use profiler_model::{FrameKind, RemoteAddr};
use rustc_hash::FxHashMap;

use crate::{FrameId, Profile, Weights};

/// A function, told apart by where it is written and not by its name alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Function {
    /// What kind of code it is.
    pub kind: FrameKind,
    /// Its name.
    pub name: Arc<str>,
    /// Its source file as the code names it.
    pub file: Arc<str>,
    /// Its source file as views show it.
    pub short_file: Arc<str>,
    /// Its module, where known.
    pub module: Option<Arc<str>>,
    /// The line on which it starts.
    pub first_line: Option<u32>,
    /// The program counter, where neither name nor file is known: then it is all there is.
    pub address: Option<RemoteAddr>,
}

/// A line of a function.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// The function it is part of.
    pub function: Function,
    /// The line, where known.
    pub line: Option<u32>,
}

/// What one function or line cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hot<Place> {
    /// The function or line.
    pub place: Place,
    /// Samples in which it was the innermost frame.
    pub own: Weights,
    /// Samples in which it was anywhere on the stack; each counts once, however often it recurs.
    pub total: Weights,
}

impl Profile {
    /// What every function of the program cost, in order of first appearance. What a function does in the kernel is its
    /// own doing; the kernel's functions cost nothing here.
    pub fn functions(&self) -> Vec<Hot<Function>> {
        self.hot(|profile, frame| profile.function_of(frame))
    }

    /// What every line cost, in order of first appearance.
    pub fn lines(&self) -> Vec<Hot<Line>> {
        self.hot(|profile, frame| Line {
            function: profile.function_of(frame),
            line: profile.frame_of(frame).position.line,
        })
    }

    fn function_of(&self, frame: FrameId) -> Function {
        let frame = self.frame_of(frame);
        let is_nameless = frame.function.is_empty() && frame.file.is_empty();
        Function {
            kind: frame.kind,
            name: frame.function.clone(),
            file: frame.file.clone(),
            short_file: frame.short_file.clone(),
            module: frame.module.clone(),
            first_line: frame.first_line,
            address: frame.address.filter(|_| is_nameless),
        }
    }

    fn hot<Place: Clone + Eq + std::hash::Hash>(
        &self,
        place_of: impl Fn(&Profile, FrameId) -> Place,
    ) -> Vec<Hot<Place>> {
        let (mut hot, place_of_frame) = self.places(place_of);
        // The number of the tally in which a place was last counted: so recursion counts once.
        let mut counted_in = vec![usize::MAX; hot.len()];
        for (number, tally) in self.tallies().iter().enumerate() {
            let is_kernel = |frame: &FrameId| self.frame_of(*frame).kind == FrameKind::Kernel;
            for (depth, frame) in self.leaf_first(tally.stack).filter(|frame| !is_kernel(frame)).enumerate() {
                let place = place_of_frame[frame.index()];
                if depth == 0 {
                    hot[place].own += tally.weights;
                }
                if std::mem::replace(&mut counted_in[place], number) != number {
                    hot[place].total += tally.weights;
                }
            }
        }
        hot
    }

    /// All places without any cost yet, and which of them each frame belongs to.
    fn places<Place: Clone + Eq + std::hash::Hash>(
        &self,
        place_of: impl Fn(&Profile, FrameId) -> Place,
    ) -> (Vec<Hot<Place>>, Vec<usize>) {
        let mut hot: Vec<Hot<Place>> = Vec::new();
        let mut known: FxHashMap<Place, usize> = FxHashMap::default();
        let place_of_frame = self
            .frames()
            .map(|(frame, _)| {
                let place = place_of(self, frame);
                *known.entry(place).or_insert_with_key(|place| {
                    let (own, total) = (Weights::default(), Weights::default());
                    hot.push(Hot { place: place.clone(), own, total });
                    hot.len() - 1
                })
            })
            .collect();
        (hot, place_of_frame)
    }
}
