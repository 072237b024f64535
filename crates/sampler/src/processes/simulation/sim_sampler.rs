//! The sampler of a process of the scripted machine.

use std::collections::BTreeMap;

use profiler_model::{Nanos, OtherPython, Pid, ThreadKey, ThreadState, Tid, Timestamp};
use profiler_profile::{ProcessId, Renaming, Sample, Scope, ThreadId, ThreadInfo};

use super::super::host::ProcessSampling;
use crate::event_writer::EventWriter;

/// A sampler that writes what each thread did: the first one is shown, others are skipped. Its last samples wait for their names.
#[derive(Debug)]
pub struct SimSampler {
    pub pid: Pid,
    process: ProcessId,
    thread_ids: BTreeMap<u64, ThreadId>,
    /// When its threads were looked at last, and how many they were, if that is still to be written.
    waiting: Option<(Timestamp, u64)>,
}

impl SimSampler {
    pub fn new(pid: Pid, process: ProcessId) -> Self {
        SimSampler { pid, process, thread_ids: BTreeMap::new(), waiting: None }
    }

    pub fn take(&mut self, events: &mut EventWriter<'_>, now: Timestamp, threads: u64) {
        self.resolve_pending(events);
        self.waiting = Some((now, threads));
    }
}

impl ProcessSampling for SimSampler {
    type Runtime = ();

    fn runtime(&self) -> Option<()> {
        Some(())
    }

    fn was_met(&self) -> bool {
        true
    }

    fn set_rate(&mut self, _: f64, _: f64) {}

    fn sample_part(&mut self, _: f64) {}

    fn count_from(&mut self, _: Timestamp) {}

    fn resolve_pending(&mut self, events: &mut EventWriter<'_>) {
        let Some((at, threads)) = self.waiting.take() else { return };
        for number in 0..threads {
            let key = ThreadKey { pid: self.pid, tid: Tid::new(self.pid.as_u32() * 100 + number as u32) };
            let process = self.process;
            let thread = *self.thread_ids.entry(number).or_insert_with(|| {
                events.dictionary.thread(ThreadInfo {
                    key,
                    process,
                    pthread_id: None,
                    name: None,
                    is_main: number == 0,
                })
            });
            if number > 0 {
                events.skip(Scope::Thread(thread), at, 1);
                continue;
            }
            let (cpu, wall) = (Nanos::from_nanos(1), Nanos::from_nanos(1));
            let state = ThreadState::Running;
            events.sample(Sample { at, thread, stack: None, state, holds_gil: false, cpu, wall }, 1);
        }
    }

    fn name_last_threads(&self, _: &mut EventWriter<'_>) {}

    fn rename(&mut self, renaming: &mut Renaming<'_>) {
        assert!(self.waiting.is_none(), "a cut comes before");
        self.process = renaming.process(self.process);
        self.thread_ids.values_mut().for_each(|thread| *thread = renaming.thread(*thread));
    }

    fn release_late(&mut self) {}

    fn scope(&self) -> Scope {
        Scope::Process(self.process)
    }

    fn cpu_used(&mut self) -> Nanos {
        Nanos::from_nanos(7)
    }

    fn look_for_other_pythons(&mut self, _: Timestamp) -> Vec<OtherPython> {
        Vec::new()
    }
}
