//! Sampling one process by the in-kernel program: what the program has to be told of it, and what becomes of the
//! stacks that it sends. Nothing of the process is stopped, and nothing is read at the instants.

use std::collections::HashSet;

use profiler_bpf::{NamesRecord, StackRecord, ThreadEntry};
use profiler_memory::ReadError;
use profiler_model::{LossReason, Nanos, ThreadState, Tid, Timestamp};
use profiler_profile::{Profile, Sample, StackId};
use rustc_hash::FxHashMap;

use super::{ProcessSampler, Sampled, truncation_mark};
use crate::kernel::{Kernel, entries};
use crate::sent::{Sent, SentNames};

/// Whether the lists of threads still start where they did is looked at so often: a thread that starts in
/// between and uses its CPU at once is noticed by its first sample.
const LOOK_GAP: Nanos = Nanos::from_nanos(20_000_000);

/// What is known of a process that the in-kernel program samples.
#[derive(Debug, Default)]
pub struct InKernel {
    pub(super) names: SentNames,
    /// What the program was told of kernel threads with thread states.
    told: FxHashMap<Tid, ThreadEntry>,
    /// Threads of which it was told that they had no thread state when they were met.
    natives: HashSet<Tid>,
    /// Samples of threads without a thread state that it was told of.
    unknown: FxHashMap<Tid, u64>,
    /// Whether names are sent with every sample.
    always_sends_names: bool,
    /// Whether a sample said that the lists are out of date.
    pub(super) is_outdated: bool,
    next_look: Timestamp,
}

impl ProcessSampler {
    /// Has the program sample the process from now on.
    ///
    /// # Errors
    /// When its runtime cannot be read, or there is no room for it.
    pub fn enter_kernel(
        &mut self,
        kernel: &mut Kernel,
        profile: &mut Profile,
        now: Timestamp,
    ) -> Result<(), ReadError> {
        let target = &self.probe.target;
        // Without room nothing of it is sampled; the ledger of processes then says that it was missed.
        let _ = kernel.tell_process(target.pid(), target.offsets(), self.in_kernel.always_sends_names);
        self.look_at_lists(kernel, now)?;
        self.watch_threads(kernel, profile);
        self.look_at_sleepers(kernel, profile);
        Ok(())
    }

    /// What the process leaves in the program.
    pub fn leave_kernel(&mut self, kernel: &mut Kernel) {
        kernel.forget_process(self.probe.target.pid());
        self.forget_absences(kernel);
        let InKernel { told, natives, .. } = &mut self.in_kernel;
        told.drain().map(|(tid, _)| tid).chain(natives.drain()).for_each(|tid| kernel.forget_thread(tid));
    }

    /// Looks whether there are other threads, if it is time to or some sample said so.
    pub fn look_in_kernel(&mut self, kernel: &mut Kernel, profile: &mut Profile, now: Timestamp) -> Sampled {
        let InKernel { unknown, natives, .. } = &self.in_kernel;
        let is_outdated = self.in_kernel.is_outdated || unknown.keys().any(|tid| !natives.contains(tid));
        if !is_outdated && now < self.in_kernel.next_look {
            return Sampled::Going;
        }
        self.in_kernel.next_look = now + LOOK_GAP;
        let roster = &mut self.probe.roster;
        let lists_stand = roster.look(self.probe.target.memory(), self.probe.target.runtime());
        let result = match lists_stand {
            Ok(true) if !is_outdated && !self.probe.roster.is_recheck_due(now) => Ok(()),
            Ok(_) => self.look_at_lists(kernel, now),
            Err(error) => Err(error),
        };
        self.settle_unknown(profile);
        self.resend_missing(kernel);
        self.watch_threads(kernel, profile);
        self.settle_absences(kernel, profile, now);
        match result {
            Ok(()) => self.names.update(&self.probe.target, &self.probe.roster, profile, now),
            Err(ReadError::ProcessEnded) => return self.ended_in_kernel(kernel, profile),
            Err(_) => return Sampled::WithoutRuntime,
        }
        match self.probe.roster.threads.is_empty() && !self.probe.target.process().is_alive() {
            true => self.ended_in_kernel(kernel, profile),
            false => Sampled::Going,
        }
    }

    fn ended_in_kernel(&mut self, kernel: &mut Kernel, profile: &mut Profile) -> Sampled {
        self.settle_all_absences(kernel, profile, None);
        Sampled::Ended
    }

