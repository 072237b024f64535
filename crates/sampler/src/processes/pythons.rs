//! The Pythons among the processes of this machine that are sampled.

use profiler_model::Pid;

use super::host::SamplersByPid;
use super::linux_host::LinuxHost;
use super::linux_sampler::LinuxSampler;
use super::process_set::ProcessSet;
use super::table::ProcessTable;
use crate::process_sampler::ProcessSampler;

impl ProcessSet<LinuxHost> {
    /// The samplers of Pythons.
    pub fn pythons(&mut self) -> impl Iterator<Item = &mut ProcessSampler> {
        self.samplers().filter_map(LinuxSampler::python)
    }

    /// The sampler of the only process, if that is a Python and descendants are not followed.
    pub fn only_python(&mut self) -> Option<&mut ProcessSampler> {
        if self.is_single() { self.pythons().next() } else { None }
    }
}

impl ProcessTable<LinuxHost> {
    /// The samplers of Pythons.
    pub fn pythons(&mut self) -> impl Iterator<Item = &mut ProcessSampler> {
        self.samplers().filter_map(LinuxSampler::python)
    }

    /// The sampler of a process, if that is a Python.
    pub fn python_of(&mut self, pid: Pid) -> Option<&mut ProcessSampler> {
        self.sampler_of(pid).and_then(LinuxSampler::python)
    }
}
