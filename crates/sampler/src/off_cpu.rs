//! Where one process's threads wait, for how long and for what: exact, from the kernel's scheduler.
//!
//! What threads do on the CPU is `kernel`'s.

use std::sync::Arc;

use profiler_bpf::{BpfError, OffCpu, Record, StackRecord};
use profiler_memory::ReadError;
use profiler_model::{Frame, LossReason, Nanos, Tid, Timestamp};
use profiler_os::clock;
use profiler_python::GilAddresses;

use crate::absences::{Absence, Absences, Owner, Sink, ThreadTotals};
use crate::code_names::CodeNames;
use crate::kernel::{Kernel, entries};
use crate::roster::Roster;
use crate::sent::{Sent, SentNames};
use crate::{DumpOptions, SamplerKind, Target, dump};

/// The stack of a thread that is off the CPU.
#[derive(Clone, Debug)]
pub enum OffCpuStack {
    /// Its frames, root first.
    Taken {
        /// The frames.
        frames: Arc<[Frame]>,
        /// Whether frames are missing at the root.
        truncated: bool,
    },
    /// It could not be taken.
    Lost(LossReason),
    /// Many short absences in sum: their stacks were not kept.
    Summed,
}

/// Watches the threads of a target that are off the CPU.
#[derive(Debug)]
pub struct OffCpuProbe {
    target: Target,
    kernel: Kernel,
    off_cpu: OffCpu,
    roster: Roster,
    gils: Vec<GilAddresses>,
    names: Names,
    absences: Absences<OffCpuStack>,
}

