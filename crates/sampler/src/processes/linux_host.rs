//! The system as it is: processes are watched by the kernel's events and `/proc`, Pythons are found in their memory, and samples
//! are taken by [`LinuxSampler`]s or by the in-kernel program.

use profiler_model::{LossReason, Nanos, Pid, Timestamp};
use profiler_os::{Process, Tracer, clock};
use profiler_profile::{CapturePolicy, ProcessId, ProcessInfo};
use profiler_python::NotPython;
use profiler_target::{AttachError, Change, ForkedRuntime, Search, Target, TargetProcess, Tree};
use rustc_hash::FxHashSet;

use super::host::{ProcessHost, ProcessSampling, SamplersByPid};
use super::linux_sampler::{FoundProcess, LinuxSampler};
use super::records::take_records;
use crate::SamplerOptions;
use crate::bpf::BpfProgram;
use crate::event_writer::EventWriter;
use crate::native::{NativeProcess, ProcessCode};
use crate::process_sampler::{ProcessSampler, Sampled};

/// This machine.
#[derive(Debug)]
pub struct LinuxHost {
    /// The tree, if children are followed.
    pub tree: Option<Tree>,
    /// The in-kernel program, if that takes the samples.
    pub program: Option<BpfProgram>,
    /// After this instant no process is looked at, and samples that were taken before are lost.
    pub latest_look: Timestamp,
    /// Whether it matters which CPU a thread has.
    pub watches_switches: bool,
    options: SamplerOptions,
    /// Processes that live on, but are not sampled any more.
    pub left: FxHashSet<Pid>,
    /// The native code of processes that were given up, to name what was captured.
    pub native_code: Vec<ProcessCode>,
    /// Threads that were asked to stop and have not yet, of processes that were given up.
    leaving: Vec<Tracer>,
}

impl LinuxHost {
    /// This machine.
    pub fn new(options: SamplerOptions) -> Self {
        LinuxHost {
            tree: None,
            program: None,
            latest_look: Timestamp::MAX,
            watches_switches: false,
            options,
            left: FxHashSet::default(),
            native_code: Vec::new(),
            leaving: Vec::new(),
        }
    }

    /// Changes the rate at which processes are sampled that come from now on, in samples per second.
    pub fn set_rate(&mut self, rate_hz: f64) {
        self.options.rate_hz = rate_hz;
    }

    /// Lets go of the threads of a process that is given up, as soon as they stop.
    fn let_go(&mut self, mut tracer: Tracer) {
        tracer.release_late();
        if tracer.has_late() {
            self.leaving.push(tracer);
        }
    }

    /// Whether threads off the CPU are wanted that the in-kernel program does not report.
    pub fn wants_looks_off_cpu(&self) -> bool {
        let reports_none = self.program.as_ref().is_some_and(|program| program.off_cpu.is_none());
        reports_none && self.options.policy != CapturePolicy::Running
    }
}

impl ProcessHost for LinuxHost {
    type Sampler = LinuxSampler;
    type Target = FoundProcess;
    type Search = Search;

    fn now(&self) -> Timestamp {
        clock::now()
    }

    fn latest_look(&self) -> Timestamp {
        self.latest_look
    }

    fn is_tree(&self) -> bool {
        self.tree.is_some()
    }

    fn follow_descendants(&mut self, root: Pid) {
        self.tree.get_or_insert_with(Tree::watch).add_root(root);
    }

    fn changes(&mut self, now: Timestamp) -> Vec<Change> {
        self.tree.as_mut().map(|tree| tree.changes(now)).unwrap_or_default()
    }

    fn reports_changes(&self) -> bool {
        self.tree.as_ref().is_some_and(Tree::is_reported)
    }

    fn forget(&mut self, pid: Pid) {
        if let Some(tree) = &mut self.tree {
            tree.forget(pid);
        }
        if let Some(program) = &mut self.program {
            program.forget_process(pid);
        }
    }

    fn leave(&mut self, pid: Pid) {
        if let Some(tree) = &mut self.tree {
            tree.leave(pid);
        }
        self.left.insert(pid);
        if let Some(program) = &mut self.program {
            program.forget_process(pid);
        }
    }

    fn watch_without_python(&mut self, pid: Pid) {
        if let Some(program) = &mut self.program {
            program.register_without_python(pid);
        }
    }

    fn cpu_time(&self, pid: Pid) -> Option<Nanos> {
        Process::new(pid).cpu_time()
    }

    fn describe(&self, pid: Pid) -> ProcessInfo {
        let process = Process::new(pid);
        ProcessInfo {
            pid,
            start_time: process.stat().ok().map(|stat| stat.start_time),
            parent: None,
            command_line: process.command_line().unwrap_or_default(),
            python_version: None,
            executable: process.executable().map(|path| path.display().to_string()).unwrap_or_default(),
        }
    }

