//! Threads, each kept once. A service may start thousands in an hour, so they are found by hash.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use profiler_model::ThreadKey;
use rustc_hash::FxBuildHasher;

use crate::{ProcessId, ThreadId, ThreadInfo};

/// The threads of a dictionary in order of first appearance.
#[derive(Clone, Debug, Default)]
pub(crate) struct ThreadTable {
    threads: Vec<ThreadInfo>,
    index: HashTable<ThreadId>,
}

impl ThreadTable {
    /// The id of a thread, and whether that gave a known thread another name: a later name replaces an earlier one.
    pub(crate) fn intern(&mut self, thread: ThreadInfo) -> (ThreadId, bool) {
        let hash = FxBuildHasher.hash_one(identity(&thread));
        let threads = &mut self.threads;
        let is_same = |id: &ThreadId| identity(&threads[id.index()]) == identity(&thread);
        if let Some(&known) = self.index.find(hash, is_same) {
            let has_changed = thread.name.is_some_and(|name| self.name(known, name));
            return (known, has_changed);
        }
        let id = ThreadId::new(threads.len());
        threads.push(thread);
        self.index.insert_unique(hash, id, |id| FxBuildHasher.hash_one(identity(&threads[id.index()])));
        (id, false)
    }

    /// Names a thread; returns whether it had another name or none.
    pub(crate) fn name(&mut self, thread: ThreadId, name: Arc<str>) -> bool {
        let known = &mut self.threads[thread.index()].name;
        if known.as_ref() == Some(&name) {
            return false;
        }
        *known = Some(name);
        true
    }

    /// All threads in the order of their ids.
    pub(crate) fn threads(&self) -> &[ThreadInfo] {
        &self.threads
    }
}

/// What tells one thread from another. Not its name, which it may change.
fn identity(thread: &ThreadInfo) -> (ThreadKey, ProcessId, Option<u64>) {
    (thread.key, thread.process, thread.pthread_id)
}
