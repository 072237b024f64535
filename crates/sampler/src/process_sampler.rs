//! Sampling one process: at each instant, every thread that is wanted, or what the in-kernel program sends of it. When that
//! is, and which processes there are, is for `session` and `process_set` to say.

use profiler_account::Schedule;
use profiler_bpf::{BpfError, NamesRecord, NativeTicks, OffCpuRecord, StackRecord};
use profiler_model::{Nanos, OtherPython, Tid, Timestamp};
use profiler_profile::{ProcessId, Renaming, Scope};
use profiler_target::{OtherRuntime, OtherRuntimes, Target};

use crate::bpf::{BpfProgram, InKernel, report_sleeper};
use crate::event_writer::EventWriter;
use crate::on_schedule::{self, OnSchedule, report_at_end};
use crate::pause::Runners;
use crate::probe::Probe;
use crate::runtimes::Runtimes;
pub use crate::sampled_process::Sampled;
use crate::sampled_process::SampledProcess;
use crate::{SamplerKind, SamplerOptions};

/// A process that is being sampled.
#[derive(Debug)]
pub struct ProcessSampler {
    runtimes: Runtimes,
    way: Way,
    kind: SamplerKind,
    /// The instants that are sampled in a second, if none is left out.
    full_rate_hz: f64,
    clock: ProcessClock,
    other_runtimes: OtherRuntimes,
    /// The Pythons that run in it and are not sampled.
    unsampled: Vec<OtherPython>,
    /// What looked at Pythons that are gone, as long as it has threads to let go of.
    retired: Vec<Probe>,
}

/// How it is sampled.
#[derive(Debug)]
enum Way {
    /// For each runtime what sampling on a schedule keeps of it.
    OnSchedule(Vec<OnSchedule>),
    InKernel(Box<InKernel>),
}

/// The CPU time of a process while it is sampled.
#[derive(Debug)]
struct ProcessClock {
    /// When sampling began.
    before: Nanos,
    /// When it was read last.
    last: Nanos,
}

impl ProcessSampler {
    /// For `target`, which is `process` in the dictionary. `born` is when, if that was while it was watched.
    pub fn new(target: Target, options: SamplerOptions, process: ProcessId, born: Option<Timestamp>) -> Self {
        let before = match born {
            Some(_) => Nanos::ZERO,
            None => target.process().cpu_time().unwrap_or_default(),
        };
        let way = match options.kind {
            SamplerKind::Bpf => Way::InKernel(Box::default()),
            kind @ (SamplerKind::Pause | SamplerKind::Peek) => {
                Way::OnSchedule(vec![OnSchedule::new(kind, born)])
            }
        };
        let probe = bounded_probe(target, options.kind);
        let first = SampledProcess::new(probe, process, options.policy, options.rate_hz);
        ProcessSampler {
            runtimes: Runtimes::only(first),
            way,
            kind: options.kind,
            full_rate_hz: options.rate_hz,
            clock: ProcessClock { before, last: before },
            other_runtimes: OtherRuntimes::default(),
            unsampled: Vec::new(),
            retired: Vec::new(),
        }
    }

    /// Has so many of the instants be sampled from now on, as a part of 1: a sample stands for more time.
    pub fn sample_part(&mut self, part: f64) {
        self.runtimes.all_mut().iter_mut().for_each(|process| process.set_rate(self.full_rate_hz * part));
    }

    /// Changes the sample rate, in samples per second.
    pub fn set_rate(&mut self, rate_hz: f64) {
        self.full_rate_hz = rate_hz;
    }

    /// The process, with its first Python.
    pub fn target(&self) -> &Target {
        self.runtimes.first().target()
    }

    /// The process, as what events are about.
    pub fn scope(&self) -> Scope {
        self.runtimes.first().reporter.scope()
    }

    /// The same of a kernel thread, if it is in the dictionary already.
    pub fn scope_of_thread(&self, tid: Tid) -> Scope {
        InKernel::scope_of(&self.runtimes, tid)
    }

    /// Whether any of its threads was ever found.
    pub fn has_threads(&self) -> bool {
        !self.runtimes.are_without_threads()
    }

