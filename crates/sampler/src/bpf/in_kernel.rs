//! Sampling one process by the in-kernel program: what it sends becomes observations. Nothing of the process is stopped, and
//! nothing is read at the instants.

use profiler_bpf::{BpfError, NamesRecord, NativeTicks, OffCpuRecord, StackRecord};
use profiler_memory::ReadError;
use profiler_model::{ClockReading, LossReason, Nanos, ThreadState, Tid, Timestamp};
use profiler_profile::{HeldBy, Loss, Renaming, Scope};
use profiler_python::RawStack;
use profiler_stack::{Capture, HashedEvidence, Kept};

use super::capture::{kernel_stack, raw_stack, read_evidence, sent_hashes, sent_names};
use super::idle_scan;
use super::off_cpu::OffCpuTimes;
use super::program::BpfProgram;
use super::registration::Registration;
use crate::event_writer::EventWriter;
use crate::observation::Observation;
use crate::roster::ThreadSlot;
use crate::runtimes::Runtimes;
use crate::sampled_process::{Sampled, SampledProcess};

/// What is known of a process that the in-kernel program samples.
#[derive(Debug, Default)]
pub struct InKernel {
    registration: Registration,
    off_cpu: OffCpuTimes,
    /// The evidence of the stack that is reported; kept for its memory.
    evidence: HashedEvidence,
    /// How many runtimes there were at the last look.
    met_runtimes: usize,
}

impl InKernel {
    /// Has the program sample the process from now on. What cannot be read of it yet is looked at again soon.
    pub fn enter(
        &mut self,
        runtimes: &mut Runtimes,
        program: &mut BpfProgram,
        events: &mut EventWriter<'_>,
        now: Timestamp,
    ) {
        self.meet_runtimes(runtimes, program);
        if self.registration.begin(runtimes, program, now).is_ok() {
            self.watch_threads(runtimes, program, events);
        }
    }

    /// Takes note of runtimes that have come since the last look.
    fn meet_runtimes(&mut self, runtimes: &mut Runtimes, program: &BpfProgram) {
        for process in runtimes.all_mut().iter_mut().skip(self.met_runtimes) {
            process.reporter.kernel_frames = program.frames();
        }
        self.met_runtimes = runtimes.all().len();
    }

    /// Has the program send names with every sample.
    ///
    /// # Errors
    /// When it refuses.
    pub fn register_again(&self, runtimes: &Runtimes, program: &mut BpfProgram) -> Result<(), BpfError> {
        self.registration.register_process(runtimes, program)
    }

    /// Whether samples of it can be taken: the program has room for it.
    pub fn has_room(&self) -> bool {
        self.registration.has_room()
    }

    /// What the process leaves in the program.
    pub fn leave(&mut self, program: &mut BpfProgram, runtimes: &Runtimes) {
        self.off_cpu.forget(program);
        self.registration.end(program, runtimes.first().target().pid());
    }

    /// Looks whether there are other threads, if it is time to or some sample said so. Returns what has become of each runtime;
    /// nothing if it was not the time.
    pub fn look(
        &mut self,
        runtimes: &mut Runtimes,
        program: &mut BpfProgram,
        events: &mut EventWriter<'_>,
        now: Timestamp,
    ) -> Vec<Sampled> {
        if self.met_runtimes != runtimes.all().len() {
            self.meet_runtimes(runtimes, program);
            self.registration.add_runtimes(runtimes, program);
        }
        if !self.registration.is_look_due(now) {
            return Vec::new();
        }
        let looked = self.registration.look(runtimes, program, events, now);
        self.registration.resend_missing(runtimes, program);
        self.watch_threads(runtimes, program, events);
        self.off_cpu.flush_if_due(runtimes, program, events, now);
        let are_readable = !self.registration.are_lists_unreadable();
        let has_ended =
            are_readable && runtimes.are_without_threads() && !runtimes.first().target().process().is_alive();
        let become_of = |(process, looked): (&mut SampledProcess, Result<(), ReadError>)| {
            if looked.is_ok() {
                process.update_names(events, now);
            }
            match Sampled::of(looked, || process.target().has_live_runtime()) {
                Sampled::Going if has_ended => Sampled::Ended,
                sampled => sampled,
            }
        };
        runtimes.all_mut().iter_mut().zip(looked).map(become_of).collect()
    }

