//! What has become of the processes of a session, and the CPU time that they have used, with what of that was reported already.

use std::collections::BTreeSet;
use std::sync::Arc;

use profiler_model::{Nanos, OtherPython, Timestamp};
use profiler_profile::{MarkKind, MetricValue, ProcessCounts};

use super::host::{ProcessHost, ProcessSampling};
use super::member::TrackedProcess;
use super::table::ProcessTable;
use crate::event_writer::EventWriter;

/// Counts processes and their CPU time.
#[derive(Debug, Default)]
pub struct Census {
    /// What became of the processes that are gone.
    counts: ProcessCounts,
    /// The CPU time of processes that are not sampled any more.
    cpu_of_gone: Nanos,
    reported_cpu: Nanos,
    reported_counts: Option<ProcessCounts>,
    reported_pythons: BTreeSet<OtherPython>,
}

impl Census {
    /// Counts a process that is gone.
    pub fn add_gone<H: ProcessHost>(&mut self, member: &TrackedProcess<H>) {
        member.count(&mut self.counts);
    }

    /// Adds the CPU time of a process that is not sampled any more.
    pub fn add_cpu_of_gone(&mut self, cpu: Nanos) {
        self.cpu_of_gone += cpu;
    }

    /// Whether a process was sampled that is gone.
    pub fn was_any_sampled(&self) -> bool {
        self.counts.sampled > 0
    }

    /// Reports the CPU time that processes have used while they were sampled, and the Pythons beside those that are sampled.
    pub fn report<H: ProcessHost>(
        &mut self,
        table: &mut ProcessTable<H>,
        events: &mut EventWriter<'_>,
        now: Timestamp,
    ) {
        let mut cpu = self.cpu_of_gone;
        for sampler in table.samplers() {
            cpu += sampler.cpu_used();
            let scope = sampler.scope();
            for other in sampler.look_for_other_pythons(now) {
                if self.reported_pythons.insert(other.clone()) {
                    events.mark(scope, now, MarkKind::OtherPython(Arc::new(other)));
                }
            }
        }
        let before = std::mem::replace(&mut self.reported_cpu, cpu);
        events.metric(now, MetricValue::TargetCpu(cpu.saturating_sub(before)));
    }

    /// Reports what has become of the processes, if that has changed.
    pub fn report_counts<H: ProcessHost>(
        &mut self,
        table: &ProcessTable<H>,
        events: &mut EventWriter<'_>,
        now: Timestamp,
    ) {
        let mut counts = self.counts;
        table.members().for_each(|member| member.count(&mut counts));
        if self.reported_counts.replace(counts) != Some(counts) {
            events.metric(now, MetricValue::Processes(counts));
        }
    }
}