    /// Has the next samples stand for nothing that was before `now`.
    pub fn count_from(&mut self, now: Timestamp) {
        for SampledProcess { probe, reporter, .. } in self.runtimes.all_mut() {
            for thread in probe.thread_table.threads() {
                let schedule = thread.files.schedule().ok();
                let account = reporter.account(thread.slot);
                account.into_iter().for_each(|account| account.restart(now, schedule.as_ref()));
            }
        }
    }

    /// Gives what is kept its ids in the next dictionary. Nothing that was captured waits for its names.
    pub fn rename(&mut self, renaming: &mut Renaming<'_>) {
        self.runtimes.all_mut().iter_mut().for_each(|process| process.reporter.rename(renaming));
        if let Way::InKernel(in_kernel) = &mut self.way {
            in_kernel.rename(renaming);
        }
    }

    /// Reports what was captured and waits for its names.
    pub fn resolve_pending(&mut self, events: &mut EventWriter<'_>) {
        self.runtimes.all_mut().iter_mut().for_each(|process| process.resolve_deferred(events));
    }

    /// Whether what waits for its names is to get them before the instant `next`.
    pub fn is_resolving_due(&self, next: Timestamp) -> bool {
        self.runtimes.all().iter().any(|process| process.reporter.is_resolving_due(next))
    }

    /// Names the threads that were first met at the very end.
    pub fn name_last_threads(&self, events: &mut EventWriter<'_>) {
        self.runtimes.all().iter().for_each(|process| process.name_last_threads(events));
    }

    /// Lets go of threads that stopped only after they had been given up.
    pub fn release_late(&mut self) {
        self.runtimes.all_mut().iter_mut().for_each(|process| process.probe.release_late());
        self.retired.iter_mut().for_each(Probe::release_late);
        self.retired.retain(Probe::has_late);
    }

    /// Gives up sampling; what is still to be let go of is in the probes.
    pub fn into_probes(self) -> impl Iterator<Item = Probe> {
        self.runtimes.into_probes().chain(self.retired)
    }

    /// Notes the process's clock while there is one.
    pub fn look_at_clock(&mut self) {
        let now = self.target().process().cpu_time().unwrap_or(self.clock.last);
        self.clock.last = self.clock.last.max(now);
    }

    /// The CPU time that it used while it was sampled, as last seen.
    pub fn cpu_used(&self) -> Nanos {
        self.clock.last.saturating_sub(self.clock.before)
    }

    /// Looks for other Pythons of the process, if it is time to, and samples those from now on for which there is room.
    /// Returns those that are not sampled.
    pub fn look_for_other_pythons(&mut self, now: Timestamp) -> &[OtherPython] {
        let found = self.other_runtimes.look(self.runtimes.first().target(), now);
        for OtherRuntime { target, python } in found {
            if self.runtimes.have(target.runtime().main_address) {
                continue;
            }
            if self.runtimes.have_room() {
                self.add_runtime(target);
            } else if !self.unsampled.contains(&python) {
                self.unsampled.push(python);
            }
        }
        &self.unsampled
    }

    fn add_runtime(&mut self, target: Target) {
        let probe = bounded_probe(target, self.kind);
        let other = self.runtimes.first().with_other_python(probe);
        self.runtimes.add(other);
        if let Way::OnSchedule(ways) = &mut self.way {
            ways.push(ways[0].of_other_python());
        }
    }

    /// What has become of the process, by what has become of each of its runtimes. One beside the first that is gone is not
    /// sampled any more.
    fn drop_ended_runtimes(&mut self, sampled: &[Sampled]) -> Sampled {
        let mut outcome = sampled.first().copied().unwrap_or(Sampled::Going);
        for (number, other) in sampled.iter().enumerate().skip(1).rev() {
            match other {
                Sampled::Going => {}
                Sampled::WithoutRuntime => {
                    self.retired.push(self.runtimes.remove(number).probe);
                    if let Way::OnSchedule(ways) = &mut self.way {
                        ways.remove(number);
                    }
                }
                Sampled::Ended | Sampled::Silent if outcome == Sampled::Going => outcome = *other,
                Sampled::Ended | Sampled::Silent => {}
            }
        }
        outcome
    }

