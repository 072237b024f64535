//! The frames of a profile as the options tell them apart, each once: what the formats that spell out stacks
//! in order of time refer to by number.

use std::collections::HashMap;

use profiler_model::{Frame, FrameKind};
use profiler_profile::{Profile, StackId, ThreadId};

use crate::ViewOptions;
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
    /// What stands for a stack without any frame, where there is one: an empty stack means that nothing was
    /// shown.
    no_frames: Option<usize>,
}

impl SharedFrames {
    pub(crate) fn new(profile: &Profile, options: &ViewOptions) -> Self {
        let mut interner = Interner::default();
        let of_frame =
            profile.frames().map(|(_, frame)| interner.intern(SharedFrame::new(frame, options))).collect();
        let has_empty = profile.tallies().iter().any(|tally| tally.stack.is_none());
        let mut root_of = |label| interner.intern(SharedFrame { name: label, file: None, line: None });
        let of_thread = profile
            .threads()
            .map(|(thread, _)| root_labels(profile, thread, options).into_iter().map(&mut root_of).collect())
            .collect();
        let no_frames = has_empty.then(|| root_of(NO_FRAMES.to_owned()));
        SharedFrames { all: interner.frames, of_frame, of_thread, no_frames }
    }

    /// The stack as numbers of frames, root first.
    pub(crate) fn root_first(
        &self,
        profile: &Profile,
        thread: ThreadId,
        stack: Option<StackId>,
    ) -> Vec<usize> {
        let frames = profile.root_first(stack).into_iter().map(|frame| self.of_frame[frame.index()]);
        let mut all: Vec<usize> = self.of_thread[thread.index()].iter().copied().chain(frames).collect();
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
