//! The tables that samples refer to: frames, stacks, processes and threads, each kept once.
//!
//! Rows are only added, and their ids are dense: data about rows fits in a plain vector, and a copy is brought up to date
//! from the rows above the last one that it has. An id means nothing in another
//! dictionary.

use std::sync::Arc;

use profiler_model::{Frame, Pid};
use rustc_hash::FxHashMap;

use crate::frame_table::FrameTable;
use crate::stack_table::StackTable;
use crate::thread_table::ThreadTable;
use crate::{FrameId, LeafFirst, ProcessId, ProcessInfo, StackId, ThreadId, ThreadInfo};

/// Which of the dictionaries of one engine this is: they follow each other, and each has ids of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u32);

/// The functions, stacks, processes and threads that were met.
#[derive(Clone, Debug, Default)]
pub struct Dictionary {
    epoch: Epoch,
    frames: FrameTable,
    stacks: StackTable,
    processes: Vec<ProcessInfo>,
    with_pid: FxHashMap<Pid, Vec<ProcessId>>,
    threads: ThreadTable,
    /// How often a row that was there already has changed.
    revision: u64,
}

/// Filling.
impl Dictionary {
    /// The dictionary after this one: empty, of the next epoch.
    pub fn successor(&self) -> Self {
        Dictionary { epoch: Epoch(self.epoch.0 + 1), ..Dictionary::default() }
    }

    /// The id of a process; a new one only if none is equal.
    pub fn process(&mut self, process: ProcessInfo) -> ProcessId {
        let with_pid = self.with_pid.entry(process.pid).or_default();
        let is_known = |id: &&ProcessId| self.processes[id.index()].is_same_program(&process);
        if let Some(&known) = with_pid.iter().find(is_known) {
            self.complete_process(known, &process);
            return known;
        }
        let id = ProcessId::new(self.processes.len());
        with_pid.push(id);
        self.processes.push(process);
        id
    }

    /// Notes what was not known of a process and is now.
    pub(crate) fn complete_process(&mut self, process: ProcessId, info: &ProcessInfo) {
        let known = &mut self.processes[process.index()];
        known.start_time = known.start_time.or(info.start_time);
        if known.python_version.is_none() && info.python_version.is_some() {
            known.python_version.clone_from(&info.python_version);
            self.revision += 1;
        }
    }

    /// The id of a thread; a new one only if none has the same ids. A later name replaces an earlier one.
    pub fn thread(&mut self, thread: ThreadInfo) -> ThreadId {
        let (id, has_changed) = self.threads.intern(thread);
        self.revision += u64::from(has_changed);
        id
    }

    /// Names a thread: names are often set after the thread was first seen.
    pub fn name_thread(&mut self, thread: ThreadId, name: impl Into<Arc<str>>) {
        self.revision += u64::from(self.threads.name(thread, name.into()));
    }

    /// The id of a frame, which is cloned only if it is new.
    pub fn frame(&mut self, frame: &Frame) -> FrameId {
        self.frames.intern(frame)
    }

    /// Adds a frame that is certainly not there yet.
    pub(crate) fn append_frame(&mut self, frame: &Frame) -> FrameId {
        self.frames.append(frame)
    }

    /// Adds a stack that is certainly not there yet.
    pub(crate) fn append_stack(&mut self, parent: Option<StackId>, frame: FrameId) -> StackId {
        self.stacks.append(parent, frame)
    }

    /// The stack of `frame` standing on `parent`.
    pub fn push(&mut self, parent: Option<StackId>, frame: FrameId) -> StackId {
        self.stacks.push(parent, frame)
    }

    /// The stack of these frames, or `None` if there are none.
    pub fn stack(&mut self, root_first: impl IntoIterator<Item = FrameId>) -> Option<StackId> {
        self.stack_on(None, root_first)
    }

