//! Sampling one process by the in-kernel program: what the program has to be told of it, and what becomes of the
//! stacks that it sends. Nothing of the process is stopped, and nothing is read at the instants.

use std::collections::HashSet;

use profiler_account::ticks;
use profiler_bpf::{NamesRecord, NativeTicks, StackRecord, ThreadEntry};
use profiler_memory::ReadError;
use profiler_model::{Frame, LossReason, Nanos, ThreadState, Tid, Timestamp};
use profiler_os::{KernelFunction, clock};
use profiler_profile::{FrameId, HeldBy, Loss, MarkKind, Sample, Scope, StackId};
use profiler_python::RawStack;
use profiler_stack::{HashedEvidence, Kept, StackEvidence};
use profiler_target::Target;
use rustc_hash::FxHashMap;

use super::{ProcessSampler, Sampled};
use crate::bpf::{BpfProgram, KernelFrames, entries, raw_stack, read_evidence, sent_hashes, sent_names};
use crate::event_writer::EventWriter;
use crate::stack_names::StackNames;

/// Whether the lists of threads still start where they did is looked at so often: a thread that starts in
/// between and uses its CPU at once is noticed by its first sample.
const LOOK_GAP: Nanos = Nanos::from_nanos(20_000_000);

/// What is known of a process that the in-kernel program samples.
#[derive(Debug, Default)]
pub struct InKernel {
    /// The evidence of the stack that is being resolved. It is kept so that its memory is allocated once.
    evidence: HashedEvidence,
    pub(super) kernel_frames: KernelFrames<FrameId>,
    /// What the program was told of kernel threads with thread states.
    told: FxHashMap<Tid, ThreadEntry>,
    /// Threads for which it had no room.
    without_room: HashSet<Tid>,
    /// The CPU time up to which the process itself was told to it, or its samples counted as lost, where it has no room.
    untold_since: Option<Nanos>,
    /// Threads of which it was told that they had no thread state when they were met.
    natives: HashSet<Tid>,
    /// Samples of threads without a thread state that it was told of.
    unknown: FxHashMap<Tid, u64>,
    /// Whether names are sent with every sample.
    always_sends_names: bool,
    /// Whether a sample said that the lists are out of date.
    pub(super) is_outdated: bool,
    /// Whether the lists could not be read at the last look, although Python is there.
    are_lists_unreadable: bool,
    next_look: Timestamp,
}

impl ProcessSampler {
    /// Has the program sample the process from now on.
    ///
    /// # Errors
    /// When its runtime cannot be read, or there is no room for it.
    pub fn enter_kernel(
        &mut self,
        kernel: &mut BpfProgram,
        events: &mut EventWriter<'_>,
        now: Timestamp,
    ) -> Result<(), ReadError> {
        self.in_kernel.kernel_frames = kernel.frames();
        let target = &self.probe.target;
        if kernel.register_process(target.pid(), target.offsets(), self.in_kernel.always_sends_names).is_err()
        {
            self.in_kernel.untold_since = target.process().cpu_time();
        }
        self.look_at_lists(kernel, now)?;
        self.watch_threads(kernel, events);
        self.look_at_sleepers(kernel, events);
        Ok(())
    }

    /// Whether samples of it can be taken: the program has room for it.
    pub fn has_room(&self) -> bool {
        self.in_kernel.untold_since.is_none()
    }

    /// Has the program know the process, as soon as it has room; what it did until then is lost.
    fn register_process_again(&mut self, kernel: &mut BpfProgram, events: &mut EventWriter<'_>) {
        let Some(since) = self.in_kernel.untold_since else { return };
        let now = self.probe.target.process().cpu_time().unwrap_or(since);
        let missed = match kernel.period() {
            Nanos::ZERO => 0,
            period => ticks(now.saturating_sub(since), period),
        };
        let target = &self.probe.target;
        let names = self.in_kernel.always_sends_names;
        self.in_kernel.untold_since = match kernel.register_process(target.pid(), target.offsets(), names) {
            Ok(()) => None,
            // Less than a tick is not lost yet.
            Err(_) if missed == 0 => Some(since),
            Err(_) => Some(now),
        };
        if self.in_kernel.untold_since != Some(since) {
            // Whose threads it cannot tell from others it never has room for.
            let reason = match kernel.knows(*self.probe.target.process()) {
                true => LossReason::BufferFull,
                false => LossReason::UnknownThread,
            };
            events.lose(reason, self.scope(), clock::now(), missed);
        }
    }