    fn describe_target(&self, found: &FoundProcess) -> ProcessInfo {
        let (process, python_version) = match found {
            FoundProcess::Python(target) => (target.target_process(), Some(target.version_text())),
            FoundProcess::Native(process) => (process, None),
        };
        ProcessInfo {
            pid: process.pid(),
            start_time: Some(process.start_time()),
            parent: None,
            command_line: process.command_line().to_owned(),
            python_version,
            executable: process.executable().to_owned(),
        }
    }

    fn search(&self, pid: Pid) -> Search {
        Search::new(pid)
    }

    fn attach(&mut self, search: &mut Search) -> Result<FoundProcess, AttachError> {
        match search.attach() {
            Err(AttachError::NotPython { what: NotPython::NoModule, pid, .. }) if self.options.native => {
                TargetProcess::open(pid).map(FoundProcess::Native)
            }
            found => found.map(FoundProcess::Python),
        }
    }

    fn inherit(&mut self, runtime: &ForkedRuntime, pid: Pid) -> Option<FoundProcess> {
        Target::from_parent(runtime, pid).map(FoundProcess::Python)
    }

    fn tick_period(&self) -> Option<Nanos> {
        self.program.as_ref().map(BpfProgram::period)
    }

    fn begin(
        &mut self,
        found: FoundProcess,
        process: ProcessId,
        born: Option<Timestamp>,
        events: &mut EventWriter<'_>,
    ) -> LinuxSampler {
        self.left.remove(&found.pid());
        let target = match found {
            FoundProcess::Python(target) => target,
            FoundProcess::Native(target) => {
                let native = NativeProcess::new(target, self.options, process, born);
                return LinuxSampler::Native(Box::new(native));
            }
        };
        let mut sampler = ProcessSampler::new(target, self.options, process, born);
        if self.watches_switches {
            sampler.watch_switches();
        }
        if let Some(program) = &mut self.program {
            sampler.enter_kernel(program, events, clock::now());
        }
        LinuxSampler::Python(Box::new(sampler))
    }

    fn sample(
        &mut self,
        sampler: &mut LinuxSampler,
        events: &mut EventWriter<'_>,
        now: Timestamp,
        late: Nanos,
    ) -> Sampled {
        match (sampler, &mut self.program) {
            (LinuxSampler::Python(sampler), Some(program)) => sampler.look_in_kernel(program, events, now),
            (LinuxSampler::Python(sampler), None) => sampler.sample(events, now, late),
            (LinuxSampler::Native(native), _) => native.sample(events, now),
        }
    }

    fn pass_over(&mut self, sampler: &mut LinuxSampler, events: &mut EventWriter<'_>, due: Timestamp) {
        match (sampler, &self.program) {
            (LinuxSampler::Python(sampler), Some(_)) => sampler.count_unregistered(events),
            (sampler, _) => events.lose(LossReason::Late, sampler.scope(), due, 1),
        }
    }

    /// The last off-CPU intervals of a process may have ended only after the ring was read.
    fn collect_rest(
        &mut self,
        pid: Pid,
        samplers: &mut dyn SamplersByPid<LinuxSampler>,
        events: &mut EventWriter<'_>,
    ) {
        let Some(program) = self.program.as_mut().filter(|program| program.off_cpu.is_some()) else { return };
        take_records(program, samplers, (self.latest_look, &self.left), events);
        if let Some(sampler) = samplers.sampler_of(pid).and_then(LinuxSampler::python) {
            sampler.flush_all_off_cpu(program, events, None);
        }
    }

    fn give_up(&mut self, sampler: LinuxSampler, events: &mut EventWriter<'_>, end: Timestamp) -> Nanos {
        let mut sampler = match sampler {
            LinuxSampler::Python(sampler) => *sampler,
            LinuxSampler::Native(mut native) => {
                native.count_unseen(events, end);
                self.native_code.push(native.code());
                let cpu = native.cpu_used();
                self.let_go(native.into_tracer());
                return cpu;
            }
        };
        sampler.resolve_pending(events);
        sampler.count_unseen(events, end);
        if let Some(program) = &mut self.program {
            sampler.leave_kernel(program);
        }
        sampler.look_at_clock();
        let cpu = sampler.cpu_used();
        sampler.into_probes().for_each(|probe| self.let_go(probe.into_tracer()));
        cpu
    }

    fn release_late(&mut self) {
        self.leaving.iter_mut().for_each(Tracer::release_late);
        self.leaving.retain(Tracer::has_late);
    }

    fn stop(&mut self) {
        self.program = None;
    }

    fn release_all(&mut self) {
        self.leaving.iter_mut().for_each(Tracer::release_all);
    }
}
