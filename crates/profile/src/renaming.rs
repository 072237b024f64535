//! Moving what is still in use from a dictionary to its successor.

use rustc_hash::FxHashMap;

use crate::{Dictionary, ProcessId, StackId, ThreadId, ThreadInfo};

/// Gives rows of a dictionary that has ended their ids in its successor. Only what is asked for moves.
#[derive(Debug)]
pub struct Renaming<'a> {
    old: &'a Dictionary,
    new: &'a mut Dictionary,
    stacks: FxHashMap<StackId, StackId>,
}

impl<'a> Renaming<'a> {
    /// From `old` to `new`.
    pub fn new(old: &'a Dictionary, new: &'a mut Dictionary) -> Self {
        Renaming { old, new, stacks: FxHashMap::default() }
    }

    /// The process in the new dictionary, and with it those that started it.
    pub fn process(&mut self, process: ProcessId) -> ProcessId {
        let mut info = self.old.process_of(process).clone();
        info.parent = info.parent.map(|parent| self.process(parent));
        self.new.process(info)
    }

    /// The thread in the new dictionary.
    pub fn thread(&mut self, thread: ThreadId) -> ThreadId {
        let info = self.old.thread_of(thread);
        let process = self.process(info.process);
        self.new.thread(ThreadInfo { process, ..info.clone() })
    }

    /// The stack in the new dictionary.
    pub fn stack(&mut self, stack: StackId) -> StackId {
        let (mut above, mut at, mut renamed) = (Vec::new(), Some(stack), None);
        while let Some(stack) = at {
            renamed = self.stacks.get(&stack).copied();
            if renamed.is_some() {
                break;
            }
            above.push(stack);
            at = self.old.parent_of(stack);
        }
        for stack in above.into_iter().rev() {
            let frame = self.new.frame(self.old.frame_of(self.old.leaf_of(stack)));
            let id = self.new.push(renamed, frame);
            self.stacks.insert(stack, id);
            renamed = Some(id);
        }
        renamed.unwrap_or(stack)
    }
}

#[cfg(test)]
mod tests {
    use profiler_model::{Frame, Pid, ThreadKey};

    use super::*;
    use crate::ProcessInfo;

    fn named(function: &str) -> Frame {
        Frame { function: function.into(), ..Frame::default() }
    }

    #[test]
    fn only_what_is_asked_for_moves() {
        let mut old = Dictionary::default();
        let parent = old.process(ProcessInfo { pid: Pid::new(1), ..ProcessInfo::default() });
        old.process(ProcessInfo { pid: Pid::new(2), ..ProcessInfo::default() });
        let child = ProcessInfo { pid: Pid::new(3), parent: Some(parent), ..ProcessInfo::default() };
        let process = old.process(child);
        let name = Some("worker".into());
        let key = ThreadKey::default();
        let thread = old.thread(ThreadInfo { key, process, pthread_id: None, name, is_main: false });
        let [main, inner, other] = ["main", "inner", "other"].map(|function| old.frame(&named(function)));
        let [_unused, stack] = [[main, other], [main, inner]].map(|frames| old.stack(frames).unwrap());

        let mut new = old.successor();
        let mut renaming = Renaming::new(&old, &mut new);
        let (thread, stack, again) = (renaming.thread(thread), renaming.stack(stack), renaming.stack(stack));
        assert_eq!(stack, again);
        let pids: Vec<u32> = new.processes().map(|(_, process)| process.pid.as_u32()).collect();
        assert_eq!(pids, [1, 3]);
        assert_eq!(new.thread_of(thread).name.as_deref(), Some("worker"));
        let functions: Vec<&str> =
            new.root_first(Some(stack)).into_iter().map(|frame| &*new.frame_of(frame).function).collect();
        assert_eq!(functions, ["main", "inner"]);
        assert_eq!(new.frames().len(), 2);
    }
}