    /// What the process leaves in the program.
    pub fn leave_kernel(&mut self, kernel: &mut BpfProgram) {
        kernel.forget_process(self.probe.target.pid());
        self.forget_intervals(kernel);
        let InKernel { told, natives, .. } = &mut self.in_kernel;
        told.drain().map(|(tid, _)| tid).chain(natives.drain()).for_each(|tid| kernel.forget_thread(tid));
    }

    /// Looks whether there are other threads, if it is time to or some sample said so.
    pub fn look_in_kernel(
        &mut self,
        kernel: &mut BpfProgram,
        events: &mut EventWriter<'_>,
        now: Timestamp,
    ) -> Sampled {
        let InKernel { unknown, natives, .. } = &self.in_kernel;
        let is_outdated = self.in_kernel.is_outdated || unknown.keys().any(|tid| !natives.contains(tid));
        if !is_outdated && now < self.in_kernel.next_look {
            return Sampled::Going;
        }
        self.in_kernel.next_look = now + LOOK_GAP;
        self.register_process_again(kernel, events);
        let thread_table = &mut self.probe.thread_table;
        let lists_stand = thread_table.look(self.probe.target.memory(), self.probe.target.runtime());
        let result = match lists_stand {
            Ok(true) if !is_outdated && !self.probe.thread_table.is_recheck_due(now) => Ok(()),
            Ok(_) => self.look_at_lists(kernel, now),
            Err(error) => Err(error),
        };
        let is_readable = matches!(result, Ok(()) | Err(ReadError::ProcessEnded | ReadError::NoAnswer));
        self.in_kernel.are_lists_unreadable = !is_readable && self.probe.target.has_live_runtime();
        self.in_kernel.is_outdated |= self.in_kernel.are_lists_unreadable;
        self.count_unregistered(events);
        self.resend_missing(kernel);
        self.watch_threads(kernel, events);
        self.look_at_sleepers(kernel, events);
        self.flush_off_cpu(kernel, events, now);
        match result {
            Ok(()) => self.names.update(&self.probe.target, &self.probe.thread_table, events, now),
            Err(ReadError::ProcessEnded) => return Sampled::Ended,
            Err(ReadError::NoAnswer) => return Sampled::Silent,
            Err(_) if self.in_kernel.are_lists_unreadable => return Sampled::Going,
            Err(_) => return Sampled::WithoutRuntime,
        }
        match self.probe.thread_table.threads.is_empty() && !self.probe.target.process().is_alive() {
            true => Sampled::Ended,
            false => Sampled::Going,
        }
    }

    /// Brings thread table and program up to date.
    fn look_at_lists(&mut self, kernel: &mut BpfProgram, now: Timestamp) -> Result<(), ReadError> {
        self.in_kernel.is_outdated = false;
        let (target, thread_table) = (&self.probe.target, &mut self.probe.thread_table);
        thread_table.refresh(target.process(), target.memory(), target.runtime(), now)?;
        let now_there = entries(thread_table);
        let InKernel { told, natives, unknown, without_room, .. } = &mut self.in_kernel;
        without_room.clear();
        told.keys().filter(|tid| !now_there.contains_key(tid)).for_each(|tid| kernel.forget_thread(*tid));
        for (tid, entry) in &now_there {
            if natives.remove(tid) || told.get(tid) != Some(entry) {
                // It is told again with the next look; until then its samples are those of an unknown thread.
                if kernel.register_thread(*tid, entry).is_err() {
                    without_room.insert(*tid);
                }
            }
        }
        for tid in unknown.keys().filter(|tid| !now_there.contains_key(tid)) {
            // It need not be told again that it met one.
            if natives.insert(*tid) {
                let _ = kernel.register_thread(*tid, &ThreadEntry::default());
            }
        }
        *told = now_there;
        told.retain(|tid, _| !without_room.contains(tid));
        Ok(())
    }