    /// Reports what is known of the instants since each thread was looked at last: at the end of sampling, at `now`.
    pub fn count_unseen(&mut self, events: &mut EventWriter<'_>, now: Timestamp) {
        for process in self.runtimes.all_mut() {
            match &self.way {
                Way::OnSchedule(_) => on_schedule::report_unseen(process, events, now, &report_at_end),
                Way::InKernel(_) => on_schedule::report_unseen(process, events, now, &report_sleeper),
            }
        }
    }

    /// Takes one sample of every thread that is wanted; the sampler began `late` to do so.
    pub fn sample(&mut self, events: &mut EventWriter<'_>, now: Timestamp, late: Nanos) -> Sampled {
        let Way::OnSchedule(ways) = &mut self.way else { return Sampled::Going };
        let runtimes = self.runtimes.all_mut();
        let looked = ways.iter_mut().zip(runtimes).map(|(way, process)| way.look(process, events, now));
        let looked: Vec<_> = looked.collect();
        self.runtimes.attribute_threads();
        let runtimes = ways.iter_mut().zip(self.runtimes.all_mut()).zip(looked);
        let sampled =
            runtimes.map(|((way, process), looked)| way.sample(process, events, (now, late), looked));
        let sampled: Vec<_> = sampled.collect();
        self.runtimes.share_cpu_times(events);
        self.drop_ended_runtimes(&sampled)
    }

    /// Has what was captured last count again, see [`on_schedule::sample_again`]. Of two runtimes the stacks are never all
    /// known to stand still.
    pub fn sample_again(&mut self, events: &mut EventWriter<'_>, schedule: &mut Schedule) {
        if let [only] = self.runtimes.all_mut() {
            on_schedule::sample_again(only, events, schedule);
        }
    }

    /// Which of its threads run, as far as that says where to sample from.
    pub fn runners(&self) -> Runners {
        on_schedule::runners(self.runtimes.all())
    }

    /// From now on, finds out on which CPU the only running thread is.
    pub fn watch_switches(&mut self) {
        if let Way::OnSchedule(ways) = &mut self.way {
            ways.iter_mut().for_each(OnSchedule::watch_switches);
        }
    }

    /// Has it not be known any more.
    pub fn unwatch_switches(&mut self) {
        if let Way::OnSchedule(ways) = &mut self.way {
            let runtimes = ways.iter_mut().zip(self.runtimes.all_mut());
            runtimes.for_each(|(way, process)| way.unwatch_switches(process));
        }
    }
}

fn bounded_probe(target: Target, kind: SamplerKind) -> Probe {
    let mut probe = Probe::new(target, kind);
    probe.bound_stops();
    probe
}

/// What the in-kernel program needs and sends. Of a process that it does not sample there is nothing.
impl ProcessSampler {
    fn in_kernel(&mut self) -> Option<(&mut InKernel, &mut Runtimes)> {
        match &mut self.way {
            Way::InKernel(in_kernel) => Some((in_kernel, &mut self.runtimes)),
            Way::OnSchedule(_) => None,
        }
    }

    /// Has the program sample the process from now on.
    pub fn enter_kernel(&mut self, program: &mut BpfProgram, events: &mut EventWriter<'_>, now: Timestamp) {
        if let Some((in_kernel, runtimes)) = self.in_kernel() {
            in_kernel.enter(runtimes, program, events, now);
        }
    }

    /// What the process leaves in the program.
    pub fn leave_kernel(&mut self, program: &mut BpfProgram) {
        if let Some((in_kernel, runtimes)) = self.in_kernel() {
            in_kernel.leave(program, runtimes);
        }
    }

    /// Has the program send names with every sample.
    ///
    /// # Errors
    /// When it refuses.
    pub fn register_again(&mut self, program: &mut BpfProgram) -> Result<(), BpfError> {
        self.in_kernel().map_or(Ok(()), |(in_kernel, runtimes)| in_kernel.register_again(runtimes, program))
    }

    /// Whether samples of it can be taken: the program has room for it.
    pub fn has_room(&self) -> bool {
        match &self.way {
            Way::InKernel(in_kernel) => in_kernel.has_room(),
            Way::OnSchedule(_) => true,
        }
    }

