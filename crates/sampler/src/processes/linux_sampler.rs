//! What samples a process of this machine: a Python's sampler, or that of a process without Python.

use profiler_model::{Nanos, OtherPython, Pid, Timestamp};
use profiler_profile::{Renaming, Scope};
use profiler_target::{ForkedRuntime, Target, TargetProcess};

use super::host::ProcessSampling;
use crate::event_writer::EventWriter;
use crate::native::NativeProcess;
use crate::process_sampler::ProcessSampler;

/// What was found in a process.
#[derive(Debug)]
pub enum FoundProcess {
    /// A Python.
    Python(Target),
    /// None; the process is sampled all the same.
    Native(TargetProcess),
}

impl FoundProcess {
    /// The process.
    pub fn pid(&self) -> Pid {
        match self {
            FoundProcess::Python(target) => target.pid(),
            FoundProcess::Native(process) => process.pid(),
        }
    }
}

/// Samples a process.
#[derive(Debug)]
pub enum LinuxSampler {
    /// The Pythons of the process.
    Python(Box<ProcessSampler>),
    /// A process without Python.
    Native(Box<NativeProcess>),
}

impl LinuxSampler {
    /// The sampler of its Python, if it has one.
    pub fn python(&mut self) -> Option<&mut ProcessSampler> {
        match self {
            LinuxSampler::Python(sampler) => Some(sampler),
            LinuxSampler::Native(_) => None,
        }
    }

    /// The sampler of a process without Python.
    pub fn native(&self) -> Option<&NativeProcess> {
        match self {
            LinuxSampler::Python(_) => None,
            LinuxSampler::Native(native) => Some(native),
        }
    }
}

impl ProcessSampling for LinuxSampler {
    type Runtime = ForkedRuntime;

    fn runtime(&self) -> Option<ForkedRuntime> {
        match self {
            LinuxSampler::Python(sampler) => Some(sampler.target().forked_runtime()),
            LinuxSampler::Native(_) => None,
        }
    }

    fn was_met(&self) -> bool {
        match self {
            LinuxSampler::Python(sampler) => sampler.has_threads() && sampler.has_room(),
            LinuxSampler::Native(native) => native.has_threads(),
        }
    }

    fn set_rate(&mut self, rate_hz: f64, part: f64) {
        match self {
            LinuxSampler::Python(sampler) => sampler.set_rate(rate_hz),
            LinuxSampler::Native(native) => native.set_rate(rate_hz),
        }
        self.sample_part(part);
    }

    fn sample_part(&mut self, part: f64) {
        match self {
            LinuxSampler::Python(sampler) => sampler.sample_part(part),
            LinuxSampler::Native(native) => native.sample_part(part),
        }
    }

    fn count_from(&mut self, now: Timestamp) {
        match self {
            LinuxSampler::Python(sampler) => sampler.count_from(now),
            LinuxSampler::Native(native) => native.count_from(now),
        }
    }

    fn resolve_pending(&mut self, events: &mut EventWriter<'_>) {
        if let LinuxSampler::Python(sampler) = self {
            sampler.resolve_pending(events);
        }
    }

    fn name_last_threads(&self, events: &mut EventWriter<'_>) {
        if let LinuxSampler::Python(sampler) = self {
            sampler.name_last_threads(events);
        }
    }

    fn rename(&mut self, renaming: &mut Renaming<'_>) {
        match self {
            LinuxSampler::Python(sampler) => sampler.rename(renaming),
            LinuxSampler::Native(native) => native.rename(renaming),
        }
    }

    fn release_late(&mut self) {
        match self {
            LinuxSampler::Python(sampler) => sampler.release_late(),
            LinuxSampler::Native(native) => native.release_late(),
        }
    }

    fn scope(&self) -> Scope {
        match self {
            LinuxSampler::Python(sampler) => sampler.scope(),
            LinuxSampler::Native(native) => native.scope(),
        }
    }

    fn cpu_used(&mut self) -> Nanos {
        match self {
            LinuxSampler::Python(sampler) => {
                sampler.look_at_clock();
                ProcessSampler::cpu_used(sampler)
            }
            LinuxSampler::Native(native) => native.cpu_used(),
        }
    }

    fn look_for_other_pythons(&mut self, now: Timestamp) -> Vec<OtherPython> {
        match self {
            LinuxSampler::Python(sampler) => sampler.look_for_other_pythons(now).to_vec(),
            LinuxSampler::Native(_) => Vec::new(),
        }
    }
}
