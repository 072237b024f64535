//! Threads, each kept once. A service may start thousands in an hour, so they are found by hash.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use profiler_model::ThreadKey;
use rustc_hash::FxBuildHasher;

use crate::{ProcessId, ThreadId, ThreadInfo};

/// The threads of a profile in order of first appearance.
#[derive(Clone, Debug, Default)]
pub(crate) struct ThreadTable {
    threads: Vec<ThreadInfo>,
    index: HashTable<ThreadId>,
}

impl ThreadTable {
    /// The handle of a thread. A name that is told later replaces an earlier one.
    pub(crate) fn intern(&mut self, thread: ThreadInfo) -> ThreadId {
        let hash = FxBuildHasher.hash_one(identity(&thread));
        let threads = &mut self.threads;
        let is_same = |id: &ThreadId| identity(&threads[id.index()]) == identity(&thread);
        if let Some(&known) = self.index.find(hash, is_same) {
            if thread.name.is_some() {
                threads[known.index()].name = thread.name;
            }
            return known;
        }
        let id = ThreadId::new(threads.len());
        threads.push(thread);
        self.index.insert_unique(hash, id, |id| FxBuildHasher.hash_one(identity(&threads[id.index()])));
        id
    }

    /// Names a thread.
    pub(crate) fn name(&mut self, thread: ThreadId, name: Arc<str>) {
        self.threads[thread.index()].name = Some(name);
    }

    /// All threads in the order of their handles.
    pub(crate) fn threads(&self) -> &[ThreadInfo] {
        &self.threads
    }
}

/// What tells one thread from another. Not its name, which it may change.
fn identity(thread: &ThreadInfo) -> (ThreadKey, ProcessId, Option<u64>) {
    (thread.key, thread.process, thread.pthread_id)
}
