//! What the threads and the targets do: the rows of threads and the figures of the header.

use std::collections::VecDeque;

use profiler_model::Nanos;
use profiler_profile::{Ledger, ProcessId, Sample, ThreadId};

use super::meters::{Meter, Meters};
use super::threads::ThreadRow;

/// What each thread does, and the figures of the targets.
#[derive(Clone, Debug, Default)]
pub(super) struct Activity {
    /// By thread.
    threads: Vec<ThreadRow>,
    meters: Meters,
    /// Whether looks say what threads do. Until then, samples do.
    has_looks: bool,
}

impl Activity {
    /// Makes room for this many threads.
    pub fn resize(&mut self, threads: usize) {
        self.threads.resize_with(threads, ThreadRow::default);
    }

    /// From now on, looks say what threads do.
    pub fn begin_looks(&mut self) {
        self.has_looks = true;
    }

    /// Counts what a thread was doing at an instant.
    pub fn count_look(&mut self, process: ProcessId, look: &Sample) {
        self.meters.count(process, look);
        self.threads[look.thread.index()].count(look);
    }

    /// Notes where a thread was seen; counts what it was doing if there are no looks.
    pub fn see(&mut self, process: ProcessId, sample: &Sample) {
        if !self.has_looks {
            self.count_look(process, sample);
        }
        self.threads[sample.thread.index()].see(sample);
    }

    /// Notes the resident memory of the targets in bytes, if it is known.
    pub fn note_memory(&mut self, memory: Option<u64>) {
        self.meters.note_memory(memory);
    }

    pub fn thread(&self, thread: ThreadId) -> &ThreadRow {
        &self.threads[thread.index()]
    }

    /// The figures of the last intervals, the oldest first.
    pub fn history(&self) -> &VecDeque<Meter> {
        self.meters.history()
    }

    /// The interval is over: it lasted this long, and this is the ledger of the whole run.
    pub fn roll(&mut self, lasted: Nanos, ledger: &Ledger) {
        self.meters.roll(lasted, ledger);
        self.threads.iter_mut().for_each(ThreadRow::roll);
    }

    /// Sampling ended this long after the last interval: both are one.
    pub fn take_rest(&mut self, lasted: Nanos, ledger: &Ledger) {
        self.meters.take_rest(lasted, ledger);
        self.threads.iter_mut().for_each(ThreadRow::take_rest);
    }

    /// What the targets did up to this ledger belongs to no interval.
    pub fn skip_to(&mut self, ledger: &Ledger) {
        self.meters.skip_to(ledger);
    }

    /// Forgets what the threads did.
    pub fn clear_threads(&mut self) {
        self.threads.fill(ThreadRow::default());
    }
}