    /// Whether the thread is between two calls of Python, as far as is known.
    fn is_unlisted(&self, thread: Tid) -> bool {
        self.probe.thread_table.threads.iter().any(|known| known.tid == thread && !known.is_listed)
    }

    /// Counts samples of threads that the program did not know: they are lost if the thread has a thread state, or there are
    /// some of which nobody knows the thread, or the lists cannot be read; otherwise it runs no Python.
    pub fn count_unregistered(&mut self, events: &mut EventWriter<'_>) {
        let now = clock::now();
        let unknown: Vec<(Tid, u64)> = self.in_kernel.unknown.drain().collect();
        for (tid, times) in unknown {
            let InKernel { told, without_room, .. } = &self.in_kernel;
            let has_state =
                (told.contains_key(&tid) || without_room.contains(&tid)) && !self.is_unlisted(tid);
            let is_python = has_state || !self.probe.thread_table.unplaced.is_empty();
            match is_python {
                true => events.lose(LossReason::UnknownThread, self.scope(), now, times),
                false if self.in_kernel.are_lists_unreadable => {
                    events.lose(LossReason::ListsUnreadable, self.scope(), now, times);
                }
                false => events.skip(self.scope(), now, times),
            }
        }
    }

    fn resend_missing(&mut self, kernel: &mut BpfProgram) {
        let missing = self.stack_names.resolver.take_missing();
        if missing.is_empty() {
            return;
        }
        let target = &self.probe.target;
        missing.into_iter().for_each(|code| kernel.ask_for_names(target.pid(), code));
        // Told anew, it does not take anything for sent. Without room for the process nothing is sampled.
        if self.has_room() {
            let always = self.in_kernel.always_sends_names;
            let _ = kernel.register_process(target.pid(), target.offsets(), always);
        }
    }

    /// Keeps the names of a code object; returns whether the program has to send names with every sample.
    pub fn take_names(&mut self, sent: &NamesRecord<'_>) -> bool {
        let offsets = self.probe.target.offsets();
        let kept = sent_names(offsets, sent).map(|sent| self.stack_names.resolver.keep_names(offsets, sent));
        kept == Some(Kept::ReusedAddress) && !std::mem::replace(&mut self.in_kernel.always_sends_names, true)
    }

    /// Takes note of what a stack proves, be it shown or not.
    pub fn note_proofs(&mut self, record: &StackRecord<'_>) {
        if let Some(proof) = record.proof() {
            self.stack_names.resolver.note_proof(proof, sent_hashes(record));
        }
    }

    /// Records what the program sent, which by its CPU's clock stands for so much time.
    pub fn take_stack(&mut self, events: &mut EventWriter<'_>, record: &StackRecord<'_>, by_tick: Nanos) {
        let at = record.time();
        events.held(self.scope(), at, HeldBy::Program, record.took());
        self.note_proofs(record);
        let exactly = self.time_of_sample(record);
        let stack = self.stack_of(events, record);
        if let (Ok(_), Some(exactly)) = (&stack, exactly) {
            self.count_sample(record, exactly);
        }
        match stack {
            Ok(Some((thread, stack))) => {
                self.record_sent(events, record, (thread, stack), (by_tick, exactly))
            }
            Ok(None) => events.skip(self.scope(), at, 1),
            Err(LossReason::UnknownThread) => {
                *self.in_kernel.unknown.entry(record.thread()).or_default() += 1;
            }
            // It may be in a call of Python with another thread state than before, or in none: the lists tell.
            Err(LossReason::ThreadEnded) if self.is_unlisted(record.thread()) => {
                self.in_kernel.is_outdated = true;
                *self.in_kernel.unknown.entry(record.thread()).or_default() += 1;
            }
            Err(reason) => {
                self.in_kernel.is_outdated |= reason == LossReason::ThreadEnded;
                let scope = match self.thread_of(record) {
                    Some(index) => Scope::Thread(self.thread_id(events, index)),
                    None => self.scope(),
                };
                let cpu = if exactly.is_none() { by_tick } else { Nanos::ZERO };
                events.lose_with(Loss { cpu, ..Loss::of(reason, scope, at, 1) });
            }
        }
    }

    /// Counts ticks of a thread that is registered without a thread state.
    pub fn take_native(&mut self, native: &NativeTicks) {
        *self.in_kernel.unknown.entry(native.thread).or_default() += native.ticks;
    }