    fn watch_threads(
        &mut self,
        runtimes: &mut Runtimes,
        program: &mut BpfProgram,
        events: &mut EventWriter<'_>,
    ) {
        self.off_cpu.watch_threads(runtimes, program, events);
        if self.off_cpu.look_at_sleepers(runtimes, program, events).is_err() {
            // What has become of the process is found out when its lists are read.
            self.registration.distrust();
        }
    }

    /// Counts samples of threads that the program did not know.
    pub fn count_unregistered(&mut self, runtimes: &Runtimes, events: &mut EventWriter<'_>) {
        self.registration.count_unregistered(runtimes, events);
    }

    /// Counts ticks that met a thread which is registered without a thread state.
    pub fn take_native(&mut self, native: &NativeTicks) {
        self.registration.take_native(native);
    }

    /// Reports what its threads off the CPU do, as far as they are wanted, at the instant that was due at `due`.
    pub fn scan(&mut self, runtimes: &mut Runtimes, events: &mut EventWriter<'_>, due: Timestamp) {
        runtimes.attribute_threads();
        for process in runtimes.all_mut() {
            if !idle_scan::scan(process, events, due) {
                // What has become of the process is found out, and reported, when its lists are looked at.
                self.registration.distrust();
            }
        }
    }

    /// Keeps the names of a code object; returns whether the program has to send names with every sample.
    pub fn take_names(&mut self, runtimes: &mut Runtimes, record: &NamesRecord<'_>) -> bool {
        let Some(SampledProcess { probe, reporter, .. }) = runtimes.get_mut(record.runtime()) else {
            return false;
        };
        let offsets = probe.target.offsets();
        let kept = sent_names(offsets, record).map(|sent| reporter.resolver.keep_names(offsets, sent));
        kept == Some(Kept::ReusedAddress) && self.registration.want_all_names()
    }

    /// Takes note of what a stack proves, be it shown or not.
    pub fn note_proofs(&mut self, runtimes: &mut Runtimes, record: &StackRecord<'_>) {
        if let Some((proof, process)) = record.proof().zip(runtimes.get_mut(record.runtime())) {
            process.reporter.resolver.note_proof(proof, sent_hashes(record));
        }
    }

    /// Reports what the program sent, which by its CPU's clock stands for so much time.
    pub fn take_stack(
        &mut self,
        runtimes: &mut Runtimes,
        events: &mut EventWriter<'_>,
        record: &StackRecord<'_>,
        by_tick: Nanos,
    ) {
        let scope = runtimes.first().reporter.scope();
        events.held(scope, record.time(), HeldBy::Program, record.took());
        self.note_proofs(runtimes, record);
        let exactly = self.off_cpu.time_of_sample(record);
        let time = exactly.unwrap_or(by_tick);
        let sample = (record.thread(), record.time(), by_tick);
        let known = runtimes
            .get_mut(record.runtime())
            .map(|process| (raw_stack(record, process.probe.source()), process));
        if let Some((raw, process)) = &known
            && self.registration.is_unregistered(process, sample, raw.as_ref().err())
        {
            return;
        }
        if exactly.is_some() {
            self.off_cpu.count_sample(record, time);
        }
        let known = known.and_then(|(raw, process)| Some((thread_of(process, record)?, raw, process)));
        match known {
            Some((index, raw, process)) => self.report(process, events, record, (index, raw, time)),
            None => {
                self.registration.distrust();
                let loss = Loss::of(LossReason::ThreadEnded, scope, record.time(), 1);
                events.lose_with(Loss { cpu: time, wall: time, ..loss });
            }
        }
    }