    /// Looks whether there are other threads, if it is time to or some sample said so.
    pub fn look_in_kernel(
        &mut self,
        program: &mut BpfProgram,
        events: &mut EventWriter<'_>,
        now: Timestamp,
    ) -> Sampled {
        let Some((in_kernel, runtimes)) = self.in_kernel() else { return Sampled::Going };
        let looked = in_kernel.look(runtimes, program, events, now);
        self.drop_ended_runtimes(&looked)
    }

    /// Counts samples of threads that the program did not know.
    pub fn count_unregistered(&mut self, events: &mut EventWriter<'_>) {
        if let Some((in_kernel, runtimes)) = self.in_kernel() {
            in_kernel.count_unregistered(runtimes, events);
        }
    }

    /// Counts ticks that met a thread which is registered without a thread state.
    pub fn take_native(&mut self, native: &NativeTicks) {
        if let Some((in_kernel, _)) = self.in_kernel() {
            in_kernel.take_native(native);
        }
    }

    /// Reports what its threads off the CPU do, as far as they are wanted, at the instant that was due at `due`.
    pub fn look_off_cpu(&mut self, events: &mut EventWriter<'_>, due: Timestamp) {
        if let Some((in_kernel, runtimes)) = self.in_kernel() {
            in_kernel.scan(runtimes, events, due);
        }
    }

    /// Keeps the names of a code object; returns whether the program has to send names with every sample.
    pub fn take_names(&mut self, record: &NamesRecord<'_>) -> bool {
        self.in_kernel().is_some_and(|(in_kernel, runtimes)| in_kernel.take_names(runtimes, record))
    }

    /// Takes note of what a stack proves, be it shown or not.
    pub fn note_proofs(&mut self, record: &StackRecord<'_>) {
        if let Some((in_kernel, runtimes)) = self.in_kernel() {
            in_kernel.note_proofs(runtimes, record);
        }
    }

    /// Reports what the program sent, which by its CPU's clock stands for so much time.
    pub fn take_stack(&mut self, events: &mut EventWriter<'_>, record: &StackRecord<'_>, by_tick: Nanos) {
        if let Some((in_kernel, runtimes)) = self.in_kernel() {
            in_kernel.take_stack(runtimes, events, record, by_tick);
        }
    }

    /// Takes note of a thread that the scheduler's programs do not watch.
    pub fn meet_unwatched(&mut self) {
        if let Some((in_kernel, _)) = self.in_kernel() {
            in_kernel.meet_unwatched();
        }
    }

    /// Keeps the stack of an off-CPU interval that is still to come.
    pub fn take_deep_stack(&mut self, events: &mut EventWriter<'_>, record: &StackRecord<'_>) {
        if let Some((in_kernel, runtimes)) = self.in_kernel() {
            in_kernel.take_deep_stack(runtimes, events, record);
        }
    }

    /// Reports an off-CPU interval that is over.
    pub fn take_interval(&mut self, events: &mut EventWriter<'_>, record: &OffCpuRecord<'_>) {
        if let Some((in_kernel, runtimes)) = self.in_kernel() {
            in_kernel.take_interval(runtimes, events, record);
        }
    }

    /// Reports off-CPU intervals that were not reported by themselves, up to now or to the `end` of the watch.
    pub fn flush_all_off_cpu(
        &mut self,
        program: &mut BpfProgram,
        events: &mut EventWriter<'_>,
        end: Option<Timestamp>,
    ) {
        if let Some((in_kernel, runtimes)) = self.in_kernel() {
            in_kernel.flush_off_cpu(runtimes, program, events, end);
        }
    }

    /// Since when the scheduler's programs watch it, if they do.
    pub fn watched_since(&self) -> Option<Timestamp> {
        match &self.way {
            Way::InKernel(in_kernel) => in_kernel.watched_since(),
            Way::OnSchedule(_) => None,
        }
    }

    /// Notes what the watch cannot say any more once it has ended.
    pub fn prepare_end_of_intervals(&mut self, program: &BpfProgram) {
        if let Some((in_kernel, _)) = self.in_kernel() {
            in_kernel.prepare_end(program);
        }
    }
}
