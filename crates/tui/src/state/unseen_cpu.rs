//! CPU time that a thread used between two samples in which it waited.

use profiler_model::Nanos;
use profiler_profile::Sample;

/// By thread: the CPU time of samples in which it waited. It was used by code that no sample shows, so it counts with
/// the next sample in which the thread runs, as in a recording.
#[derive(Clone, Debug, Default)]
pub(super) struct UnseenCpu {
    threads: Vec<Nanos>,
}

impl UnseenCpu {
    /// Makes room for this many threads.
    pub fn resize(&mut self, threads: usize) {
        self.threads.resize(threads, Nanos::ZERO);
    }

    /// The sample with the CPU time that counts with it.
    pub fn settle(&mut self, sample: Sample) -> Sample {
        let unseen = &mut self.threads[sample.thread.index()];
        if sample.state.is_running() {
            return Sample { cpu: sample.cpu + std::mem::take(unseen), ..sample };
        }
        *unseen += sample.cpu;
        Sample { cpu: Nanos::ZERO, ..sample }
    }
}