/// Why time off the CPU cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum OffCpuError {
    /// The kernel refuses.
    #[error(transparent)]
    Kernel(#[from] BpfError),
    /// The target cannot be read.
    #[error(transparent)]
    Target(#[from] ReadError),
}

impl OffCpuProbe {
    /// Watches every Python thread of `target`. Absences shorter than `least` are summed.
    ///
    /// # Errors
    /// When the kernel does not take the programs, or the runtime cannot be read.
    pub fn attach(target: Target, least: Nanos) -> Result<Self, OffCpuError> {
        let mut kernel = Kernel::load_with_off_cpu(least)?;
        let off_cpu = kernel.off_cpu.take().ok_or(BpfError::Missing("off-CPU programs"))?;
        kernel.tell_process(target.pid(), target.offsets(), false)?;
        let mut probe = OffCpuProbe {
            names: Names::new(&target),
            target,
            kernel,
            off_cpu,
            roster: Roster::default(),
            gils: Vec::new(),
            absences: Absences::new(OffCpuStack::Lost(LossReason::Late), OffCpuStack::Summed),
        };
        probe.watch_new_threads()?;
        probe.look_at_first()?;
        Ok(probe)
    }

    /// What has happened since the last call: absences that are over, and the parts until now of those that last.
    ///
    /// # Errors
    /// When the runtime cannot be read any more.
    pub fn read(&mut self) -> Result<Vec<Absence<OffCpuStack>>, OffCpuError> {
        self.read_up_to(None)
    }

    /// Ends the watch, and tells what has happened since the last call of [`OffCpuProbe::read`]. Nothing happens to
    /// the threads.
    ///
    /// # Errors
    /// When the kernel cannot be told.
    pub fn finish(&mut self) -> Result<Vec<Absence<OffCpuStack>>, OffCpuError> {
        let end = self.absences.end(&mut self.off_cpu)?;
        self.read_up_to(Some(end))
    }

    /// What each thread has done up to the last look at it.
    pub fn totals(&self) -> impl Iterator<Item = (Tid, &ThreadTotals)> {
        self.absences.totals()
    }

    fn read_up_to(&mut self, end: Option<Timestamp>) -> Result<Vec<Absence<OffCpuStack>>, OffCpuError> {
        let mut found = Vec::new();
        let (mut has_strangers, mut has_reused) = (false, false);
        let OffCpuProbe { target, kernel, off_cpu, gils, names, absences, .. } = self;
        let owner = Owner { process: target.process(), gils };
        let mut keep = |absence| found.push(absence);
        kernel.read(&mut |record| match record {
            Record::Names(sent) => {
                has_reused |= names.sent.keep(target, &sent, &mut names.codes) == Sent::ReusedAddress;
            }
            Record::DeepStack(stack) => absences.take_deep(&stack, names.stack(&stack, target)),
            Record::Absence(record) => {
                let mut stack = |stack: &StackRecord<'_>| names.stack(stack, target);
                absences.take(&record, owner, &mut Sink { stack: &mut stack, absence: &mut keep });
            }
            Record::Stranger(..) => has_strangers = true,
            Record::Stack(_) => {}
        });
        let mut stack = |stack: &StackRecord<'_>| names.stack(stack, target);
        absences.settle(off_cpu, end, owner, &mut Sink { stack: &mut stack, absence: &mut keep });
        if has_reused {
            kernel.tell_process(target.pid(), target.offsets(), true)?;
        }
        for (code, head_hash) in names.sent.take_missing() {
            kernel.ask_for_names(target.pid(), code, head_hash);
        }
        if has_strangers && end.is_none() {
            self.watch_new_threads()?;
        }
        Ok(found)
    }

    /// Tells the kernel of the threads that it does not know yet.
    fn watch_new_threads(&mut self) -> Result<(), OffCpuError> {
        let OffCpuProbe { target, kernel, off_cpu, roster, gils, absences, .. } = self;
        roster.refresh(target.process(), target.memory(), target.runtime(), clock::now())?;
        *gils = roster.interpreters.iter().filter_map(|interpreter| interpreter.gil).collect();
        let owner = Owner { process: target.process(), gils };
        let entries = entries(roster);
        for thread in roster.threads.iter() {
            if let Some(entry) = entries.get(&thread.tid)
                && !absences.has(thread.tid)
            {
                kernel.tell_thread(thread.tid, entry)?;
                absences.watch(off_cpu, thread, owner);
            }
        }
        Ok(())
    }

    /// Reads the stacks of threads that are asleep already.
    fn look_at_first(&mut self) -> Result<(), OffCpuError> {
        // Should it be gone by now, there is nothing to look at.
        let Ok(target) = Target::attach(self.target.pid()) else { return Ok(()) };
        for thread in dump(target, DumpOptions::of_stacks(SamplerKind::Peek))?.threads {
            if let (Some(tid), None) = (thread.tid, thread.lost) {
                let frames: Vec<Frame> = thread.frames.into_iter().rev().collect();
                let stack = OffCpuStack::Taken { frames: frames.into(), truncated: thread.truncated };
                self.absences.take_first_stack(&self.off_cpu, tid, stack);
            }
        }
        Ok(())
    }
}

/// Names the frames of stacks, with the names that the kernel sent.
#[derive(Debug)]
struct Names {
    sent: SentNames,
    codes: CodeNames<usize>,
    /// Frames are numbered as they are met.
    frames: Vec<Frame>,
}

impl Names {
    fn new(target: &Target) -> Self {
        let codes = CodeNames::new(*target.process());
        Names { sent: SentNames::default(), codes, frames: Vec::new() }
    }

    fn stack(&mut self, record: &StackRecord<'_>, target: &Target) -> OffCpuStack {
        match self.frames(record, target) {
            Ok((frames, truncated)) => OffCpuStack::Taken { frames, truncated },
            Err(reason) => OffCpuStack::Lost(reason),
        }
    }

    fn frames(
        &mut self,
        record: &StackRecord<'_>,
        target: &Target,
    ) -> Result<(Arc<[Frame]>, bool), LossReason> {
        let raw = self.sent.stack(record, target.offsets())?;
        let known = &mut self.frames;
        let ids = self.sent.root_first(target, record, &raw, &mut self.codes, &mut |frame| {
            known.push(frame.clone());
            known.len() - 1
        })?;
        Ok((ids.into_iter().map(|id| self.frames[id].clone()).collect(), raw.truncated))
    }
}