    /// The thread, by its index, and the stack of a record; `None` where nothing is to be shown.
    fn stack_of(
        &mut self,
        events: &mut EventWriter<'_>,
        record: &StackRecord<'_>,
    ) -> Result<Option<(usize, StackId)>, LossReason> {
        let target = &self.probe.target;
        let raw = raw_stack(record, target)?;
        if self.options.gil_only && !record.holds_gil() {
            return Ok(None);
        }
        let index = self.thread_of(record).ok_or(LossReason::ThreadEnded)?;
        let stack = self.in_kernel.named(target, record, &raw, &mut self.stack_names, events)?;
        Ok(stack.map(|stack| (index, stack)))
    }

    /// The thread that a record is of, by its index: the program also meets it in a thread state that is too young to be known
    /// here. Of several states it says which.
    fn thread_of(&self, record: &StackRecord<'_>) -> Option<usize> {
        let thread_table = &self.probe.thread_table;
        let of_kernel_thread =
            || thread_table.threads.iter().position(|thread| thread.tid == record.thread());
        thread_table.find(record.thread_state()).or_else(of_kernel_thread)
    }

    /// On a stack that was read from outside, where in the kernel its thread waits, if that was asked for. Of one that
    /// only lacks a CPU it is not known.
    pub(super) fn with_kernel_frames(
        &self,
        events: &mut EventWriter<'_>,
        index: usize,
        stack: Option<StackId>,
    ) -> Option<StackId> {
        let thread = &self.probe.thread_table.threads[index];
        if !self.in_kernel.kernel_frames.are_wanted() || thread.is_running() {
            return stack;
        }
        let functions = thread.files.kernel_stack().ok();
        // If it has moved since, this may be of another wait.
        let functions = functions.filter(|_| thread.slept_since_look());
        push_sleeper(events, stack?, functions)
    }

    fn record_sent(
        &mut self,
        events: &mut EventWriter<'_>,
        record: &StackRecord<'_>,
        (index, stack): (usize, StackId),
        (by_tick, exactly): (Nanos, Option<Nanos>),
    ) {
        let thread = self.thread_id(events, index);
        let known = &mut self.probe.thread_table.threads[index];
        let cpu = exactly.unwrap_or(by_tick);
        // Of a thread that has moved to another CPU since its last sample this may be more than went by since then. To cut it
        // would bias the sum.
        let wall = cpu;
        known.counted_until = record.time();
        let sample = Sample {
            at: record.time(),
            thread,
            stack: Some(stack),
            state: ThreadState::Running,
            holds_gil: record.holds_gil(),
            cpu,
            wall,
        };
        events.sample(sample, 1);
    }
}

impl InKernel {
    /// The stack `raw` of a record with its names, and on it what the thread did in the kernel, if that was asked for;
    /// `None` if no Python runs.
    pub(super) fn named(
        &mut self,
        target: &Target,
        record: &StackRecord<'_>,
        raw: &RawStack,
        names: &mut StackNames,
        events: &mut EventWriter<'_>,
    ) -> Result<Option<StackId>, LossReason> {
        read_evidence(record, &mut self.evidence);
        let evidence = StackEvidence::Hashes(&self.evidence);
        let Some(python) = names.stack(target, evidence, raw, events.dictionary)? else { return Ok(None) };
        if record.lacks_kernel_frames() {
            events.mark(Scope::Session, record.time(), MarkKind::NoKernelFrames);
        }
        let mut intern = |frame: &Frame| events.dictionary.frame(frame);
        let (counters, is_leaving) = (record.kernel_frames(), record.is_of_leaving());
        let kernel = self.kernel_frames.root_first(counters, record.time(), is_leaving, &mut intern);
        Ok(events.dictionary.stack_on(Some(python), kernel))
    }
}

/// On the stack of a thread that sleeps the functions of the kernel in which it does so, as far as they are known.
fn push_sleeper(
    events: &mut EventWriter<'_>,
    python: StackId,
    functions: Option<Vec<KernelFunction>>,
) -> Option<StackId> {
    let frames = KernelFrames::of_sleeper(functions, &mut |frame| events.dictionary.frame(frame));
    events.dictionary.stack_on(Some(python), frames)
}