    /// The stack of these frames standing on `below`.
    pub fn stack_on(
        &mut self,
        below: Option<StackId>,
        root_first: impl IntoIterator<Item = FrameId>,
    ) -> Option<StackId> {
        root_first.into_iter().fold(below, |parent, frame| Some(self.push(parent, frame)))
    }
}

/// Reading.
impl Dictionary {
    /// Which dictionary of its engine it is.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How often a row that was there already has changed: a thread got a name, a process a version of Python.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// All processes, each after the process that started it.
    pub fn processes(&self) -> impl ExactSizeIterator<Item = (ProcessId, &ProcessInfo)> {
        self.processes.iter().enumerate().map(|(index, process)| (ProcessId::new(index), process))
    }

    /// What is known of a process.
    pub fn process_of(&self, process: ProcessId) -> &ProcessInfo {
        &self.processes[process.index()]
    }

    /// All threads, in order of first appearance.
    pub fn threads(&self) -> impl ExactSizeIterator<Item = (ThreadId, &ThreadInfo)> {
        self.threads.threads().iter().enumerate().map(|(index, thread)| (ThreadId::new(index), thread))
    }

    /// What is known of a thread.
    pub fn thread_of(&self, thread: ThreadId) -> &ThreadInfo {
        &self.threads.threads()[thread.index()]
    }

    /// All frames, in order of first appearance.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = (FrameId, &Frame)> {
        self.frames.frames().iter().enumerate().map(|(index, frame)| (FrameId::new(index), frame))
    }

    /// The frame behind an id.
    pub fn frame_of(&self, frame: FrameId) -> &Frame {
        self.frames.frame(frame)
    }

    /// All stacks as (stack, the stack below, innermost frame), in the order of their ids: each after the one that it
    /// stands on.
    pub fn stacks(
        &self,
    ) -> impl ExactSizeIterator<Item = (StackId, Option<StackId>, FrameId)> + DoubleEndedIterator {
        self.stacks.iter()
    }

    /// The stack below the innermost frame.
    pub fn parent_of(&self, stack: StackId) -> Option<StackId> {
        self.stacks.parent(stack)
    }

    /// The innermost frame of a stack.
    pub fn leaf_of(&self, stack: StackId) -> FrameId {
        self.stacks.frame(stack)
    }

    /// The frames of a stack, innermost first.
    pub fn leaf_first(&self, stack: Option<StackId>) -> LeafFirst<'_> {
        self.stacks.leaf_first(stack)
    }

    /// The frames of a stack, outermost first.
    pub fn root_first(&self, stack: Option<StackId>) -> Vec<FrameId> {
        let mut frames: Vec<FrameId> = self.leaf_first(stack).collect();
        frames.reverse();
        frames
    }
}

#[cfg(test)]
mod tests {
    use profiler_model::{ThreadKey, Tid};

    use super::*;

    #[test]
    fn only_changes_of_known_rows_count_as_revisions() {
        let mut dictionary = Dictionary::default();
        let bare = ProcessInfo { pid: Pid::new(1), ..ProcessInfo::default() };
        let process = dictionary.process(bare.clone());
        let key = ThreadKey { pid: Pid::new(1), tid: Tid::new(1) };
        let info = ThreadInfo { key, process, pthread_id: None, name: None, is_main: true };
        let thread = dictionary.thread(info.clone());
        dictionary.thread(info.clone());
        assert_eq!(dictionary.revision(), 0, "new rows are found by their number");
        dictionary.name_thread(thread, "main");
        dictionary.thread(ThreadInfo { name: Some("main".into()), ..info });
        assert_eq!(dictionary.revision(), 1, "the same name again is no change");
        dictionary.process(ProcessInfo { python_version: Some("3.13.0".into()), ..bare });
        assert_eq!(dictionary.revision(), 2);
    }

    #[test]
    fn successor_is_empty_and_of_another_epoch() {
        let mut dictionary = Dictionary::default();
        dictionary.frame(&Frame::default());
        let next = dictionary.successor();
        assert_eq!(next.frames().len(), 0);
        assert!(next.epoch() > dictionary.epoch());
    }
}
