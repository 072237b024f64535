//! The frames of a profile as the options tell them apart, each once: what the formats that spell out stacks
//! in order of time refer to by number.

use std::collections::HashMap;

use profiler_model::{Frame, FrameKind};
use profiler_profile::{Profile, ThreadId};

use crate::ViewOptions;
use crate::drawn_stack::{DrawnStack, Marks};
use crate::label::{KERNEL_MARK, NO_FRAMES, frame_name, line_shown, root_labels};

/// A frame as it is shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct SharedFrame {
    pub(crate) name: String,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
}

impl SharedFrame {
    /// The whole file name, as py-spy has it in these formats: their viewers show it only when asked.
    fn new(frame: &Frame, options: &ViewOptions) -> Self {
        let file = [&*frame.file, frame.module.as_deref().unwrap_or_default()];
        let mark = if frame.kind == FrameKind::Kernel { KERNEL_MARK } else { "" };
        SharedFrame {
            name: frame_name(frame) + mark,
            file: file.into_iter().find(|file| !file.is_empty()).map(str::to_owned),
            line: line_shown(frame, options.line_numbers),
        }
    }
}

/// All frames, and where the frames and threads of the profile are among them.
pub(crate) struct SharedFrames {
    /// The frames.
    pub(crate) all: Vec<SharedFrame>,
    /// The shared frame of each frame of the profile, by index.
    of_frame: Vec<usize>,
    /// The shared frames that each thread's stacks stand on, by index.
    of_thread: Vec<Vec<usize>>,
    /// The shared frames of the marks that stand on stacks.
    of_marks: HashMap<Marks, Vec<usize>>,
    /// What stands for a stack without any frame, where there is one: an empty stack means that nothing was
    /// shown.
    no_frames: Option<usize>,
}

impl SharedFrames {
    pub(crate) fn new(profile: &Profile, options: &ViewOptions) -> Self {
        let mut interner = Interner::default();
        let of_frame =
            profile.frames().map(|(_, frame)| interner.intern(SharedFrame::new(frame, options))).collect();
        let drawn = || profile.tallies().iter().map(DrawnStack::of_tally);
        let has_empty = drawn().any(DrawnStack::is_empty);
        let mut root_of = |label| interner.intern(SharedFrame { name: label, file: None, line: None });
        let of_thread = profile
            .threads()
            .map(|(thread, _)| root_labels(profile, thread, options).into_iter().map(&mut root_of).collect())
            .collect();
        let mut of_marks = HashMap::new();
        for marks in drawn().filter_map(DrawnStack::marks) {
            let frames = || marks.labels().into_iter().map(&mut root_of).collect();
            of_marks.entry(marks).or_insert_with(frames);
        }
        let no_frames = has_empty.then(|| root_of(NO_FRAMES.to_owned()));
        SharedFrames { all: interner.frames, of_frame, of_thread, of_marks, no_frames }
    }

    /// The stack as numbers of frames, root first.
    pub(crate) fn root_first(&self, profile: &Profile, thread: ThreadId, drawn: DrawnStack) -> Vec<usize> {
        let frames = profile.root_first(drawn.stack).into_iter().map(|frame| self.of_frame[frame.index()]);
        let marks = drawn.marks().into_iter().flat_map(|marks| self.of_marks[&marks].iter().copied());
        let mut all: Vec<usize> =
            self.of_thread[thread.index()].iter().copied().chain(frames).chain(marks).collect();
        if all.is_empty() {
            all.extend(self.no_frames);
        }
        all
    }
}

#[derive(Default)]
struct Interner {
    frames: Vec<SharedFrame>,
    known: HashMap<SharedFrame, usize>,
}

impl Interner {
    fn intern(&mut self, frame: SharedFrame) -> usize {
        *self.known.entry(frame).or_insert_with_key(|frame| {
            self.frames.push(frame.clone());
            self.frames.len() - 1
        })
    }
}
