//! What the reporter knows of each thread: its time, its id in the dictionary, and the stack with which it sleeps.

use profiler_account::ThreadAccount;
use profiler_profile::{Dictionary, Renaming, StackId, ThreadId, ThreadInfo};
use rustc_hash::FxHashMap;

use crate::roster::ThreadSlot;

/// A stack and how long it stays true.
#[derive(Clone, Copy, Debug)]
pub struct SleeperStack {
    /// The stack; `None` if no Python runs.
    pub stack: Option<StackId>,
    /// How often the thread had run when the stack was captured.
    pub timeslices: u64,
}

/// What is known of a thread.
#[derive(Debug)]
pub struct ReportedThread {
    info: ThreadInfo,
    /// Its id in the dictionary, once an event needed it.
    pub id: Option<ThreadId>,
    /// Its time.
    pub account: ThreadAccount,
    /// The stack that was resolved last: still true while the thread sleeps and has not run since.
    pub known: Option<SleeperStack>,
}

/// The threads of a process.
#[derive(Debug, Default)]
pub struct ReportedThreads {
    threads: FxHashMap<ThreadSlot, ReportedThread>,
    has_added: bool,
}

impl ReportedThreads {
    /// Adds a thread, unless it is known.
    pub fn meet(&mut self, slot: ThreadSlot, describe: impl FnOnce() -> (ThreadInfo, ThreadAccount)) {
        self.threads.entry(slot).or_insert_with(|| {
            let (info, account) = describe();
            ReportedThread { info, id: None, account, known: None }
        });
    }

    /// Forgets the threads that are not among those to keep.
    pub fn retain(&mut self, keep: impl Fn(ThreadSlot) -> bool) {
        self.threads.retain(|slot, _| keep(*slot));
    }

    /// What is known of a thread.
    pub fn get(&self, slot: ThreadSlot) -> Option<&ReportedThread> {
        self.threads.get(&slot)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, slot: ThreadSlot) -> Option<&mut ReportedThread> {
        self.threads.get_mut(&slot)
    }

    /// The stack that a thread has had since it had run so often, if it is known.
    pub fn stack_of_sleeper(&self, slot: ThreadSlot, asleep_after: Option<u64>) -> Option<SleeperStack> {
        let known = self.get(slot)?.known?;
        (Some(known.timeslices) == asleep_after).then_some(known)
    }

    /// Keeps the stack of a thread that sleeps; `None` of one that runs, and may fall asleep elsewhere.
    pub fn set_sleeper_stack(&mut self, slot: ThreadSlot, known: Option<SleeperStack>) {
        if let Some(thread) = self.get_mut(slot) {
            thread.known = known;
        }
    }

    /// The id of a thread; it is added to the dictionary if it is not there.
    pub fn id(&mut self, slot: ThreadSlot, dictionary: &mut Dictionary) -> Option<ThreadId> {
        let thread = self.threads.get_mut(&slot)?;
        if thread.id.is_none() {
            thread.id = Some(dictionary.thread(thread.info.clone()));
            self.has_added = true;
        }
        thread.id
    }

    /// Whether threads were added to the dictionary since this was last asked.
    pub fn take_has_added(&mut self) -> bool {
        std::mem::take(&mut self.has_added)
    }

    /// Gives everything its id in the next dictionary.
    pub fn rename(&mut self, renaming: &mut Renaming<'_>) {
        for thread in self.threads.values_mut() {
            thread.info.process = renaming.process(thread.info.process);
            thread.id = thread.id.map(|id| renaming.thread(id));
            if let Some(SleeperStack { stack: Some(stack), .. }) = &mut thread.known {
                *stack = renaming.stack(*stack);
            }
        }
    }
}