    fn report(
        &mut self,
        process: &mut SampledProcess,
        events: &mut EventWriter<'_>,
        record: &StackRecord<'_>,
        (index, python, time): (usize, Result<RawStack, LossReason>, Nanos),
    ) {
        read_evidence(record, &mut self.evidence);
        let are_wanted = process.reporter.kernel_frames.are_wanted();
        let kernel = are_wanted.then(|| kernel_stack(record));
        let capture = capture_of(record, process.thread(index).slot, time, python);
        let capture = Capture { kernel, ..capture };
        process.report(Observation::Program(capture, &self.evidence), events);
    }

    /// Takes note of a thread that the scheduler's programs do not watch.
    pub fn meet_unwatched(&mut self) {
        self.registration.distrust();
    }

    /// Keeps the stack of an off-CPU interval that is still to come.
    pub fn take_deep_stack(
        &mut self,
        runtimes: &mut Runtimes,
        events: &mut EventWriter<'_>,
        record: &StackRecord<'_>,
    ) {
        self.off_cpu.take_deep_stack(runtimes, events, record);
    }

    /// Reports an off-CPU interval that is over.
    pub fn take_interval(
        &mut self,
        runtimes: &mut Runtimes,
        events: &mut EventWriter<'_>,
        record: &OffCpuRecord<'_>,
    ) {
        self.off_cpu.take_interval(runtimes, events, record);
    }

    /// Reports off-CPU intervals that were not reported by themselves, up to now or to the `end` of the watch.
    pub fn flush_off_cpu(
        &mut self,
        runtimes: &mut Runtimes,
        program: &mut BpfProgram,
        events: &mut EventWriter<'_>,
        end: Option<Timestamp>,
    ) {
        self.off_cpu.flush(runtimes, program, events, end);
    }

    /// Since when the scheduler's programs watch it, if they do.
    pub fn watched_since(&self) -> Option<Timestamp> {
        self.off_cpu.watched_since()
    }

    /// Notes what the watch cannot say any more once it has ended.
    pub fn prepare_end(&mut self, program: &BpfProgram) {
        self.off_cpu.prepare_end(program);
    }

    /// Gives what is kept its ids in the next dictionary.
    pub fn rename(&mut self, renaming: &mut Renaming<'_>) {
        self.off_cpu.rename(renaming);
    }

    /// A kernel thread as what events are about: its process if it is not in the dictionary.
    pub fn scope_of(runtimes: &Runtimes, thread: Tid) -> Scope {
        let id_in = |process: &SampledProcess| {
            let of_tid = process.threads().iter().filter(|one| one.tid == thread);
            of_tid.filter_map(|thread| process.reporter.id_of(thread.slot)).next()
        };
        let id = runtimes.all().iter().find_map(id_in);
        id.map_or(runtimes.first().reporter.scope(), Scope::Thread)
    }
}

/// What a record says of a thread, for the CPU `time` that it stands for.
fn capture_of(
    record: &StackRecord<'_>,
    thread: ThreadSlot,
    time: Nanos,
    python: Result<RawStack, LossReason>,
) -> Capture<ThreadSlot> {
    Capture {
        thread,
        at: record.time(),
        count: 1,
        state: ThreadState::Running,
        holds_gil: record.holds_gil(),
        asleep_after: None,
        may_have_no_state: false,
        // Of a thread that has moved to another CPU since its last sample this may be more than went by since then. To cut
        // it would bias the sum.
        clocks: ClockReading::Measured { cpu: time, wall: time },
        python: Some(python),
        native: None,
        kernel: None,
    }
}

/// The thread that a record is of, by its index: the program also meets it in a thread state that is too young to be known
/// here. Of several states it says which.
fn thread_of(process: &SampledProcess, record: &StackRecord<'_>) -> Option<usize> {
    let of_kernel_thread = || process.threads().iter().position(|thread| thread.tid == record.thread());
    process.probe.thread_table.find(record.thread_state()).or_else(of_kernel_thread)
}

#[cfg(test)]
mod replay;