    /// Brings roster and program up to date.
    fn look_at_lists(&mut self, kernel: &mut Kernel, now: Timestamp) -> Result<(), ReadError> {
        self.in_kernel.is_outdated = false;
        let (target, roster) = (&self.probe.target, &mut self.probe.roster);
        roster.refresh(target.process(), target.memory(), target.runtime(), now)?;
        let now_there = entries(roster);
        let InKernel { told, natives, unknown, .. } = &mut self.in_kernel;
        told.keys().filter(|tid| !now_there.contains_key(tid)).for_each(|tid| kernel.forget_thread(*tid));
        for (tid, entry) in &now_there {
            if natives.remove(tid) || told.get(tid) != Some(entry) {
                // Without room its samples are counted as those of an unknown thread.
                let _ = kernel.tell_thread(*tid, entry);
            }
        }
        for tid in unknown.keys().filter(|tid| !now_there.contains_key(tid)) {
            // It need not be told again that it met one.
            if natives.insert(*tid) {
                let _ = kernel.tell_thread(*tid, &ThreadEntry::default());
            }
        }
        *told = now_there;
        Ok(())
    }

    /// Counts samples of threads that the program did not know: they are lost if the thread has a thread state;
    /// otherwise it runs no Python.
    fn settle_unknown(&mut self, profile: &mut Profile) {
        for (tid, times) in self.in_kernel.unknown.drain() {
            let ledger = profile.ledger_mut();
            match self.in_kernel.told.contains_key(&tid) {
                true => ledger.count_lost_times(LossReason::UnknownThread, times),
                false => (0..times).for_each(|_| ledger.count_not_asked_for()),
            }
        }
    }

    fn resend_missing(&mut self, kernel: &mut Kernel) {
        let pid = self.probe.target.pid();
        for code in self.in_kernel.names.take_missing() {
            kernel.ask_for_names(pid, code);
        }
    }

    /// Keeps the names of a code object; returns whether the program has to send names with every sample.
    pub fn take_names(&mut self, sent: &NamesRecord<'_>) -> bool {
        let InKernel { names, always_sends_names, .. } = &mut self.in_kernel;
        let reused = names.keep(&self.probe.target, sent, &mut self.code_names) == Sent::ReusedAddress;
        reused && !std::mem::replace(always_sends_names, true)
    }

    /// Records what the program sent, with so much CPU time for which it stands.
    pub fn take_stack(&mut self, profile: &mut Profile, record: &StackRecord<'_>, cpu: Nanos) {
        profile.ledger_mut().count_interruption(record.took());
        let cpu = self.time_of_sample(record, cpu);
        let stack = self.stack_of(profile, record);
        if stack.is_ok() {
            self.count_sample(record.thread(), cpu);
        }
        match stack {
            Ok(Some((thread, stack))) => self.record_sent(profile, record, (thread, stack), cpu),
            Ok(None) => profile.ledger_mut().count_not_asked_for(),
            Err(LossReason::UnknownThread) => {
                *self.in_kernel.unknown.entry(record.thread()).or_default() += 1;
            }
            Err(reason) => {
                self.in_kernel.is_outdated |= reason == LossReason::ThreadEnded;
                profile.ledger_mut().count_lost(reason);
            }
        }
    }

    /// The thread, by its index, and the stack of a record; `None` where nothing is to be shown.
    fn stack_of(
        &mut self,
        profile: &mut Profile,
        record: &StackRecord<'_>,
    ) -> Result<Option<(usize, StackId)>, LossReason> {
        let InKernel { names, .. } = &mut self.in_kernel;
        let target = &self.probe.target;
        let raw = names.stack(record, target.offsets())?;
        if self.options.gil_only && !record.holds_gil() {
            return Ok(None);
        }
        let index = self.probe.roster.find(record.thread_state()).ok_or(LossReason::ThreadEnded)?;
        let ids = names
            .root_first(target, record, &raw, &mut self.code_names, &mut |frame| profile.frame(frame))?;
        let mark = raw.truncated.then(|| profile.frame(&truncation_mark()));
        Ok(profile.stack(mark.into_iter().chain(ids)).map(|stack| (index, stack)))
    }

    fn record_sent(
        &mut self,
        profile: &mut Profile,
        record: &StackRecord<'_>,
        (index, stack): (usize, StackId),
        cpu: Nanos,
    ) {
        let thread = self.thread_id(profile, index);
        let known = &mut self.probe.roster.threads[index];
        // A thread that has moved from one CPU to another is met by both clocks: never for more than went by.
        let wall = cpu.min(record.time().since(known.counted_until));
        known.counted_until = record.time();
        profile.record(Sample {
            at: record.time(),
            thread,
            stack: Some(stack),
            state: ThreadState::Running,
            holds_gil: record.holds_gil(),
            cpu,
            wall,
        });
    }
}
